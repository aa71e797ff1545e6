/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The quant_state of a 4-bit tensor: JSON text in a tensor of bytes, as bitsandbytes packs it. What
 * it does not know is refused here as there.
 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/util.h"
#include "codec/bnb.h"

#define TEXT_MAX 65536u /* bytes; they are 200 */
#define BLOCK_MIN 32u
#define BLOCK_MAX 4096u
#define OFFSET_MAX 24u /* characters of a double, as Python prints it */

static const char offset_key[] = "\"nested_offset\"";
static const enum ob_dtype carriers[] = { OB_F32, OB_F16, OB_BF16 };

bool ob_bnb_is_block(uint64_t n)
{
	return n >= BLOCK_MIN && n <= BLOCK_MAX && (n & (n - 1)) == 0;
}

/* ---- reading ------------------------------------------------------------------------------- */

struct reader {
	const char *name, *text_name;
	const struct ob_jv *root;
};

static int bad(const struct reader *r, enum ob_code code, ob_err *e, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static int bad(const struct reader *r, enum ob_code code, ob_err *e, const char *fmt, ...)
{
	char what[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return ob_fail(e, code, "tensor %s: its %s %s", r->name, r->text_name, what);
}

static int check_keys(const struct reader *r, ob_err *e)
{
	static const char *const known[] = { "quant_type",   "blocksize",	 "dtype",
					     "shape",	     "nested_blocksize", "nested_dtype",
					     "nested_offset" };
	char shown[80];

	if (ob_json_type(r->root) != OB_JSON_OBJECT)
		return bad(r, OB_CORRUPT, e, "is no JSON object");
	for (const struct ob_jv *v = ob_json_first(r->root); v; v = ob_json_next(v)) {
		size_t i = 0;

		while (i < sizeof(known) / sizeof(*known) && strcmp(known[i], ob_json_key(v)) != 0)
			i++;
		if (i == sizeof(known) / sizeof(*known))
			return bad(r, OB_UNSUPPORTED, e, "has the member \"%s\", which is unknown",
				   ob_printable(ob_json_key(v), shown, sizeof(shown)));
	}
	return 0;
}

static int read_dtype(const struct reader *r, enum ob_dtype *t, ob_err *e)
{
	const char *name = ob_json_str(ob_json_get(r->root, "dtype"));
	char shown[80];

	for (size_t i = 0; name && i < sizeof(carriers) / sizeof(*carriers); i++) {
		if (strcmp(name, ob_dtype_torch_name(carriers[i])) == 0) {
			*t = carriers[i];
			return 0;
		}
	}
	return bad(r, OB_CORRUPT, e, "says dtype %s, expected float32, float16 or bfloat16",
		   name ? ob_printable(name, shown, sizeof(shown)) : "of no kind");
}

static int read_shape(const struct reader *r, struct ob_arena *a, struct ob_bnb_state *out,
		      ob_err *e)
{
	const struct ob_jv *list = ob_json_get(r->root, "shape");
	uint64_t dim[OB_MAX_RANK], *copy;
	uint32_t rank = 0;
	char text[128];

	if (ob_json_type(list) != OB_JSON_ARRAY)
		return bad(r, OB_CORRUPT, e, "says no shape");
	for (const struct ob_jv *v = ob_json_first(list); v; v = ob_json_next(v)) {
		int64_t n;

		if (rank == OB_MAX_RANK || !ob_json_int(v, &n) || n < 1)
			return bad(r, OB_CORRUPT, e,
				   "says a shape that is no list of up to %u sizes", OB_MAX_RANK);
		dim[rank++] = (uint64_t)n;
	}
	copy = ob_arena_alloc(a, rank * sizeof(*copy), e);
	if (!copy)
		return -1;
	if (rank)
		memcpy(copy, dim, rank * sizeof(*copy));
	out->shape = (struct ob_shape){ .rank = rank, .dim = copy };
	if (!ob_shape_elems(&out->shape, &out->n))
		return bad(r, OB_LIMIT, e, "says the shape %s, which is larger than any file",
			   ob_shape_text(&out->shape, text, sizeof(text)));
	return 0;
}

/* The three members are there together or not at all. */
static int read_nested(const struct reader *r, const struct ob_stored *text,
		       struct ob_bnb_state *out, ob_err *e)
{
	const struct ob_jv *block = ob_json_get(r->root, "nested_blocksize");
	const struct ob_jv *dtype = ob_json_get(r->root, "nested_dtype");
	const struct ob_jv *offset = ob_json_get(r->root, "nested_offset");
	const char *name = ob_json_str(dtype);
	double x;
	int64_t n;

	if (!block && !dtype && !offset)
		return 0;
	if (!ob_json_int(block, &n) || n != OB_BNB_NESTED_BLOCK || !name ||
	    strcmp(name, "float32") != 0)
		return bad(r, OB_UNSUPPORTED, e,
			   "has nested statistics that are not in blocks of 256 in float32");
	if (!ob_json_num(offset, &x) || !isfinite((float)x))
		return bad(r, OB_CORRUPT, e, "says no nested_offset that is a finite number");
	out->enc.variant |= OB_BNB_NESTED;
	out->offset = (float)x;
	/* Where the engine looks for it. */
	if (ob_bnb_state_offset((const char *)text->file->map + text->off, (size_t)text->len) !=
	    out->offset)
		return bad(r, OB_UNSUPPORTED, e, "spells nested_offset in an unusual way");
	return 0;
}

static int read_members(const struct reader *r, const struct ob_stored *text, bool fp4,
			struct ob_arena *a, struct ob_bnb_state *out, ob_err *e)
{
	const char *type = ob_json_str(ob_json_get(r->root, "quant_type"));
	int64_t block;

	if (check_keys(r, e) != 0)
		return -1;
	if (!type || strcmp(type, fp4 ? "fp4" : "nf4") != 0)
		return bad(r, OB_MISMATCH, e, "does not say quant_type %s, as its name does",
			   fp4 ? "fp4" : "nf4");
	if (!ob_json_int(ob_json_get(r->root, "blocksize"), &block) || block < 0 ||
	    !ob_bnb_is_block((uint64_t)block))
		return bad(r, OB_CORRUPT, e,
			   "says no blocksize that is a power of two from %u to %u", BLOCK_MIN,
			   BLOCK_MAX);
	out->enc.group = (uint32_t)block;
	if (read_dtype(r, &out->enc.dtype, e) != 0 || read_shape(r, a, out, e) != 0)
		return -1;
	return read_nested(r, text, out, e);
}

int ob_bnb_state_read(const struct ob_stored *text, const char *name, bool fp4, struct ob_arena *a,
		      struct ob_bnb_state *out, ob_err *e)
{
	struct reader r = { .name = name, .text_name = text->name };
	struct ob_jv *root = NULL;
	uint64_t n;
	ob_err why = { 0 };
	int rc;

	*out = (struct ob_bnb_state){
		.enc = { .codec = &ob_codec_bnb, .bits = 4, .variant = fp4 ? OB_BNB_FP4 : 0 },
	};
	if (text->dtype != OB_U8 || text->stride || !ob_shape_elems(&text->shape, &n) ||
	    n != text->len || n == 0)
		return bad(&r, OB_CORRUPT, e, "is no row of bytes");
	if (n > TEXT_MAX)
		return bad(&r, OB_LIMIT, e, "has %" PRIu64 " bytes; at most %u are accepted", n,
			   TEXT_MAX);
	if (ob_json_parse(&root, (const char *)text->file->map + text->off, (size_t)n, text->name,
			  &why) != 0) {
		if (why.code == OB_NOMEM)
			return ob_fail_nomem(e, "quant_state");
		return ob_fail(e, why.code, "tensor %s: its quant_state cannot be read: %s", name,
			       why.msg);
	}
	r.root = root;
	rc = read_members(&r, text, fp4, a, out, e);
	ob_json_free(root);
	return rc;
}

float ob_bnb_state_offset(const char *text, size_t len)
{
	const char *end = text + len;
	const char *p = memmem(text, len, offset_key, strlen(offset_key));
	char number[64];
	size_t n = 0;

	if (!p)
		return 0;
	for (p += strlen(offset_key); p < end && strchr(" \t\r\n:", *p); p++)
		;
	while (p < end && n < sizeof(number) - 1 && *p && strchr("+-.0123456789eE", *p))
		number[n++] = *p++;
	number[n] = '\0';
	return (float)ob_strtod(number);
}

/* ---- writing ------------------------------------------------------------------------------- */

static size_t append(char *text, size_t at, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static size_t append(char *text, size_t at, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text + at, OB_BNB_STATE_MAX - at, fmt, ap);
	va_end(ap);
	return at + (size_t)n;
}

/* All that does not depend on values; without the closing brace when nested. */
static size_t write_head(char *text, const struct ob_encoding *enc, const struct ob_shape *shape)
{
	size_t at = append(text, 0,
			   "{\"quant_type\": \"%s\", \"blocksize\": %u, \"dtype\": \"%s\", ",
			   enc->variant & OB_BNB_FP4 ? "fp4" : "nf4", (unsigned)enc->group,
			   ob_dtype_torch_name(enc->dtype));

	at = append(text, at, "\"shape\": [");
	for (uint32_t i = 0; i < shape->rank; i++)
		at = append(text, at, "%s%" PRIu64, i ? ", " : "", shape->dim[i]);
	if (!(enc->variant & OB_BNB_NESTED))
		return append(text, at, "]}");
	return append(text, at, "], \"nested_blocksize\": %u, \"nested_dtype\": \"float32\", %s: ",
		      OB_BNB_NESTED_BLOCK, offset_key);
}

/* The shortest digits that give the number back, as Python prints them. */
static size_t write_number(char *text, size_t at, double x)
{
	locale_t before = uselocale(ob_c_locale());
	size_t end = at;

	for (int digits = 15; digits <= 17; digits++) {
		end = append(text, at, "%.*g", digits, x);
		if (ob_strtod(text + at) == x)
			break;
	}
	uselocale(before);
	if (isnan(x))
		return append(text, at, "NaN");
	if (isinf(x))
		return append(text, at, "Infinity");
	return strpbrk(text + at, ".e") ? end : append(text, end, ".0");
}

size_t ob_bnb_state_len(const struct ob_encoding *enc, const struct ob_shape *shape)
{
	char text[OB_BNB_STATE_MAX];
	size_t head = write_head(text, enc, shape);

	return enc->variant & OB_BNB_NESTED ? head + OFFSET_MAX + 1 : head;
}

size_t ob_bnb_state_write(char text[OB_BNB_STATE_MAX], const struct ob_encoding *enc,
			  const struct ob_shape *shape, float offset)
{
	size_t head = write_head(text, enc, shape), at;

	if (!(enc->variant & OB_BNB_NESTED))
		return head;
	at = append(text, write_number(text, head, offset), "}");
	memset(text + at, ' ', head + OFFSET_MAX + 1 - at);
	return head + OFFSET_MAX + 1;
}
