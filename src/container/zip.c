/* SPDX-License-Identifier: Apache-2.0 */
/* The zip directory reader (PKWARE APPNOTE 6.3, with zip64). Sizes and places come from the central
 * directory; every local header has to agree with it. */
#define ZLIB_CONST
#include "container/zip.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/num.h"

#define END_SIZE 22u	 /* end of central directory */
#define LOCATOR_SIZE 20u /* place of the next */
#define END64_SIZE 56u	 /* zip64 end of central directory */
#define CENTRAL_SIZE 46u
#define LOCAL_SIZE 30u

#define ID_ZIP64 1u /* extra field with the numbers that do not fit 32 bits */

#define FLAG_DESCRIPTOR 0x0008u /* the local header was written before the sizes were known */
#define FLAG_ENCRYPTED 0x0001u
#define FLAGS_KNOWN 0x080eu /* the former, level of compression, names are UTF-8 */

#define METHOD_STORED 0u
#define METHOD_DEFLATED 8u

/* A member for each tensor and a few more. */
#define MEMBERS_MAX (1u << 20)
/* Deflate could reach 1032:1; what grows more than this is made to fill memory. */
#define RATIO_MAX 100u
#define STREAM_BUFFER (64u << 10)
#define RATIO_FREE (1u << 20) /* bytes that may grow by any ratio */

static uint16_t le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t le32(const uint8_t *p)
{
	return le16(p) | (uint32_t)le16(p + 2) << 16;
}

static uint64_t le64(const uint8_t *p)
{
	return le32(p) | (uint64_t)le32(p + 4) << 32;
}

static int corrupt(const struct ob_file *f, const char *what, ob_err *e)
{
	return ob_fail(e, OB_CORRUPT, "%s: damaged zip archive: %s", f->path, what);
}

/* ---- the end records ---- */

struct directory {
	uint64_t off, size, n; /* bytes, members */
};

/* A field of the old record: the value, or all ones when the zip64 record has it. */
static bool agrees(uint32_t field, uint32_t ones, uint64_t value)
{
	return field == ones || field == value;
}

/* The zip64 record, if there is one before the end record at `end`. Moves *limit, where the
 * directory must end, in front of it. */
static int read_end64(const struct ob_file *f, uint64_t end, struct directory *d, uint64_t *limit,
		      ob_err *e)
{
	const uint8_t *old = f->map + end, *r;
	uint64_t off, rest;

	if (end < LOCATOR_SIZE || memcmp(old - LOCATOR_SIZE, "PK\6\7", 4) != 0)
		return 0;
	end -= LOCATOR_SIZE;
	off = le64(f->map + end + 8);
	if (!ob_in_file(off, END64_SIZE, end))
		return corrupt(f, "its zip64 record is outside the file", e);
	r = f->map + off;
	rest = le64(r + 4);
	if (memcmp(r, "PK\6\6", 4) != 0 || rest != end - off - 12)
		return corrupt(f, "it has no zip64 record where it should be", e);
	*d = (struct directory){ .n = le64(r + 32), .size = le64(r + 40), .off = le64(r + 48) };
	if (le32(r + 16) != 0 || le32(r + 20) != 0 || le64(r + 24) != d->n ||
	    !agrees(le16(old + 8), UINT16_MAX, d->n) || !agrees(le16(old + 10), UINT16_MAX, d->n) ||
	    !agrees(le32(old + 12), UINT32_MAX, d->size) ||
	    !agrees(le32(old + 16), UINT32_MAX, d->off))
		return corrupt(f, "its two end records contradict each other", e);
	*limit = off;
	return 0;
}

static int find_directory(const struct ob_file *f, struct directory *d, ob_err *e)
{
	uint64_t end, limit, stop;
	const uint8_t *r;

	if (!ob_in_file(0, END_SIZE, f->stamp.size))
		return corrupt(f, "it is too short", e);
	limit = end = f->stamp.size - END_SIZE;
	r = f->map + end;
	if (memcmp(r, "PK\5\6", 4) != 0 || le16(r + 20) != 0)
		return corrupt(f,
			       "it does not end with the zip directory, so it was truncated, or "
			       "something was appended",
			       e);
	*d = (struct directory){ .n = le16(r + 10), .size = le32(r + 12), .off = le32(r + 16) };
	if (le16(r + 4) != le16(r + 6) || le16(r + 8) != le16(r + 10))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s is one part of a zip archive in several parts", f->path);
	if (read_end64(f, end, d, &limit, e) != 0)
		return -1;
	if (!ob_add_u64(d->off, d->size, &stop) || stop != limit)
		return corrupt(f, "its directory is not where the end record says", e);
	if (d->n > MEMBERS_MAX)
		return ob_fail(e, OB_LIMIT,
			       "%s has %" PRIu64 " zip members; at most %u are accepted", f->path,
			       d->n, MEMBERS_MAX);
	return 0;
}

/* ---- members ---- */

/* A header field that may live in the zip64 extra field. */
static bool widen(uint64_t *value, const uint8_t **extra, const uint8_t *end)
{
	if (*value != UINT32_MAX)
		return true;
	if (end - *extra < 8)
		return false;
	*value = le64(*extra);
	*extra += 8;
	return true;
}

/* Replaces the sizes (and the offset, if there is one) that are all ones. */
static bool widen_all(const uint8_t *extra, size_t len, uint64_t *size, uint64_t *stored,
		      uint64_t *off)
{
	const uint8_t *end = extra + len, *next;

	for (; end - extra >= 4; extra = next) {
		next = extra + 4 + le16(extra + 2);
		if (next > end)
			return false;
		if (le16(extra) != ID_ZIP64)
			continue;
		extra += 4;
		return widen(size, &extra, next) && widen(stored, &extra, next) &&
		       (!off || widen(off, &extra, next));
	}
	return extra == end && *size != UINT32_MAX && *stored != UINT32_MAX &&
	       (!off || *off != UINT32_MAX);
}

/* May a local header say `local` where the directory says `value`? */
static bool same(uint64_t local, uint64_t value, uint16_t flags)
{
	return local == value || (local == 0 && (flags & FLAG_DESCRIPTOR));
}

/* Compares the local header with what the directory says and finds the first byte. `limit`: where
 * the members end. */
static int read_local(const struct ob_file *f, struct ob_zip_member *m, uint16_t flags,
		      uint64_t limit, ob_err *e)
{
	uint16_t method = m->deflated ? METHOD_DEFLATED : METHOD_STORED, name_len, extra_len;
	uint64_t size, stored, head_size;
	const uint8_t *p;

	if (!ob_in_file(m->head, LOCAL_SIZE, limit))
		return corrupt(f, "a member lies outside the file", e);
	p = f->map + m->head;
	name_len = le16(p + 26);
	extra_len = le16(p + 28);
	head_size = LOCAL_SIZE + (uint64_t)name_len + extra_len;
	m->off = m->head + head_size;
	if (!ob_in_file(m->head, head_size, limit) || !ob_in_file(m->off, m->stored_size, limit))
		return corrupt(f, "a member lies outside the file", e);
	stored = le32(p + 18);
	size = le32(p + 22);
	if (memcmp(p, "PK\3\4", 4) != 0 || le16(p + 6) != flags || le16(p + 8) != method ||
	    name_len != strlen(m->name) || memcmp(p + LOCAL_SIZE, m->name, name_len) != 0 ||
	    !widen_all(p + LOCAL_SIZE + name_len, extra_len, &size, &stored, NULL) ||
	    !same(le32(p + 14), m->crc, flags) || !same(stored, m->stored_size, flags) ||
	    !same(size, m->size, flags))
		return corrupt(f, "a member's header and the directory contradict each other", e);
	return 0;
}

/* Would a tool that unpacks the archive write outside its folder? A sign of an attack. */
static bool leaves_folder(const char *name)
{
	if (*name == '/')
		return true;
	while (name) {
		size_t n = strcspn(name, "/");

		if (n == 2 && memcmp(name, "..", 2) == 0)
			return true;
		name = name[n] ? name + n + 1 : NULL;
	}
	return false;
}

static int check_name(const struct ob_file *f, const char *name, size_t len, ob_err *e)
{
	char shown[160];

	if (len == 0 || strlen(name) != len)
		return corrupt(f, "a member has an empty name or one with a NUL", e);
	if (leaves_folder(name))
		return ob_fail(e, OB_UNSAFE,
			       "%s: zip member \"%s\" would be unpacked outside its folder",
			       f->path, ob_printable(name, shown, sizeof(shown)));
	return 0;
}

/* Reads the directory entry at p, of which `left` bytes exist; returns its length in *used. */
static int read_entry(struct ob_zip *z, const uint8_t *p, uint64_t left, uint64_t limit,
		      uint64_t *used, ob_err *e)
{
	const struct ob_file *f = z->file;
	struct ob_zip_member *m = &z->member[z->n];
	uint16_t name_len, extra_len, method, flags;
	char shown[160];

	if (left < CENTRAL_SIZE || memcmp(p, "PK\1\2", 4) != 0)
		return corrupt(f, "its directory is cut or holds something else", e);
	flags = le16(p + 8);
	method = le16(p + 10);
	name_len = le16(p + 28);
	extra_len = le16(p + 30);
	*used = CENTRAL_SIZE + (uint64_t)name_len + extra_len + le16(p + 32);
	if (*used > left)
		return corrupt(f, "its directory is cut", e);
	*m = (struct ob_zip_member){
		.name = ob_arena_strndup(&z->arena, (const char *)p + CENTRAL_SIZE, name_len, e),
		.crc = le32(p + 16),
		.stored_size = le32(p + 20),
		.size = le32(p + 24),
		.head = le32(p + 42),
		.deflated = method == METHOD_DEFLATED,
	};
	if (!m->name || check_name(f, m->name, name_len, e) != 0)
		return -1;
	if ((flags & ~FLAGS_KNOWN) || (method != METHOD_STORED && method != METHOD_DEFLATED))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s: zip member \"%s\" is %s; only stored and "
			       "deflated ones are read",
			       f->path, ob_printable(m->name, shown, sizeof(shown)),
			       flags & FLAG_ENCRYPTED ? "encrypted" : "packed in an unusual way");
	if (!widen_all(p + CENTRAL_SIZE + name_len, extra_len, &m->size, &m->stored_size,
		       &m->head) ||
	    (!m->deflated && m->size != m->stored_size))
		return corrupt(f, "the sizes of a member contradict each other", e);
	if (read_local(f, m, flags, limit, e) != 0)
		return -1;
	z->n++;
	return 0;
}

static int by_offset(const void *pa, const void *pb)
{
	const struct ob_zip_member *a = pa, *b = pb;

	return a->head < b->head ? -1 : a->head > b->head;
}

static void sort_members(struct ob_zip *z)
{
	/* Nearly every archive is in order; qsort would take memory of its own. */
	for (size_t i = 1; i < z->n; i++) {
		if (z->member[i].head < z->member[i - 1].head) {
			qsort(z->member, z->n, sizeof(*z->member), by_offset);
			break;
		}
	}
}

/* Checks that no byte and no name belongs to two members. */
static int index_members(struct ob_zip *z, ob_err *e)
{
	char shown[160];

	for (size_t i = 0; i < z->n; i++) {
		const struct ob_zip_member *m = &z->member[i];
		int rc;

		if (i > 0 && m->head < m[-1].off + m[-1].stored_size)
			return corrupt(z->file, "two members overlap", e);
		rc = ob_map_add(&z->by_name, m->name, strlen(m->name), (uint32_t)i, e);
		if (rc > 0)
			ob_fail(e, OB_CORRUPT, "%s: zip member \"%s\" is there twice",
				z->file->path, ob_printable(m->name, shown, sizeof(shown)));
		if (rc != 0)
			return -1;
	}
	return 0;
}

static int read_directory(struct ob_zip *z, ob_err *e)
{
	struct directory d = { 0 };
	uint64_t at = 0;

	if (find_directory(z->file, &d, e) != 0)
		return -1;
	if (d.n > d.size / CENTRAL_SIZE)
		return corrupt(z->file, "its directory is too short for its members", e);
	z->member = ob_arena_alloc(&z->arena, d.n * sizeof(*z->member), e);
	if (!z->member)
		return -1;
	while (z->n < d.n) {
		uint64_t used = 0;

		if (read_entry(z, z->file->map + d.off + at, d.size - at, d.off, &used, e) != 0)
			return -1;
		at += used;
	}
	if (at != d.size)
		return corrupt(z->file, "its directory is longer than its members", e);
	sort_members(z);
	return index_members(z, e);
}

int ob_zip_open(struct ob_zip *z, const struct ob_file *f, ob_err *e)
{
	*z = (struct ob_zip){ .file = f };
	if (read_directory(z, e) == 0)
		return 0;
	ob_zip_close(z);
	return -1;
}

void ob_zip_close(struct ob_zip *z)
{
	ob_map_free(&z->by_name);
	ob_arena_free(&z->arena);
	*z = (struct ob_zip){ 0 };
}

const struct ob_zip_member *ob_zip_find(const struct ob_zip *z, const char *name)
{
	uint32_t i;

	return ob_map_find(&z->by_name, name, strlen(name), &i) ? &z->member[i] : NULL;
}

/* ---- bytes ---- */

static voidpf zlib_alloc(voidpf unused, uInt n, uInt size)
{
	(void)unused;
	return ob_calloc(n, size);
}

static void zlib_free(voidpf unused, voidpf p)
{
	(void)unused;
	ob_free(p);
}

/* Fills buf, which has exactly the bytes that the directory promised. */
static int inflate_to(const struct ob_zip *z, const struct ob_zip_member *m, uint8_t *buf,
		      ob_err *e)
{
	z_stream s = {
		.next_in = z->file->map + m->off,
		.avail_in = (uInt)m->stored_size,
		.next_out = buf,
		.avail_out = (uInt)m->size,
		.zalloc = zlib_alloc,
		.zfree = zlib_free,
	};
	int rc;

	if (inflateInit2(&s, -MAX_WBITS) != Z_OK) /* negative: no zlib header */
		return ob_fail_nomem(e, "inflate");
	rc = inflate(&s, Z_FINISH);
	inflateEnd(&s);
	if (rc == Z_MEM_ERROR)
		return ob_fail_nomem(e, "inflate");
	if (rc != Z_STREAM_END || s.avail_out != 0 || s.avail_in != 0)
		return corrupt(z->file, "a deflated member does not unpack to its size", e);
	return 0;
}

static int check_ratio(const struct ob_zip *z, const struct ob_zip_member *m, ob_err *e)
{
	char shown[160];

	if (m->size <= RATIO_FREE || m->size / RATIO_MAX <= m->stored_size)
		return 0;
	return ob_fail(e, OB_LIMIT,
		       "%s: zip member \"%s\" would grow from %" PRIu64 " to %" PRIu64
		       " bytes; at most %u times as much is accepted",
		       z->file->path, ob_printable(m->name, shown, sizeof(shown)), m->stored_size,
		       m->size, RATIO_MAX);
}

static int unpack(const struct ob_zip *z, const struct ob_zip_member *m, void **owned, ob_err *e)
{
	char shown[160];

	if (check_ratio(z, m, e) != 0)
		return -1;
	if (m->stored_size > UINT32_MAX || m->size > UINT32_MAX)
		return ob_fail(e, OB_LIMIT, "%s: zip member \"%s\" is larger than 4 GiB",
			       z->file->path, ob_printable(m->name, shown, sizeof(shown)));
	*owned = ob_alloc(m->size);
	if (!*owned)
		return ob_fail_nomem(e, "zip member");
	return inflate_to(z, m, *owned, e);
}

int ob_zip_read(const struct ob_zip *z, const struct ob_zip_member *m, size_t max,
		const uint8_t **data, void **owned, ob_err *e)
{
	char shown[160];

	*owned = NULL;
	ob_printable(m->name, shown, sizeof(shown));
	if (m->size > max)
		return ob_fail(e, OB_LIMIT,
			       "%s: zip member \"%s\" has %" PRIu64 " bytes; at most %zu "
			       "are accepted",
			       z->file->path, shown, m->size, max);
	if (m->deflated && unpack(z, m, owned, e) != 0)
		return -1;
	*data = m->deflated ? *owned : z->file->map + m->off;
	if (m->crc != 0 && crc32_z(0, *data, m->size) != m->crc)
		return ob_fail(e, OB_CORRUPT, "%s: zip member \"%s\" does not match its checksum",
			       z->file->path, shown);
	return 0;
}

struct streaming {
	const struct ob_zip *zip;
	const struct ob_zip_member *member;
	ob_zip_sink sink;
	void *ctx;
	uint64_t in, out; /* bytes taken and made */
	uint32_t crc;
};

static int stream_deflated(struct streaming *st, uint8_t *buf, ob_err *e)
{
	const struct ob_zip_member *m = st->member;
	const uint8_t *from = st->zip->file->map + m->off;
	z_stream s = { .zalloc = zlib_alloc, .zfree = zlib_free };
	int got, rc = 0;

	if (inflateInit2(&s, -MAX_WBITS) != Z_OK)
		return ob_fail_nomem(e, "inflate");
	do {
		size_t n;

		if (s.avail_in == 0) {
			s.next_in = from + st->in;
			s.avail_in = (uInt)ob_min_u64(m->stored_size - st->in, STREAM_BUFFER);
			st->in += s.avail_in;
		}
		s.next_out = buf;
		s.avail_out = STREAM_BUFFER;
		got = inflate(&s, Z_NO_FLUSH);
		n = STREAM_BUFFER - s.avail_out;
		st->out += n;
		if (got == Z_MEM_ERROR)
			rc = ob_fail_nomem(e, "inflate");
		else if ((got != Z_OK && got != Z_STREAM_END) || st->out > m->size)
			rc = corrupt(st->zip->file, "a deflated member does not unpack to its size",
				     e);
		st->crc = (uint32_t)crc32_z(st->crc, buf, n);
		if (rc == 0)
			rc = st->sink(st->ctx, buf, n, e);
	} while (rc == 0 && got != Z_STREAM_END);
	if (rc == 0 && (st->out != m->size || st->in != m->stored_size || s.avail_in != 0))
		rc = corrupt(st->zip->file, "a deflated member does not unpack to its size", e);
	inflateEnd(&s);
	return rc;
}

int ob_zip_stream(const struct ob_zip *z, const struct ob_zip_member *m, ob_zip_sink sink,
		  void *ctx, ob_err *e)
{
	struct streaming st = { .zip = z, .member = m, .sink = sink, .ctx = ctx };
	char shown[160];
	uint8_t *buf;
	int rc;

	if (check_ratio(z, m, e) != 0)
		return -1;
	buf = ob_alloc(STREAM_BUFFER);
	if (!buf)
		return ob_fail_nomem(e, "zip member");
	rc = stream_deflated(&st, buf, e);
	ob_free(buf);
	if (rc == 0 && m->crc != 0 && st.crc != m->crc)
		rc = ob_fail(e, OB_CORRUPT, "%s: zip member \"%s\" does not match its checksum",
			     z->file->path, ob_printable(m->name, shown, sizeof(shown)));
	return rc;
}
