/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MLX affine quantization: 2 to 8 bits, groups of 32, 64 or 128 along a row, w = scale * code +
 * bias, scale and bias of a group in the carrier type. Bytes are those of the mlx 0.32 CPU kernel,
 * names and configuration those of mlx-lm.
 */
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/util.h"
#include "codec/codec.h"
#include "kernels/kernels.h"

#define DEFAULT_BITS 4
#define DEFAULT_GROUP 64

static const char legal_values[] = "bits are 2, 3, 4, 5, 6 or 8, groups 32, 64 or 128";

static const unsigned all_bits[] = { 2, 3, 4, 5, 6, 8 };
static const unsigned all_groups[] = { 32, 64, 128 };
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum { WEIGHT, SCALES, BIASES, N_PARTS };

static bool is_bits(uint64_t bits)
{
	for (size_t i = 0; i < COUNT(all_bits); i++)
		if (bits == all_bits[i])
			return true;
	return false;
}

static bool is_group(uint64_t group)
{
	for (size_t i = 0; i < COUNT(all_groups); i++)
		if (group == all_groups[i])
			return true;
	return false;
}

/* ---- recognition --------------------------------------------------------------------------- */

/* A quantized module as stored. */
struct module {
	const char *path;		       /* "model.layers.0.mlp.up_proj" */
	const struct ob_stored *part[N_PARTS]; /* NULL: absent */
	uint64_t product;		       /* bits x group, by the shapes */
};

static int find_parts(const struct ob_stored *weight, const struct ob_lookup *l, struct module *m,
		      ob_err *e)
{
	static const char *const suffix[N_PARTS] = { NULL, ".scales", ".biases" };

	m->path = ob_arena_strndup(l->arena, weight->name, strlen(weight->name) - strlen(".weight"),
				   e);
	if (!m->path)
		return -1;
	m->part[WEIGHT] = weight;
	for (int i = SCALES; i < N_PARTS; i++) {
		char *name = ob_arena_printf(l->arena, e, "%s%s", m->path, suffix[i]);

		if (!name)
			return -1;
		m->part[i] = l->find(l, name);
	}
	return 0;
}

/* The modes with 8-bit scales, by 32-bit words of codes for each scale. */
static int refuse_float_codes(const struct module *m, ob_err *e)
{
	static const char *const modes[] = { [2] = "nvfp4", [4] = "mxfp4", [8] = "mxfp8" };
	const struct ob_shape *w = &m->part[WEIGHT]->shape, *s = &m->part[SCALES]->shape;
	uint64_t cols = w->rank ? w->dim[w->rank - 1] : 0;
	uint64_t scales = s->rank ? s->dim[s->rank - 1] : 0;
	uint64_t words = scales ? cols / scales : 0;

	return ob_fail(
		e, OB_UNSUPPORTED,
		"tensor %s is quantized in MLX's %s mode (%s.scales holds bytes), which this "
		"version cannot read; use a model in affine mode",
		m->part[WEIGHT]->name,
		words < COUNT(modes) && modes[words] ? modes[words] : "floating-point", m->path);
}

static int check_types(const struct module *m, ob_err *e)
{
	const struct ob_stored *scales = m->part[SCALES], *biases = m->part[BIASES];
	const char *name = m->part[WEIGHT]->name;

	if (!scales)
		return ob_fail(e, OB_CORRUPT,
			       "tensor %s has MLX biases (%s) but %s.scales is missing", name,
			       biases->name, m->path);
	if (scales->dtype == OB_U8)
		return refuse_float_codes(m, e);
	if (!ob_dtype_is_float(scales->dtype))
		return ob_fail(e, OB_CORRUPT,
			       "tensor %s: its scales %s are %s, expected F32, F16 or BF16", name,
			       scales->name, ob_dtype_name(scales->dtype));
	if (!biases)
		return ob_fail(e, OB_CORRUPT,
			       "tensor %s has MLX scales (%s) but %s.biases is missing", name,
			       scales->name, m->path);
	if (biases->dtype != scales->dtype)
		return ob_fail(e, OB_MISMATCH,
			       "tensor %s: %s is %s and %s is %s, expected one type", name,
			       scales->name, ob_dtype_name(scales->dtype), biases->name,
			       ob_dtype_name(biases->dtype));
	return 0;
}

/* Codes [..., N, K * bits / 32] and scales [..., N, K / group] have the same rows, and the 32-bit
 * columns of the codes over the columns of the scales give bits x group. */
static bool shapes_fit(const struct ob_shape *w, const struct ob_shape *s, uint64_t *product)
{
	uint32_t last = w->rank - 1;
	uint64_t bits;

	if (w->rank < 2 || s->rank != w->rank)
		return false;
	for (uint32_t i = 0; i < last; i++)
		if (w->dim[i] != s->dim[i])
			return false;
	if (s->dim[last] == 0 || !ob_mul_u64(w->dim[last], 32, &bits) || bits % s->dim[last] != 0)
		return false;
	*product = bits / s->dim[last];
	return true;
}

static int check_shapes(struct module *m, ob_err *e)
{
	const struct ob_stored *w = m->part[WEIGHT], *s = m->part[SCALES], *b = m->part[BIASES];
	char ws[128], ss[128], bs[128];

	if (!ob_shape_equal(&s->shape, &b->shape))
		return ob_fail(e, OB_MISMATCH,
			       "tensor %s: %s is %s and %s is %s, expected one shape", w->name,
			       s->name, ob_shape_text(&s->shape, ss, sizeof(ss)), b->name,
			       ob_shape_text(&b->shape, bs, sizeof(bs)));
	if (!shapes_fit(&w->shape, &s->shape, &m->product))
		return ob_fail(e, OB_MISMATCH, "tensor %s %s does not fit its scales %s %s",
			       w->name, ob_shape_text(&w->shape, ws, sizeof(ws)), s->name,
			       ob_shape_text(&s->shape, ss, sizeof(ss)));
	return 0;
}

static int contradiction(const struct module *m, const char *other, ob_err *e)
{
	const struct ob_stored *w = m->part[WEIGHT], *s = m->part[SCALES];
	char ws[128], ss[128];

	return ob_fail(e, OB_MISMATCH,
		       "tensor %s %s with %s %s has bits x group = %llu, but %s; %s", w->name,
		       ob_shape_text(&w->shape, ws, sizeof(ws)), s->name,
		       ob_shape_text(&s->shape, ss, sizeof(ss)), (unsigned long long)m->product,
		       other, legal_values);
}

/* Without a word from config.json, where only one pair of legal values has the product. */
static int widths_by_shape(const struct module *m, struct ob_encoding *enc, ob_err *e)
{
	unsigned pairs = 0;

	for (size_t i = 0; i < COUNT(all_groups); i++) {
		uint64_t bits = m->product / all_groups[i];

		if (m->product % all_groups[i] != 0 || !is_bits(bits))
			continue;
		enc->bits = (uint16_t)bits;
		enc->group = all_groups[i];
		pairs++;
	}
	if (pairs == 1)
		return 0;
	return contradiction(m,
			     pairs ? "config.json has no quantization block that tells which"
				   : "no legal values have that product",
			     e);
}

static int64_t integer(const struct ob_jv *block, const char *key, int64_t otherwise)
{
	const struct ob_jv *v = ob_json_get(block, key);
	int64_t n;

	if (!v)
		return otherwise;
	return ob_json_int(v, &n) ? n : 0;
}

static const struct ob_jv *object(const struct ob_jv *v, const char *key)
{
	const struct ob_jv *o = ob_json_get(v, key);

	return o && ob_json_type(o) == OB_JSON_OBJECT ? o : NULL;
}

/*
 * The group size of config.json decides, and bits follow from the shapes, as in mlx-lm 0.32. A
 * module with an entry of its own in the block is not described by the block: what its entry lacks
 * is the default of mlx's nn.quantize.
 */
static int widths(const struct module *m, const struct ob_jv *config, struct ob_encoding *enc,
		  ob_err *e)
{
	const struct ob_jv *block = object(config, "quantization"), *entry;
	int64_t bits, group;
	char text[128];
	bool on;

	if (!block)
		block = object(config, "quantization_config");
	if (ob_json_bool(ob_json_get(block, m->path), &on) && !on)
		return contradiction(m, "config.json says that it is not quantized", e);
	entry = object(block, m->path);
	if (!entry && !ob_json_get(block, "group_size"))
		return widths_by_shape(m, enc, e);

	group = integer(entry ? entry : block, "group_size", DEFAULT_GROUP);
	if (is_group((uint64_t)group) && m->product % (uint64_t)group == 0 &&
	    is_bits(m->product / (uint64_t)group)) {
		enc->bits = (uint16_t)(m->product / (uint64_t)group);
		enc->group = (uint32_t)group;
		return 0;
	}
	bits = integer(entry ? entry : block, "bits", DEFAULT_BITS);
	snprintf(text, sizeof(text), "config.json says bits %lld, group_size %lld", (long long)bits,
		 (long long)group);
	return contradiction(m, text, e);
}

static int recognise(const struct ob_stored *s, const struct ob_lookup *l, struct ob_recognised *r,
		     ob_err *e)
{
	struct module m = { 0 };
	uint32_t last;
	uint64_t *dim;

	if (s->dtype != OB_U32 || !ob_has_suffix(s->name, ".weight"))
		return 0;
	if (find_parts(s, l, &m, e) < 0)
		return -1;
	if (!m.part[SCALES] && !m.part[BIASES])
		return 0;
	*r = (struct ob_recognised){ .name = s->name, .enc = { .codec = &ob_codec_mlx } };
	if (check_types(&m, e) < 0 || check_shapes(&m, e) < 0 ||
	    widths(&m, l->config, &r->enc, e) < 0)
		return -1;

	memcpy(r->part, m.part, sizeof(m.part));
	r->enc.dtype = m.part[SCALES]->dtype;
	dim = ob_arena_alloc(l->arena, s->shape.rank * sizeof(*dim), e);
	if (!dim)
		return -1;
	last = s->shape.rank - 1;
	memcpy(dim, s->shape.dim, last * sizeof(*dim));
	/* No overflow: bits x this is the columns of 32 bits, which shapes_fit() multiplied out. */
	dim[last] = m.part[SCALES]->shape.dim[last] * r->enc.group;
	r->shape = (struct ob_shape){ .rank = s->shape.rank, .dim = dim };
	return 1;
}

/* ---- schemes ------------------------------------------------------------------------------- */

/* Digits at *p, at most three: 0 where there are none. */
static unsigned number(const char **p)
{
	unsigned n = 0;

	for (int i = 0; i < 3 && **p >= '0' && **p <= '9'; i++)
		n = 10 * n + (unsigned)(*(*p)++ - '0');
	return n;
}

static int parse(struct ob_encoding *enc, const char *scheme, ob_err *e)
{
	static const char group_key[] = ",group=";
	const char *p = ob_scheme_options(scheme, "mlx");
	unsigned bits = DEFAULT_BITS, group = DEFAULT_GROUP;

	if (!p)
		return 0;
	if (*p == ':') {
		p++;
		bits = number(&p);
	}
	if (ob_has_prefix(p, group_key)) {
		p += strlen(group_key);
		group = number(&p);
	}
	if (*p || !is_bits(bits) || !is_group(group))
		return ob_fail(e, OB_USAGE, "number format '%s': expected mlx[:BITS][,group=N]; %s",
			       scheme, legal_values);
	*enc = (struct ob_encoding){ .codec = &ob_codec_mlx,
				     .bits = (uint16_t)bits,
				     .group = group };
	return 1;
}

static char *describe(const struct ob_encoding *enc, char *buf, size_t size)
{
	snprintf(buf, size, "mlx:%u,group=%u", (unsigned)enc->bits, (unsigned)enc->group);
	return buf;
}

static bool accepts(const struct ob_encoding *enc, const struct ob_shape *shape, const char **why)
{
	static _Thread_local char text[96];
	uint64_t rows, cols;

	ob_codec_rows(enc, shape, &rows, &cols);
	*why = text;
	if (!ob_dtype_is_float(enc->dtype))
		snprintf(text, sizeof(text), "scales cannot be %s", ob_dtype_name(enc->dtype));
	else if (shape->rank < 2)
		snprintf(text, sizeof(text), "it is no matrix");
	else if (rows == 0)
		snprintf(text, sizeof(text), "it is empty");
	else if (cols % enc->group != 0)
		snprintf(text, sizeof(text),
			 "its %llu columns are not a multiple of the group size %u",
			 (unsigned long long)cols, (unsigned)enc->group);
	else
		return true;
	return false;
}

/* mlx_lm.convert quantizes what has a quantized counterpart in mlx.nn: linear layers, embeddings,
 * the head, and the stacked linear layers of experts and of latent attention. */
static bool default_target(const struct ob_encoding *enc, const char *name,
			   const struct ob_shape *shape, enum ob_use use,
			   const struct ob_jv *config)
{
	static const char *const stacked[] = { ".switch_mlp.", ".switch_glu.", ".experts.",
					       ".embed_q.", ".unembed_out." };
	size_t end, begin;

	(void)enc, (void)use;
	if (!ob_has_suffix(name, ".weight"))
		return false;
	if (shape->rank == 3) {
		for (size_t i = 0; i < COUNT(stacked); i++)
			if (strstr(name, stacked[i]))
				return true;
		return false;
	}
	/* Norms over heads have two dimensions too; norm_out.linear is a linear layer. */
	end = strlen(name) - strlen(".weight");
	for (begin = end; begin > 0 && name[begin - 1] != '.'; begin--)
		;
	if (shape->rank != 2 || memmem(name + begin, end - begin, "norm", 4))
		return false;
	/* Routers that choose among groups of experts (DeepSeek) are no layers in mlx-lm, so that
	 * it could not load them quantized. */
	return !ob_has_suffix(name, ".mlp.gate.weight") ||
	       (!ob_json_get(config, "topk_group") &&
		!ob_json_get(ob_json_get(config, "text_config"), "topk_group"));
}

/* ---- layout -------------------------------------------------------------------------------- */

static int layout(const struct ob_encoding *enc, const struct ob_shape *shape, struct ob_arena *a,
		  struct ob_parts *out, ob_err *e)
{
	static const char *const suffix[N_PARTS] = { ".weight", ".scales", ".biases" };
	uint32_t last = shape->rank - 1;
	uint64_t n, *dim;
	char text[128];

	if (!ob_shape_elems(shape, &n))
		return ob_fail(e, OB_LIMIT, "a tensor of %s values is larger than any file",
			       ob_shape_text(shape, text, sizeof(text)));
	*out = (struct ob_parts){ .n = N_PARTS };
	for (unsigned i = 0; i < N_PARTS; i++) {
		struct ob_part *p = &out->part[i];

		dim = ob_arena_alloc(a, shape->rank * sizeof(*dim), e);
		if (!dim)
			return -1;
		memcpy(dim, shape->dim, last * sizeof(*dim));
		dim[last] = i == WEIGHT ? shape->dim[last] / 32 * enc->bits
					: shape->dim[last] / enc->group;
		p->suffix = suffix[i];
		p->dtype = i == WEIGHT ? OB_U32 : enc->dtype;
		p->shape = (struct ob_shape){ .rank = shape->rank, .dim = dim };
		/* Neither overflows: no more bytes than there are elements. */
		p->len = i == WEIGHT ? n / 8 * enc->bits
				     : n / enc->group * (ob_dtype_bits(enc->dtype) / 8);
	}
	return 0;
}

static void granularity(const struct ob_encoding *enc, const struct ob_shape *shape, uint32_t *rows,
			uint32_t *cols)
{
	(void)shape;
	*rows = 1;
	*cols = enc->group;
}

/* Bytes of a part before element e, a multiple of the group. */
static uint64_t offset(const struct ob_encoding *enc, unsigned part, uint64_t e)
{
	return part == WEIGHT ? e / 8 * enc->bits
			      : e / enc->group * (ob_dtype_bits(enc->dtype) / 8);
}

static unsigned ranges(const struct ob_encoding *enc, const struct ob_shape *shape, unsigned part,
		       struct ob_elems tile, struct ob_range *out)
{
	uint64_t begin = offset(enc, part, tile.e0);

	(void)shape;
	out[0] = (struct ob_range){ .off = begin, .len = offset(enc, part, tile.e1) - begin };
	return 1;
}

/* ---- values -------------------------------------------------------------------------------- */

static uint8_t *part_at(const struct ob_encoding *enc, const struct ob_span *span, unsigned part,
			uint64_t e)
{
	return span[part * OB_MAX_RANGES].p + offset(enc, part, e);
}

static void decode(const struct ob_encoding *enc, const struct ob_shape *shape,
		   const struct ob_span *span, struct ob_elems tile, struct ob_elems at,
		   enum ob_decode_mode mode, float *dst, float *scratch)
{
	const struct ob_kernels *k = ob_kernels();
	uint64_t begin = at.e0 - tile.e0;
	size_t n = at.e1 - at.e0, groups = n / enc->group;
	float *scales = scratch, *biases = scratch + groups;
	const uint8_t *codes = part_at(enc, span, WEIGHT, begin);

	(void)shape;
	ob_load_f32(scales, part_at(enc, span, SCALES, begin), enc->dtype, groups, 1);
	ob_load_f32(biases, part_at(enc, span, BIASES, begin), enc->dtype, groups, 1);
	if (mode == OB_DECODE_EXACT && enc->dtype == OB_BF16)
		k->mlx_decode_bf16(dst, codes, scales, biases, n, enc->bits, enc->group);
	else if (mode == OB_DECODE_EXACT && enc->dtype == OB_F16)
		k->mlx_decode_f16(dst, codes, scales, biases, n, enc->bits, enc->group);
	else
		k->mlx_decode(dst, codes, scales, biases, n, enc->bits, enc->group);
}

static void encode(const struct ob_encoding *enc, const struct ob_shape *shape,
		   const struct ob_span *span, struct ob_elems tile, struct ob_elems at, float *src,
		   float *scratch, const double *stats)
{
	uint64_t begin = at.e0 - tile.e0;
	size_t n = at.e1 - at.e0, groups = n / enc->group;
	float *scales = scratch, *biases = scratch + groups;

	(void)shape, (void)stats;
	ob_round_to(src, enc->dtype, n);
	ob_kernels()->mlx_encode(part_at(enc, span, WEIGHT, begin), scales, biases, src, n,
				 enc->bits, enc->group);
	ob_store_f32(part_at(enc, span, SCALES, begin), scales, enc->dtype, groups);
	ob_store_f32(part_at(enc, span, BIASES, begin), biases, enc->dtype, groups);
}

static size_t scratch_floats(const struct ob_encoding *enc, size_t n)
{
	return 2 * (n / enc->group);
}

/* ---- configuration ------------------------------------------------------------------------- */

static int written(const struct ob_text *out, ob_err *e)
{
	return out->failed ? ob_fail_nomem(e, "quantization block") : 0;
}

static int config_block(const struct ob_encoding *enc, struct ob_text *out, ob_err *e)
{
	ob_text_printf(out, "{\"group_size\": %u, \"bits\": %u, \"mode\": \"affine\"}",
		       (unsigned)enc->group, (unsigned)enc->bits);
	return written(out, e);
}

/* Modules in float need no entry: loaders go by the presence of ".scales". */
static int config_override(const struct ob_encoding *model, const struct ob_encoding *enc,
			   struct ob_text *out, ob_err *e)
{
	if (!enc || enc->codec != &ob_codec_mlx ||
	    (enc->bits == model->bits && enc->group == model->group))
		return 0;
	ob_text_printf(out, "{\"group_size\": %u, \"bits\": %u}", (unsigned)enc->group,
		       (unsigned)enc->bits);
	return written(out, e) < 0 ? -1 : 1;
}

static const char *const schemes[] = { "mlx:2|3|4|5|6|8[,group=32|64|128]", NULL };
static const char *const config_keys[] = { "quantization", "quantization_config", NULL };

const struct ob_codec ob_codec_mlx = {
	.name = "mlx",
	.summary = "MLX affine, 4 bits and groups of 64 unless given",
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
	.config_keys = config_keys,
	.config_block = config_block,
	.config_override = config_override,
	.default_target = default_target,
	.meta_format = "mlx",
};
