/* SPDX-License-Identifier: Apache-2.0 */
/* A plan made by hand, as far as the small files depend on it. */
#ifndef OB_TESTS_EXPORT_PLAN_H
#define OB_TESTS_EXPORT_PLAN_H

#include <string.h>

#include "../model/outcome.h"
#include "export/internal.h"

/* A format whose loaders want to know of every width, and of what is left in float. */
static int toy_block(const struct ob_encoding *enc, struct ob_text *out, ob_err *e)
{
	ob_text_printf(out, "{\"bits\": %u}", enc->bits);
	return out->failed ? ob_fail_nomem(e, "block") : 0;
}

static int toy_override(const struct ob_encoding *model, const struct ob_encoding *enc,
			struct ob_text *out, ob_err *e)
{
	(void)model;
	if (enc)
		ob_text_printf(out, "{\"bits\": %u}", enc->bits);
	else
		ob_text_printf(out, "false");
	return out->failed ? ob_fail_nomem(e, "entry") : 1;
}

static const char *const toy_keys[] = { "quantization", "quantization_config", NULL };
static const struct ob_codec toy = {
	.name = "toy",
	.config_keys = toy_keys,
	.config_block = toy_block,
	.config_override = toy_override,
};
static const struct ob_codec silent = { .name = "silent" }; /* one that needs no configuration */

static const struct ob_encoding f32 = { .codec = &ob_codec_float, .dtype = OB_F32 };
static const struct ob_encoding bf16 = { .codec = &ob_codec_float, .dtype = OB_BF16 };
static const struct ob_encoding toy4 = { .codec = &toy, .dtype = OB_BF16, .bits = 4 };
static const struct ob_encoding toy8 = { .codec = &toy, .dtype = OB_BF16, .bits = 8 };
static const struct ob_encoding other = { .codec = &silent, .dtype = OB_BF16 };

static struct ob_model model;
static struct ob_edits edits;
static struct ob_recipe recipe;
static struct ob_plan plan;
static struct ob_tensor tensors[8];
static struct ob_out outs[8];
static uint64_t dims[8][2];

static inline void plan_start(void)
{
	recipe = (struct ob_recipe){ .dtype = OB_N_DTYPES };
	model = (struct ob_model){ .tensor = tensors };
	plan = (struct ob_plan){
		.model = &model,
		.edits = &edits,
		.recipe = &recipe,
		.out = outs,
		.layout = OB_LAYOUT_HF,
	};
}

static inline void plan_end(void)
{
	ob_map_free(&model.by_name);
	ob_json_free(model.config);
}

/* A tensor of the output; from NULL: one that the model does not have. */
static inline void add(const char *name, uint64_t rows, uint64_t cols,
		       const struct ob_encoding *from, const struct ob_encoding *to)
{
	uint64_t *dim = dims[plan.n_outs];
	struct ob_shape shape = { .rank = rows ? 2 : 1, .dim = rows ? dim : dim + 1 };

	dim[0] = rows;
	dim[1] = cols;
	if (from) {
		works(ob_map_add(&model.by_name, name, strlen(name), (uint32_t)model.n_tensors, e));
		tensors[model.n_tensors++] =
			(struct ob_tensor){ .name = name, .shape = shape, .enc = *from };
	}
	outs[plan.n_outs++] = (struct ob_out){
		.name = name,
		.shape = shape,
		.enc = *to,
		.rows = rows ? rows : 1,
		.cols = cols,
	};
}

static inline void set_config(const char *text)
{
	model.config_text = (char *)(uintptr_t)text;
	model.config_len = strlen(text);
	works(ob_json_parse(&model.config, text, strlen(text), "config.json", e));
}

#endif
