/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitsandbytes in 4 bits: NF4 and FP4. Blocks of elements run over the flattened tensor, two codes
 * a byte, the first in the upper half; w = book[code] * scale, and a block's scale is its largest
 * magnitude, a float32 or (nested) one of 256 values. The rule is that of the CUDA kernels, with an
 * exact reciprocal.
 */
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/util.h"
#include "codec/bnb.h"
#include "kernels/kernels.h"

#define DEFAULT_BLOCK 64u
#define MAP_ENTRIES 16u
#define CACHED 4096u /* elements that three kernels work on in turn: a multiple of every block */
#define NESTED_MAP_ENTRIES 256u

/* Layout order; the last two only when nested. */
enum { CODES, ABSMAX, MAP, STATE, NESTED_ABSMAX, NESTED_MAP, N_PARTS };

static const char *const suffixes[2][N_PARTS] = {
	{ NULL, ".absmax", ".quant_map", ".quant_state.bitsandbytes__nf4", ".nested_absmax",
	  ".nested_quant_map" },
	{ NULL, ".absmax", ".quant_map", ".quant_state.bitsandbytes__fp4", ".nested_absmax",
	  ".nested_quant_map" },
};

static bool is_fp4(const struct ob_encoding *enc)
{
	return enc->variant & OB_BNB_FP4;
}

static bool is_nested(const struct ob_encoding *enc)
{
	return enc->variant & OB_BNB_NESTED;
}

static unsigned n_parts(const struct ob_encoding *enc)
{
	return is_nested(enc) ? N_PARTS : NESTED_ABSMAX;
}

static enum ob_dtype storage(const struct ob_encoding *enc)
{
	return OB_BNB_STORAGE(enc->variant) ? OB_BNB_STORAGE(enc->variant) : OB_U8;
}

/* Blocks of n elements, and scales of their scales. */
static uint64_t n_blocks(const struct ob_encoding *enc, uint64_t n)
{
	return ob_div_up(n, enc->group);
}

static uint64_t n_nested(const struct ob_encoding *enc, uint64_t n)
{
	return ob_div_up(n_blocks(enc, n), OB_BNB_NESTED_BLOCK);
}

/* ---- recognition --------------------------------------------------------------------------- */

const struct ob_stored *ob_bnb_part(const struct ob_lookup *l, const char *name, size_t len,
				    const char *suffix)
{
	char full[1024];

	if (len + strlen(suffix) >= sizeof(full))
		return NULL;
	memcpy(full, name, len);
	strcpy(full + len, suffix);
	/* cppcheck-suppress returnDanglingLifetime ; what is found belongs to the listing */
	return l->find(l, full);
}

static const struct ob_stored *part_of(const struct ob_stored *s, const struct ob_lookup *l,
				       const char *suffix)
{
	return ob_bnb_part(l, s->name, strlen(s->name), suffix);
}

/* A state without the tensor that it is about. */
static int check_orphan(const struct ob_stored *s, const struct ob_lookup *l, ob_err *e)
{
	for (int fp4 = 0; fp4 < 2; fp4++) {
		const char *suffix = suffixes[fp4][STATE];
		size_t stem = strlen(s->name) - strlen(suffix);

		if (!ob_has_suffix(s->name, suffix) || ob_bnb_part(l, s->name, stem, ""))
			continue;
		return ob_fail(e, OB_CORRUPT,
			       "tensor %.*s is missing, though there is its quant_state %s",
			       (int)stem, s->name, s->name);
	}
	return 0;
}

/* Bytes without a state: of bitsandbytes, if its other parts are there or config.json says so. */
static int check_stateless(const struct ob_stored *s, const struct ob_lookup *l, ob_err *e)
{
	static const int others[] = { ABSMAX, MAP, NESTED_ABSMAX, NESTED_MAP };

	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
		const struct ob_stored *part = part_of(s, l, suffixes[0][others[i]]);

		if (part)
			return ob_fail(e, OB_CORRUPT,
				       "tensor %s has %s, but neither %s%s nor %s%s is there",
				       s->name, part->name, s->name, suffixes[0][STATE], s->name,
				       suffixes[1][STATE]);
	}
	if (ob_has_suffix(s->name, ".weight") && ob_bnb_config_says(l->config, true))
		return ob_fail(e, OB_MISMATCH,
			       "tensor %s is U8 and config.json says load_in_4bit, but its "
			       "quant_state (%s%s or __fp4) is missing",
			       s->name, s->name, suffixes[0][STATE]);
	return check_orphan(s, l, e);
}

/* Bytes of a part by its shape; a container has made sure that they are there. */
static uint64_t part_bytes(const struct ob_stored *s)
{
	uint64_t n, bytes;

	if (s->stride || !ob_shape_elems(&s->shape, &n) ||
	    !ob_mul_u64(n, ob_dtype_bits(s->dtype) / 8, &bytes))
		return 0;
	return bytes;
}

static int check_part(const struct ob_stored *s, const struct ob_stored *part, enum ob_dtype dtype,
		      uint64_t bytes, ob_err *e)
{
	char shape[128];

	if (part->dtype == dtype && part_bytes(part) == bytes)
		return 0;
	return ob_fail(e, OB_MISMATCH,
		       "tensor %s: its part %s is %s %s, expected %llu values of %s by its "
		       "quant_state",
		       s->name, part->name, ob_dtype_name(part->dtype),
		       ob_shape_text(&part->shape, shape, sizeof(shape)),
		       (unsigned long long)(bytes / (ob_dtype_bits(dtype) / 8)),
		       ob_dtype_name(dtype));
}

static int check_codes(const struct ob_stored *s, const struct ob_bnb_state *st, ob_err *e)
{
	uint64_t bytes = ob_div_up(st->n, 2);
	char shape[128], stored[128];

	if (part_bytes(s) != bytes)
		return ob_fail(e, OB_MISMATCH,
			       "tensor %s %s %s has %llu bytes of codes, expected %llu for the "
			       "shape %s in its quant_state",
			       s->name, ob_dtype_name(s->dtype),
			       ob_shape_text(&s->shape, stored, sizeof(stored)),
			       (unsigned long long)part_bytes(s), (unsigned long long)bytes,
			       ob_shape_text(&st->shape, shape, sizeof(shape)));
	/* bitsandbytes takes such a row for a transposed weight. */
	if (s->shape.rank == 2 && s->shape.dim[0] == 1 && bytes > ob_dtype_bits(s->dtype) / 8)
		return ob_fail(e, OB_UNSUPPORTED,
			       "tensor %s: its codes are a row %s, a transposed weight of an old "
			       "file, which is not read",
			       s->name, ob_shape_text(&s->shape, stored, sizeof(stored)));
	return 0;
}

static int find_parts(const struct ob_stored *s, const struct ob_lookup *l,
		      const struct ob_bnb_state *st, struct ob_recognised *r, ob_err *e)
{
	const struct ob_encoding *enc = &st->enc;
	const uint64_t bytes[N_PARTS] = {
		[ABSMAX] = n_blocks(enc, st->n) * (is_nested(enc) ? 1 : sizeof(float)),
		[MAP] = MAP_ENTRIES * sizeof(float),
		[NESTED_ABSMAX] = n_nested(enc, st->n) * sizeof(float),
		[NESTED_MAP] = NESTED_MAP_ENTRIES * sizeof(float),
	};

	for (unsigned k = ABSMAX; k < N_PARTS; k++) {
		const char *suffix = suffixes[is_fp4(enc)][k];
		const struct ob_stored *part = part_of(s, l, suffix);
		enum ob_dtype dtype = k == ABSMAX && is_nested(enc) ? OB_U8 : OB_F32;

		if (k >= n_parts(enc) && !part)
			continue;
		if (k >= n_parts(enc))
			return ob_fail(e, OB_MISMATCH,
				       "tensor %s has the part %s, but its quant_state says "
				       "nothing of nested statistics",
				       s->name, part->name);
		if (!part)
			return ob_fail(e, OB_CORRUPT, "tensor %s: its part %s%s is missing",
				       s->name, s->name, suffix);
		if (k != STATE && check_part(s, part, dtype, bytes[k], e) != 0)
			return -1;
		r->part[k] = part;
	}
	return 0;
}

static int recognise(const struct ob_stored *s, const struct ob_lookup *l, struct ob_recognised *r,
		     ob_err *e)
{
	const struct ob_stored *text[2];
	struct ob_bnb_state st;
	bool fp4;

	if (s->dtype != OB_U8 && s->dtype != OB_I8 && !ob_dtype_is_float(s->dtype) &&
	    s->dtype != OB_F64)
		return 0;
	text[0] = part_of(s, l, suffixes[0][STATE]);
	text[1] = part_of(s, l, suffixes[1][STATE]);
	if (!text[0] && !text[1])
		return s->dtype == OB_U8 ? check_stateless(s, l, e) : 0;
	if (text[0] && text[1])
		return ob_fail(e, OB_MISMATCH, "tensor %s has two states, %s and %s", s->name,
			       text[0]->name, text[1]->name);
	fp4 = text[1] != NULL;
	*r = (struct ob_recognised){ .name = s->name, .part = { s } };
	if (ob_bnb_state_read(text[fp4], s->name, fp4, l->arena, &st, e) != 0 ||
	    check_codes(s, &st, e) != 0 || find_parts(s, l, &st, r, e) != 0)
		return -1;
	r->enc = st.enc;
	if (s->dtype != OB_U8)
		r->enc.variant |= (uint32_t)s->dtype << OB_BNB_STORAGE_SHIFT;
	r->shape = st.shape;
	return 1;
}

/* ---- schemes ------------------------------------------------------------------------------- */

static int bad_scheme(const char *scheme, ob_err *e)
{
	return ob_fail(e, OB_USAGE,
		       "number format '%s': expected bnb-nf4 or bnb-fp4[,block=N][,nested]; N is "
		       "32, 64, 128, 256, 512, 1024, 2048 or 4096",
		       scheme);
}

static int parse(struct ob_encoding *enc, const char *scheme, ob_err *e)
{
	static const char block_key[] = ",block=", nested_key[] = ",nested";
	const char *nf4 = ob_scheme_options(scheme, "bnb-nf4");
	const char *p = nf4 ? nf4 : ob_scheme_options(scheme, "bnb-fp4");

	if (!p)
		return 0;
	*enc = (struct ob_encoding){
		.codec = &ob_codec_bnb,
		.bits = 4,
		.group = DEFAULT_BLOCK,
		.variant = nf4 ? 0 : OB_BNB_FP4,
	};
	while (*p) {
		if (ob_has_prefix(p, block_key)) {
			enc->group = 0;
			for (p += strlen(block_key); *p >= '0' && *p <= '9'; p++)
				if (enc->group < 10000)
					enc->group = 10 * enc->group + (uint32_t)(*p - '0');
		} else if (ob_has_prefix(p, nested_key)) {
			enc->variant |= OB_BNB_NESTED;
			p += strlen(nested_key);
		} else {
			return bad_scheme(scheme, e);
		}
		if (*p && *p != ',')
			return bad_scheme(scheme, e);
	}
	return ob_bnb_is_block(enc->group) ? 1 : bad_scheme(scheme, e);
}

static char *describe(const struct ob_encoding *enc, char *buf, size_t size)
{
	snprintf(buf, size, "bnb-%s,block=%u%s", is_fp4(enc) ? "fp4" : "nf4", (unsigned)enc->group,
		 is_nested(enc) ? ",nested" : "");
	return buf;
}

/* Tiles hold whole blocks: as many rows as make a whole number of them, or all rows. */
static void granularity(const struct ob_encoding *enc, const struct ob_shape *shape, uint32_t *rows,
			uint32_t *cols)
{
	uint64_t n_rows, n_cols;

	ob_codec_rows(enc, shape, &n_rows, &n_cols);
	*rows = 1;
	while (*rows < n_rows && *rows * (n_cols % enc->group) % enc->group != 0)
		*rows *= 2;
	if (*rows > n_rows)
		*rows = (uint32_t)n_rows;
	*cols = *rows == 1 ? enc->group : 0;
}

static bool accepts(const struct ob_encoding *enc, const struct ob_shape *shape, const char **why)
{
	static _Thread_local char text[96];
	uint64_t n_rows, n_cols;
	uint32_t rows, cols;

	ob_codec_rows(enc, shape, &n_rows, &n_cols);
	*why = text;
	if (!ob_dtype_is_float(enc->dtype)) {
		snprintf(text, sizeof(text), "values cannot be %s", ob_dtype_name(enc->dtype));
		return false;
	}
	if (n_rows == 0) {
		snprintf(text, sizeof(text), "it is empty");
		return false;
	}
	granularity(enc, shape, &rows, &cols);
	if (cols || (rows <= OB_UNIT_ROWS && rows * n_cols <= OB_UNIT_ELEMS))
		return true;
	snprintf(text, sizeof(text), "rows of %llu columns and blocks of %u do not line up",
		 (unsigned long long)n_cols, (unsigned)enc->group);
	return false;
}

/* ---- layout -------------------------------------------------------------------------------- */

static uint64_t part_len(const struct ob_encoding *enc, const struct ob_shape *shape, unsigned part,
			 uint64_t n)
{
	switch (part) {
	case CODES:
		return ob_div_up(n, 2);
	case ABSMAX:
		return n_blocks(enc, n) * (is_nested(enc) ? 1 : sizeof(float));
	case MAP:
		return MAP_ENTRIES * sizeof(float);
	case STATE:
		return ob_bnb_state_len(enc, shape);
	case NESTED_ABSMAX:
		return n_nested(enc, n) * sizeof(float);
	default:
		return NESTED_MAP_ENTRIES * sizeof(float);
	}
}

static int layout(const struct ob_encoding *enc, const struct ob_shape *shape, struct ob_arena *a,
		  struct ob_parts *out, ob_err *e)
{
	uint64_t n, *dim = ob_arena_alloc(a, 2 * N_PARTS * sizeof(*dim), e);
	char text[128];

	if (!dim)
		return -1;
	if (!ob_shape_elems(shape, &n))
		return ob_fail(e, OB_LIMIT, "a tensor of %s values is larger than any file",
			       ob_shape_text(shape, text, sizeof(text)));
	*out = (struct ob_parts){ .n = n_parts(enc) };
	for (unsigned k = 0; k < out->n; k++, dim += 2) {
		struct ob_part *p = &out->part[k];

		p->suffix = suffixes[is_fp4(enc)][k];
		p->on_name = true;
		p->dtype = k == CODES					   ? storage(enc)
			   : k == STATE || (k == ABSMAX && is_nested(enc)) ? OB_U8
									   : OB_F32;
		p->len = part_len(enc, shape, k, n);
		dim[0] = p->len / (ob_dtype_bits(p->dtype) / 8);
		dim[1] = 1;
		p->shape = (struct ob_shape){ .rank = k == CODES ? 2 : 1, .dim = dim };
		p->whole = k >= MAP;
		p->padded = k == STATE && is_nested(enc);
	}
	return 0;
}

static unsigned ranges(const struct ob_encoding *enc, const struct ob_shape *shape, unsigned part,
		       struct ob_elems tile, struct ob_range *out)
{
	uint64_t begin = 0, n = tile.e1;

	if (part < MAP)
		begin = part_len(enc, shape, part, tile.e0);
	else
		ob_shape_elems(shape, &n);
	out[0] = (struct ob_range){ begin, part_len(enc, shape, part, n) - begin };
	return 1;
}

/* ---- values -------------------------------------------------------------------------------- */

static uint8_t *part_at(const struct ob_span *span, unsigned part)
{
	return span[part * OB_MAX_RANGES].p;
}

static float load_float(const uint8_t *p, uint64_t i)
{
	float x;

	memcpy(&x, p + i * sizeof(x), sizeof(x));
	return x;
}

/* The scales of n blocks, of which the first is block b of the tensor and its scale lies at p. */
static void load_nested(const struct ob_span *span, const uint8_t *p, uint64_t b, float *absmax,
			size_t n)
{
	const struct ob_span *state = &span[STATE * OB_MAX_RANGES];
	float offset = ob_bnb_state_offset((const char *)state->p, state->len);
	float map[NESTED_MAP_ENTRIES];

	memcpy(map, part_at(span, NESTED_MAP), sizeof(map));
	for (size_t i = 0; i < n; i++) {
		uint64_t group = (b + i) / OB_BNB_NESTED_BLOCK;

		absmax[i] = map[p[i]] * load_float(part_at(span, NESTED_ABSMAX), group);
		absmax[i] += offset;
	}
}

static void decode(const struct ob_encoding *enc, const struct ob_shape *shape,
		   const struct ob_span *span, struct ob_elems tile, struct ob_elems at,
		   enum ob_decode_mode mode, float *dst, float *scratch)
{
	size_t n = at.e1 - at.e0, blocks = n_blocks(enc, n);
	uint64_t block = (at.e0 - tile.e0) / enc->group;
	const uint8_t *scales = part_at(span, ABSMAX);
	const uint8_t *codes = part_at(span, CODES) + (at.e0 - tile.e0) / 2;

	(void)shape, (void)mode;
	if (is_nested(enc))
		load_nested(span, scales + block, at.e0 / enc->group, scratch, blocks);
	else
		memcpy(scratch, scales + block * sizeof(float), blocks * sizeof(float));
	/* Rounded also where edits are added: they were trained on what bitsandbytes gives. */
	for (size_t i = 0; i < n; i += CACHED) {
		size_t m = n - i < CACHED ? n - i : CACHED;

		ob_kernels()->bnb4_decode(dst + i, codes + i / 2, scratch + i / enc->group, m,
					  enc->group, is_fp4(enc));
		ob_round_to(dst + i, enc->dtype, m);
	}
}

/* Parts that are the same in all tiles. */
static void encode_whole(const struct ob_encoding *enc, const struct ob_shape *shape,
			 const struct ob_span *span, uint64_t n, float mean, const double *stats)
{
	const float *book = is_fp4(enc) ? ob_fp4_book : ob_nf4_book;
	uint8_t *map = part_at(span, MAP);
	char text[OB_BNB_STATE_MAX];
	size_t len = ob_bnb_state_write(text, enc, shape, mean);

	memcpy(part_at(span, STATE), text, len);
	for (unsigned i = 0; i < MAP_ENTRIES; i++) {
		float x = book[i] + 0.0f; /* FP4's zeros are both positive */

		memcpy(map + i * sizeof(x), &x, sizeof(x));
	}
	if (!is_nested(enc))
		return;
	memcpy(part_at(span, NESTED_MAP), ob_bnb_map, sizeof(ob_bnb_map));
	for (uint64_t k = 0; k < n_nested(enc, n); k++) {
		float scale = ob_bnb_stats_scale(stats, k, mean);

		memcpy(part_at(span, NESTED_ABSMAX) + k * sizeof(scale), &scale, sizeof(scale));
	}
}

static void encode_nested(uint8_t *codes, uint64_t b, const float *absmax, size_t n, float mean,
			  const double *stats)
{
	float r = 0;

	for (size_t i = 0; i < n; i++) {
		if (i == 0 || (b + i) % OB_BNB_NESTED_BLOCK == 0) {
			float scale =
				ob_bnb_stats_scale(stats, (b + i) / OB_BNB_NESTED_BLOCK, mean);

			r = scale > 0 ? 1 / scale : 0;
		}
		codes[i] = ob_bnb_nearest((absmax[i] - mean) * r);
	}
}

static void encode(const struct ob_encoding *enc, const struct ob_shape *shape,
		   const struct ob_span *span, struct ob_elems tile, struct ob_elems at, float *src,
		   float *scratch, const double *stats)
{
	const struct ob_kernels *k = ob_kernels();
	size_t n = at.e1 - at.e0, blocks = n_blocks(enc, n);
	uint64_t block = (at.e0 - tile.e0) / enc->group, all = 0;
	uint8_t *scales = part_at(span, ABSMAX);
	float mean = 0;

	ob_shape_elems(shape, &all);
	if (stats)
		mean = ob_bnb_stats_mean(stats, n_blocks(enc, all));
	for (size_t i = 0; i < n; i += CACHED) {
		size_t m = n - i < CACHED ? n - i : CACHED;
		float *absmax = scratch + i / enc->group;

		ob_round_to(src + i, enc->dtype, m);
		k->block_max(absmax, src + i, m, enc->group);
		k->bnb4_encode(part_at(span, CODES) + (at.e0 - tile.e0 + i) / 2, absmax, src + i, m,
			       enc->group, is_fp4(enc));
	}
	if (is_nested(enc))
		encode_nested(scales + block, at.e0 / enc->group, scratch, blocks, mean, stats);
	else
		memcpy(scales + block * sizeof(float), scratch, blocks * sizeof(float));
	if (at.e0 == tile.e0)
		encode_whole(enc, shape, span, all, mean, stats);
}

static size_t scratch_floats(const struct ob_encoding *enc, size_t n)
{
	return n_blocks(enc, n);
}

/* ---- statistics of nested scales ----------------------------------------------------------- */

static size_t n_stats(const struct ob_encoding *enc, const struct ob_shape *shape,
		      struct ob_elems at)
{
	(void)shape;
	if (!is_nested(enc))
		return 0;
	return ob_bnb_stats_size(at.e0 / enc->group, n_blocks(enc, at.e1));
}

static void measure(const struct ob_encoding *enc, const struct ob_shape *shape,
		    struct ob_elems tile, struct ob_elems at, float *src, float *scratch,
		    double *stats)
{
	size_t n = at.e1 - at.e0;

	(void)shape;
	ob_round_to(src, enc->dtype, n);
	ob_kernels()->block_max(scratch, src, n, enc->group);
	ob_bnb_stats_add(stats, tile.e0 / enc->group, at.e0 / enc->group, scratch,
			 n_blocks(enc, n));
}

static void reduce(const struct ob_encoding *enc, const struct ob_shape *shape, double *total,
		   struct ob_elems tile, const double *stats)
{
	(void)shape;
	ob_bnb_stats_fold(total, tile.e0 / enc->group, n_blocks(enc, tile.e1), stats);
}

static const char *const schemes[] = {
	"bnb-nf4[,block=32|64|128|256|512|1024|2048|4096][,nested]",
	"bnb-fp4[,block=32|64|128|256|512|1024|2048|4096][,nested]",
	NULL,
};

const struct ob_codec ob_codec_bnb = {
	.name = "bnb",
	.summary = "bitsandbytes NF4 and FP4, blocks of 64 unless given",
	.schemes = schemes,
	.recognise = recognise,
	.parse = parse,
	.describe = describe,
	.accepts = accepts,
	.layout = layout,
	.granularity = granularity,
	.ranges = ranges,
	.decode = decode,
	.encode = encode,
	.scratch_floats = scratch_floats,
	.n_stats = n_stats,
	.measure = measure,
	.reduce = reduce,
	.config_keys = ob_bnb_config_keys,
	.config_block = ob_bnb_config_block,
	.skip_key = "llm_int8_skip_modules",
	.config_differs = ob_bnb_config_differs,
	.default_target = ob_bnb_default_target,
	.meta_format = "pt",
	.turns_conv1d = true,
};
