/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of mlx-lm adapters. */
#include "fixture.h"

static struct ob_arena arena;
static struct ob_adapter_file *f;
static struct ob_reader_result r;

static void close_adapter(void)
{
	ob_adapter_close(f);
	ob_arena_free(&arena);
	f = NULL;
}

static void fini(void)
{
	close_adapter();
	scratch_remove();
}

TestSuite(mlx, .init = scratch_make, .fini = fini);

static int read_adapter(const char *config, const char *tensors, double scale, ob_err *e)
{
	struct ob_adapter_spec spec;

	close_adapter();
	put_folder("lora");
	unlink(in_scratch("lora/adapter_config.json"));
	if (config)
		put_text("lora/adapter_config.json", config);
	put_tensors("lora/adapters.safetensors", tensors);
	spec = (struct ob_adapter_spec){ in_scratch("lora"), scale };
	if (ob_adapter_open(&f, &arena, &spec, e) != 0)
		return -1;
	return ob_adapter_read(f, &r, e);
}

#define CONFIG(more) "{\"fine_tune_type\":\"lora\",\"lora_parameters\":{" more "}}"
#define PAIR "model.q.lora_a[3,2] model.q.lora_b[2,5]"

Test(mlx, factors_are_the_other_way_round)
{
	const struct ob_change *c;

	works(read_adapter(CONFIG("\"rank\":2,\"scale\":4.0"), PAIR, 0.5, e));
	cr_assert_eq(r.n_changes, 1);
	c = &r.change[0];
	cr_assert_eq(c->kind, OB_CHANGE_LINEAR);
	cr_assert_str_eq(c->module, "model.q");
	cr_assert_eq(c->coeff, 2);
	cr_assert_eq(c->n_keys, 2);
	cr_assert(c->b.rows == 5 && c->b.cols == 2 && c->a.rows == 2 && c->a.cols == 3);
	cr_assert_eq(view_at(&c->a, 1, 2), value_of("model.q.lora_a", 5));
	cr_assert_eq(view_at(&c->b, 4, 1), value_of("model.q.lora_b", 9));
	cr_assert(r.shares_tie);
}

Test(mlx, embedding)
{
	const struct ob_change *c;

	works(read_adapter(CONFIG("\"scale\":1"),
			   "model.embed_tokens.lora_a[7,2] model.embed_tokens.lora_b[2,3]", 1, e));
	c = &r.change[0];
	cr_assert_eq(c->kind, OB_CHANGE_EMBEDDING);
	cr_assert(c->b.rows == 7 && c->b.cols == 2 && c->a.rows == 2 && c->a.cols == 3);
	cr_assert_eq(view_at(&c->b, 6, 1), value_of("model.embed_tokens.lora_a", 13));
}

Test(mlx, scales)
{
	works(read_adapter(CONFIG(""), PAIR, 1, e));
	cr_assert_eq(r.change[0].coeff, 20);
	/* Early 2024: alpha counts, and only without a fine_tune_type. */
	works(read_adapter("{\"lora_layers\":4,\"lora_parameters\":{\"rank\":2,\"scale\":3.0,"
			   "\"alpha\":8.0}}",
			   PAIR, 1, e));
	cr_assert_eq(r.change[0].coeff, 12);
	works(read_adapter(CONFIG("\"rank\":2,\"scale\":3.0,\"alpha\":8.0"), PAIR, 1, e));
	cr_assert_eq(r.change[0].coeff, 3);
	works(read_adapter("{\"lora_parameters\":{\"alpha\":16}}", "q.lora_a[3,8] q.lora_b[8,5]", 1,
			   e));
	cr_assert_eq(r.change[0].coeff, 20);
	works(read_adapter(CONFIG("\"scale\":0"), PAIR, 1, e));
	cr_assert(r.change[0].zero);
}

Test(mlx, full_fine_tune)
{
	works(read_adapter("{\"fine_tune_type\":\"full\"}",
			   "model.q.weight[3,2] model.norm.weight[5]", 1, e));
	cr_assert_eq(r.n_changes, 2);
	cr_assert_eq(r.change[0].kind, OB_CHANGE_REPLACE);
	cr_assert_str_eq(r.change[1].module, "model.norm");
	cr_assert_str_eq(r.change[1].param, "weight");
	cr_assert_str_eq(r.family, "MLX full fine-tune");
}

Test(mlx, refusals)
{
	static const struct {
		const char *config, *tensors, *word;
		enum ob_code code;
	} rows[] = {
		{ NULL, PAIR, "scale", OB_UNSUPPORTED },
		{ "{\"fine_tune_type\":\"dora\"}", PAIR, "dora", OB_UNSUPPORTED },
		{ CONFIG(""), PAIR " model.q.m[5]", "DoRA", OB_UNSUPPORTED },
		{ CONFIG(""), "q.lora_a[2,3,4] q.lora_b[2,5,3]", "expert", OB_UNSUPPORTED },
		{ CONFIG(""), "q.lora_a[6,4] q.lora_b[2,5,3]", "expert", OB_UNSUPPORTED },
		{ CONFIG(""), "q.lora_a[6,4]", "lora_b", OB_CORRUPT },
		{ CONFIG(""), "q.lora_b[6,4]", "lora_a", OB_CORRUPT },
		{ CONFIG(""), "q.lora_a[6,4] q.lora_b[5,6]", "[6, 4]", OB_MISMATCH },
		{ CONFIG(""), "q.lora_a[6,0] q.lora_b[0,5]", "rank", OB_MISMATCH },
		{ CONFIG("\"rank\":3"), PAIR, "says 3", OB_MISMATCH },
		{ CONFIG("\"scale\":\"x\""), PAIR, "scale", OB_CORRUPT },
		{ CONFIG(""), "q.lora_a[3,2]=nan q.lora_b[2,5]", "q.lora_a", OB_NONFINITE },
		{ CONFIG(""), "q.weight[3,2]:I64", "I64", OB_UNSUPPORTED },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		fails(read_adapter(rows[i].config, rows[i].tensors, 1, e), rows[i].code,
		      rows[i].word);
}
