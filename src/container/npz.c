/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives of numpy.savez: a zip with a NAME.npy for each array. An array in a stored member is read
 * in place; deflated ones are unpacked to a temporary file when the archive is opened.
 *
 * NumPy has no bfloat16: MLX writes it as two bytes of type void.
 */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "base/num.h"
#include "container/lister.h"
#include "container/zip.h"
#include "io/temp.h"

#define GROWTH_MAX 100u	  /* times the archive, all that is unpacked together */
#define HEADER_MAX 65536u /* bytes; numpy's own limit is 10,000 */

/* ---- the header: a dict as Python spells it ---- */

struct header {
	enum ob_dtype dtype;
	bool is_fortran;
	uint32_t rank;
	uint64_t dim[OB_MAX_RANK];
	bool has_dtype, has_order, has_shape;
};

struct text {
	const char *p, *end;
};

static void skip_space(struct text *t)
{
	while (t->p < t->end && isspace((unsigned char)*t->p))
		t->p++;
}

static bool take(struct text *t, char c)
{
	skip_space(t);
	if (t->p == t->end || *t->p != c)
		return false;
	t->p++;
	return true;
}

static bool take_word(struct text *t, const char *word)
{
	size_t n = strlen(word);

	skip_space(t);
	if ((size_t)(t->end - t->p) < n || memcmp(t->p, word, n) != 0)
		return false;
	t->p += n;
	return true;
}

/* A string without escapes. */
static bool take_string(struct text *t, const char **s, size_t *n)
{
	const char *stop;

	skip_space(t);
	if (t->p == t->end || (*t->p != '\'' && *t->p != '"'))
		return false;
	*s = t->p + 1;
	stop = memchr(*s, *t->p, (size_t)(t->end - *s));
	if (!stop || memchr(*s, '\\', (size_t)(stop - *s)))
		return false;
	*n = (size_t)(stop - *s);
	t->p = stop + 1;
	return true;
}

static bool take_number(struct text *t, uint64_t *n)
{
	skip_space(t);
	if (t->p == t->end || !isdigit((unsigned char)*t->p))
		return false;
	for (*n = 0; t->p < t->end && isdigit((unsigned char)*t->p); t->p++)
		if (!ob_mul_u64(*n, 10, n) || !ob_add_u64(*n, (uint64_t)(*t->p - '0'), n))
			return false;
	return true;
}

/* "(2, 3)", "(5,)", "()" */
static bool take_shape(struct text *t, struct header *h)
{
	if (!take(t, '('))
		return false;
	while (!take(t, ')')) {
		if (h->rank == OB_MAX_RANK || !take_number(t, &h->dim[h->rank++]))
			return false;
		if (!take(t, ',') && (t->p == t->end || *t->p != ')'))
			return false;
	}
	return true;
}

static bool take_dtype(struct text *t, enum ob_dtype *dtype)
{
	static const struct {
		const char *kind;
		enum ob_dtype dtype;
	} kinds[] = {
		{ "f2", OB_F16 },  { "f4", OB_F32 }, { "f8", OB_F64 }, { "V2", OB_BF16 },
		{ "i1", OB_I8 },   { "i2", OB_I16 }, { "i4", OB_I32 }, { "i8", OB_I64 },
		{ "u1", OB_U8 },   { "u2", OB_U16 }, { "u4", OB_U32 }, { "u8", OB_U64 },
		{ "b1", OB_BOOL }, { "c8", OB_C64 },
	};
	const char *s;
	size_t n;

	*dtype = OB_N_DTYPES;
	if (!take_string(t, &s, &n))
		return false;
	for (size_t i = 0; n == 3 && i < sizeof(kinds) / sizeof(*kinds); i++)
		if (memcmp(s + 1, kinds[i].kind, 2) == 0 &&
		    (*s == '<' || *s == '=' || *s == '|' || s[2] == '1'))
			*dtype = kinds[i].dtype;
	return true;
}

/* A member of the dict. Each is there once. */
static bool take_member(struct text *t, struct header *h)
{
	const char *key;
	size_t n;
	bool *seen, ok;

	if (!take_string(t, &key, &n) || !take(t, ':'))
		return false;
	if (n == 5 && memcmp(key, "descr", n) == 0) {
		seen = &h->has_dtype;
		ok = !*seen && take_dtype(t, &h->dtype);
	} else if (n == 13 && memcmp(key, "fortran_order", n) == 0) {
		seen = &h->has_order;
		h->is_fortran = take_word(t, "True");
		ok = !*seen && (h->is_fortran || take_word(t, "False"));
	} else if (n == 5 && memcmp(key, "shape", n) == 0) {
		seen = &h->has_shape;
		ok = !*seen && take_shape(t, h);
	} else {
		return false;
	}
	*seen = true;
	return ok;
}

static bool parse_header(struct text t, struct header *h)
{
	if (!take(&t, '{'))
		return false;
	while (!take(&t, '}')) {
		if (!take_member(&t, h))
			return false;
		if (!take(&t, ',') && (t.p == t.end || *t.p != '}'))
			return false;
	}
	skip_space(&t);
	return t.p == t.end && h->has_dtype && h->has_order && h->has_shape;
}

/* ---- arrays ---- */

struct reader {
	struct ob_lister list;
	struct ob_zip zip;
	struct ob_temp temp;
	struct ob_file *unpacked;
};

/* Where the data of an npy begins: *at, and its header before. */
static int find_header(const struct reader *r, const char *name, const uint8_t *p, uint64_t size,
		       struct text *t, uint64_t *at, ob_err *e)
{
	uint64_t len = 0, head = 0;

	if (size >= 12 && memcmp(p, "\x93NUMPY", 6) == 0) {
		head = p[6] == 1 ? 10 : 12;
		for (unsigned i = p[6] == 1 ? 2 : 4; i > 0; i--)
			len = len << 8 | p[7 + i];
	}
	if (head == 0 || p[6] < 1 || p[6] > 3)
		return ob_lister_fail(&r->list, name, e, OB_CORRUPT,
				      "is no array of NumPy: its .npy does not begin like one");
	if (len > HEADER_MAX || !ob_in_file(head, len, size))
		return ob_lister_fail(&r->list, name, e, OB_CORRUPT,
				      "has a header of %" PRIu64 " bytes, more than there are or "
				      "than %u",
				      len, HEADER_MAX);
	*t = (struct text){ (const char *)p + head, (const char *)p + head + len };
	*at = head + len;
	return 0;
}

static int copy_shape(struct reader *r, const struct header *h, struct ob_stored *t, ob_err *e)
{
	uint64_t *dim = ob_arena_alloc(r->list.arena, 2 * h->rank * sizeof(*dim), e);
	uint64_t step = 1;

	if (!dim)
		return -1;
	if (h->rank)
		memcpy(dim, h->dim, h->rank * sizeof(*dim));
	t->shape = (struct ob_shape){ .rank = h->rank, .dim = dim };
	if (!h->is_fortran || h->rank < 2)
		return 0;
	/* No overflow: the product of all dimensions is checked, and none is zero here. */
	for (uint32_t i = 0; i < h->rank; i++) {
		dim[h->rank + i] = step;
		step *= h->dim[i];
	}
	t->stride = dim + h->rank;
	return 0;
}

static int add_array(struct reader *r, struct ob_file *f, uint64_t off, uint64_t size,
		     const char *member, ob_err *e)
{
	struct ob_stored *t = ob_lister_add(&r->list, member, strlen(member) - strlen(".npy"), e);
	struct header h = { 0 };
	struct text text;
	uint64_t at = 0, n, bytes;

	if (!t || find_header(r, t->name, f->map + off, size, &text, &at, e) != 0)
		return -1;
	if (!parse_header(text, &h))
		return ob_lister_fail(&r->list, t->name, e, OB_CORRUPT,
				      "has a header that is not what NumPy writes");
	if (h.dtype == OB_N_DTYPES)
		return ob_lister_fail(&r->list, t->name, e, OB_UNSUPPORTED,
				      "is of a type that is not read: only plain little-endian "
				      "numbers are");
	n = 1;
	for (uint32_t i = 0; i < h.rank; i++)
		if (!ob_mul_u64(n, h.dim[i], &n))
			n = UINT64_MAX;
	if (!ob_mul_u64(n, ob_dtype_bits(h.dtype) / 8, &bytes) || bytes != size - at)
		return ob_lister_fail(&r->list, t->name, e, OB_CORRUPT,
				      "has %" PRIu64 " bytes of data, which its shape and type "
				      "contradict",
				      size - at);
	t->file = f;
	t->dtype = h.dtype;
	t->off = off + at;
	t->len = bytes;
	if (n == 0)
		h.is_fortran = false;
	return copy_shape(r, &h, t, e);
}

/* ---- the archive ---- */

static bool is_array(const struct ob_zip_member *m)
{
	return ob_has_suffix(m->name, ".npy") && strlen(m->name) > strlen(".npy");
}

static int write_temp(void *ctx, const void *data, size_t n, ob_err *e)
{
	return ob_temp_write(ctx, data, n, e);
}

static int check_growth(const struct reader *r, ob_err *e)
{
	const struct ob_file *f = r->list.file;
	uint64_t total = 0;

	for (size_t i = 0; i < r->zip.n; i++) {
		const struct ob_zip_member *m = &r->zip.member[i];

		if (m->deflated && is_array(m) &&
		    (!ob_add_u64(total, m->size, &total) || total / GROWTH_MAX > f->stamp.size))
			return ob_fail(
				e, OB_LIMIT,
				"%s: its arrays would grow to more than %u times the size of "
				"the file",
				f->path, GROWTH_MAX);
	}
	return 0;
}

/* Unpacks the deflated arrays one behind the other. */
static int unpack(struct reader *r, ob_err *e)
{
	const char *path = r->list.file->path;

	if (check_growth(r, e) != 0)
		return -1;
	for (size_t i = 0; i < r->zip.n; i++) {
		const struct ob_zip_member *m = &r->zip.member[i];

		if (!m->deflated || !is_array(m))
			continue;
		if (r->temp.fd < 0 && ob_temp_open(&r->temp, e) != 0)
			return -1;
		if (ob_zip_stream(&r->zip, m, write_temp, &r->temp, e) != 0)
			return -1;
		ob_file_drop(r->list.file, m->off, m->stored_size);
	}
	return r->temp.fd < 0 ? 0 : ob_temp_finish(&r->temp, &r->unpacked, path, e);
}

static int list_arrays(struct reader *r, ob_err *e)
{
	uint64_t at = 0; /* in what was unpacked */

	for (size_t i = 0; i < r->zip.n; i++) {
		const struct ob_zip_member *m = &r->zip.member[i];
		int rc = 0;

		if (!is_array(m))
			continue;
		if (!m->deflated)
			rc = add_array(r, r->list.file, m->off, m->size, m->name, e);
		else
			rc = add_array(r, r->unpacked, at, m->size, m->name, e);
		if (rc != 0)
			return -1;
		at += m->deflated ? m->size : 0;
	}
	if (r->list.n == 0)
		return ob_fail(e, OB_UNSUPPORTED, "%s is a zip archive without arrays of NumPy",
			       r->list.file->path);
	return 0;
}

static int npz_open(struct ob_file *f, struct ob_arena *a, struct ob_listing *out, ob_err *e)
{
	struct reader r = { .list = { .file = f, .arena = a }, .temp = { .fd = -1 } };
	int rc = ob_zip_open(&r.zip, f, e);

	if (rc == 0)
		rc = unpack(&r, e);
	if (rc == 0)
		rc = list_arrays(&r, e);
	ob_lister_sort(&r.list);
	if (rc == 0) {
		*out = (struct ob_listing){ .unpacked = r.unpacked };
		rc = ob_lister_finish(&r.list, out, e);
	}
	if (rc != 0) {
		ob_file_close(r.unpacked);
		out->unpacked = NULL;
	}
	ob_temp_close(&r.temp);
	ob_lister_free(&r.list);
	ob_zip_close(&r.zip);
	return rc;
}

/* A zip archive whose first member is an array. */
static bool npz_probe(const struct ob_file *f)
{
	size_t n;

	if (f->stamp.size < 30 || memcmp(f->map, "PK\3\4", 4) != 0)
		return false;
	n = f->map[26] | (size_t)f->map[27] << 8;
	return n > 4 && ob_in_file(30, n, f->stamp.size) &&
	       memcmp(f->map + 30 + n - 4, ".npy", 4) == 0;
}

static const char *const suffixes[] = { ".npz", NULL };

const struct ob_container ob_container_npz = {
	.name = "npz",
	.suffix = suffixes,
	.probe = npz_probe,
	.open = npz_open,
};
