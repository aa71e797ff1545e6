/* SPDX-License-Identifier: Apache-2.0 */
/* Makes zip archives as torch and numpy write them, for tests. */
#ifndef OB_TESTS_ZIPMAKER_H
#define OB_TESTS_ZIPMAKER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum zip_style {
	ZIP_TORCH, /* sizes behind the data (flag bit 3), zip64 end record */
	ZIP_PLAIN, /* sizes in the local header, no zip64 */
	ZIP_NUMPY, /* the same, with the local sizes in a zip64 extra field */
};

struct zip_spec {
	const char *name;
	const void *data;
	size_t n;
	int deflated;
};

static inline void zip_put(FILE *f, unsigned bytes, uint64_t x)
{
	for (; bytes > 0; bytes--, x >>= 8)
		fputc((int)(x & 0xff), f);
}

/* What the local and the central header share. */
static inline void zip_put_common(FILE *f, enum zip_style style, int method, uint64_t crc,
				  uint64_t stored, uint64_t size, const char *name, unsigned extra)
{
	zip_put(f, 2, 20);
	zip_put(f, 2, style == ZIP_TORCH ? 0x808 : 0);
	zip_put(f, 2, (unsigned)method);
	zip_put(f, 4, 0x21);
	zip_put(f, 4, crc);
	zip_put(f, 4, stored);
	zip_put(f, 4, size);
	zip_put(f, 2, strlen(name));
	zip_put(f, 2, extra);
}

/* Raw deflate of m into buf, which has room; returns its length. */
static inline size_t zip_deflate(const struct zip_spec *m, void *buf, size_t room)
{
	z_stream s = { .next_out = buf, .avail_out = (uInt)room };
	void *in = (void *)(uintptr_t)m->data;

	s.next_in = in;
	s.avail_in = (uInt)m->n;
	if (deflateInit2(&s, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY) != Z_OK ||
	    deflate(&s, Z_FINISH) != Z_STREAM_END)
		abort();
	deflateEnd(&s);
	return s.total_out;
}

static inline void zip_put_member(FILE *f, FILE *dir, const struct zip_spec *m,
				  enum zip_style style)
{
	size_t room = m->n + m->n / 100 + 64, n = m->n;
	uint64_t crc = crc32_z(0, m->data, m->n), head = (uint64_t)ftell(f);
	int method = m->deflated ? 8 : 0, torch = style == ZIP_TORCH, numpy = style == ZIP_NUMPY;
	void *packed = malloc(room);

	if (m->deflated)
		n = zip_deflate(m, packed, room);
	fwrite("PK\3\4", 1, 4, f);
	zip_put_common(f, style, method, torch ? 0 : crc,
		       torch   ? 0
		       : numpy ? UINT32_MAX
			       : n,
		       torch   ? 0
		       : numpy ? UINT32_MAX
			       : m->n,
		       m->name, numpy ? 20 : 0);
	fputs(m->name, f);
	if (numpy) {
		zip_put(f, 4, 0x100001);
		zip_put(f, 8, m->n);
		zip_put(f, 8, n);
	}
	fwrite(m->deflated ? packed : m->data, 1, n, f);
	if (torch) {
		fwrite("PK\7\10", 1, 4, f);
		zip_put(f, 4, crc);
		zip_put(f, 4, n);
		zip_put(f, 4, m->n);
	}
	fwrite("PK\1\2", 1, 4, dir);
	zip_put(dir, 2, 20);
	zip_put_common(dir, style, method, crc, n, m->n, m->name, 0);
	zip_put(dir, 10, 0);
	zip_put(dir, 4, head);
	fputs(m->name, dir);
	free(packed);
}

/* The end records of a directory of n members and `size` bytes at `off`. */
static inline void zip_put_end(FILE *f, size_t n, uint64_t off, uint64_t size, enum zip_style style)
{
	if (style == ZIP_TORCH) {
		fwrite("PK\6\6", 1, 4, f);
		zip_put(f, 8, 44);
		zip_put(f, 4, 0x2d002d);
		zip_put(f, 8, 0);
		zip_put(f, 8, n);
		zip_put(f, 8, n);
		zip_put(f, 8, size);
		zip_put(f, 8, off);
		fwrite("PK\6\7", 1, 4, f);
		zip_put(f, 4, 0);
		zip_put(f, 8, off + size);
		zip_put(f, 4, 1);
	}
	fwrite("PK\5\6", 1, 4, f);
	zip_put(f, 4, 0);
	zip_put(f, 2, n);
	zip_put(f, 2, n);
	zip_put(f, 4, size);
	zip_put(f, 4, off < UINT32_MAX ? off : UINT32_MAX);
	zip_put(f, 2, 0);
}

/* The archive, in malloc memory. */
static inline uint8_t *zip_make(const struct zip_spec *m, size_t n, enum zip_style style,
				size_t *size)
{
	char *zip, *dir;
	size_t zip_size, dir_size;
	FILE *f = open_memstream(&zip, &zip_size), *d = open_memstream(&dir, &dir_size);
	uint64_t off;

	for (size_t i = 0; i < n; i++)
		zip_put_member(f, d, &m[i], style);
	fclose(d);
	off = (uint64_t)ftell(f);
	fwrite(dir, 1, dir_size, f);
	zip_put_end(f, n, off, dir_size, style);
	fclose(f);
	free(dir);
	*size = zip_size;
	return (uint8_t *)zip;
}

#endif
