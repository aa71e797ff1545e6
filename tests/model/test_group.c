/* SPDX-License-Identifier: Apache-2.0 */
#include "build.h"

static struct ob_model *m;

static void clear(void)
{
	ob_model_close(m);
	scratch_remove();
}

TestSuite(group, .init = scratch_make, .fini = clear);

/* The parts of a module in MLX's affine format: 4 bits in groups of 64, or as said. */
#define CODES(name, rows, words)                      \
	{                                             \
		name ".weight", "U32", 4, rows, words \
	}
#define SCALES(name, rows, groups)                     \
	{                                              \
		name ".scales", "F16", 2, rows, groups \
	}
#define BIASES(name, rows, groups)                     \
	{                                              \
		name ".biases", "F16", 2, rows, groups \
	}

#define put_model(file, t) put_tensors(file, "\"format\":\"mlx\"", t, sizeof(t) / sizeof(*t))

static void part_is(const struct ob_tensor *t, unsigned part, const char *name)
{
	cr_assert_lt(part, t->n_parts);
	cr_assert_str_eq(t->part[part]->name, name);
}

Test(group, parts_in_any_order_and_any_shard)
{
	static const struct stored one[] = {
		BIASES("a", 2, 1), { "norm", "BF16", 2, 1, 64 },
		CODES("a", 2, 8),  { "a.bias", "F16", 2, 1, 2 },
		SCALES("b", 4, 2),
	};
	static const struct stored two[] = {
		CODES("b", 4, 16),
		{ "ids", "I64", 8, 1, 3 },
		BIASES("b", 4, 2),
		SCALES("a", 2, 1),
	};
	static const char *const names[] = { "norm", "a.weight", "a.bias", "b.weight", "ids" };

	put_model("model-00001-of-00002.safetensors", one);
	put_model("model-00002-of-00002.safetensors", two);
	put_text("config.json", "{\"quantization\": {\"group_size\": 64, \"bits\": 4}}");
	works(ob_model_open(&m, scratch_dir, e));
	cr_assert_eq(m->n_tensors, 5);
	for (size_t i = 0; i < 5; i++)
		cr_assert_str_eq(m->tensor[i].name, names[i]);
	cr_assert_eq(m->tensor[0].enc.codec, &ob_codec_float);
	cr_assert_eq(m->tensor[1].enc.codec, &ob_codec_mlx);
	cr_assert_eq(m->tensor[4].enc.codec, &ob_codec_raw);
	part_is(&m->tensor[1], 0, "a.weight");
	part_is(&m->tensor[1], 1, "a.scales");
	part_is(&m->tensor[1], 2, "a.biases");
	cr_assert_eq(m->tensor[1].n_parts, 3);
	cr_assert_eq(m->tensor[0].n_parts, 1);
	cr_assert_eq(m->tensor[3].shape.dim[1], 128);
	cr_assert_eq(m->params, 64 + 2 * 64 + 2 + 4 * 128 + 3);
	cr_assert_eq(m->bytes, 128 + 64 + 4 + 4 + 4 + 256 + 16 + 16 + 24);
}

Test(group, encoding_of_most_elements)
{
	static const struct stored t[] = {
		CODES("small", 1, 8),  SCALES("small", 1, 1),
		BIASES("small", 1, 1), CODES("wide", 9, 16),
		SCALES("wide", 9, 1),  BIASES("wide", 9, 1), /* 8 bits */
		CODES("last", 3, 8),   SCALES("last", 3, 1),
		BIASES("last", 3, 1),  { "huge", "F32", 4, 64, 64 },
	};

	put_model("model.safetensors", t);
	put_text("config.json", "{\"quantization\": {\"group_size\": 64, \"bits\": 4}}");
	works(ob_model_open(&m, scratch_dir, e));
	cr_assert_not_null(m->quant);
	cr_assert_eq(m->quant->bits, 8);
}

Test(group, parts_that_contradict_each_other)
{
	static const struct stored t[] = { CODES("a", 2, 8), SCALES("a", 2, 1) };

	put_model("model.safetensors", t);
	fails(ob_model_open(&m, scratch_dir, e), OB_CORRUPT, "a.biases");
}
