/* SPDX-License-Identifier: Apache-2.0 */
/* From adapters to edits: names, shapes, orientation, accounting of keys. */
#include "../base/oom.h"
#include "fixture.h"

static void init(void)
{
	scratch_make();
	options = (struct ob_adapter_options){ 0 };
}

TestSuite(resolve, .init = init, .fini = adapter_fini);

#define LLAMA "{\"model_type\":\"llama\",\"tie_word_embeddings\":false}"
#define PEFT "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4}"
#define PAIR(module, o, i) module ".lora_A.weight[2," #i "] " module ".lora_B.weight[" #o ",2]"

/* ---- names ---- */

static const struct {
	const char *what, *model, *adapter;
	const char *edited; /* with NULL an error: */
	const char *word;
} names[] = {
	{ "as they are", "model.layers.0.q.weight[3,5] model.layers.0.v.weight[3,5]",
	  PAIR("base_model.model.model.layers.0.q", 3, 5), "model.layers.0.q.weight ", NULL },
	{ "without PEFT's prefix", "model.layers.0.q.weight[3,5]", PAIR("model.layers.0.q", 3, 5),
	  "model.layers.0.q.weight ", NULL },
	{ "bare model to causal",
	  "model.layers.0.q.weight[3,5] vision_tower.layers.0.q.weight[3,5]",
	  PAIR("base_model.model.layers.0.q", 3, 5), "model.layers.0.q.weight ", NULL },
	{ "causal to bare model", "layers.0.q.weight[3,5]",
	  PAIR("base_model.model.model.layers.0.q", 3, 5), "layers.0.q.weight ", NULL },
	{ "new names, old disk",
	  "language_model.model.layers.0.q.weight[3,5] vision_tower.layers.0.q.weight[3,5]",
	  PAIR("base_model.model.model.language_model.layers.0.q", 3, 5),
	  "language_model.model.layers.0.q.weight ", NULL },
	{ "text adapter on a vision model",
	  "language_model.model.layers.0.q.weight[3,5] vision_tower.layers.0.q.weight[3,5]",
	  PAIR("base_model.model.model.layers.0.q", 3, 5),
	  "language_model.model.layers.0.q.weight ", NULL },
	{ "text and tower change apart, the head too",
	  "language_model.model.layers.0.q.weight[3,5] vision_tower.layers.0.q.weight[3,5] "
	  "language_model.lm_head.weight[3,5]",
	  PAIR("base_model.model.model.language_model.layers.0.q", 3,
	       5) " " PAIR("base_model.model.model.vision_tower.layers.0.q", 3,
			   5) " " PAIR("base_model.model.lm_head", 3, 5),
	  "language_model.model.layers.0.q.weight vision_tower.layers.0.q.weight "
	  "language_model.lm_head.weight ",
	  NULL },
	{ "a tower is not guessed", "vision_tower.layers.0.q.weight[3,5]",
	  PAIR("base_model.model.layers.0.q", 3, 5), NULL, "layers.0.q" },
	{ "no match by the end alone", "decoder.block.layers.0.q.weight[3,5]",
	  PAIR("base_model.model.layers.0.q", 3, 5), NULL, "nearest" },
	{ "task prefix", "bert.encoder.q.weight[3,5] classifier.weight[2,5]",
	  PAIR("base_model.model.encoder.q", 3, 5) " base_model.model.classifier.weight[2,5]",
	  "bert.encoder.q.weight classifier.weight ", NULL },
	{ "two aliases that both fit",
	  "thinker.model.layers.0.q.weight[3,5] talker.model.layers.0.q.weight[3,5]",
	  PAIR("base_model.model.model.layers.0.q", 3, 5), NULL, "talker.model.layers.0.q" },
	{ "shapes decide between aliases",
	  "thinker.model.layers.0.q.weight[7,5] talker.model.layers.0.q.weight[3,5]",
	  PAIR("base_model.model.model.layers.0.q", 3, 5), "talker.model.layers.0.q.weight ",
	  NULL },
	{ "names as they are win over an alias",
	  "model.layers.0.q.weight[3,5] layers.0.q.weight[3,5]",
	  PAIR("base_model.model.layers.0.q", 3, 5), "layers.0.q.weight ", NULL },
	{ "a genuine base_model", "base_model.layers.0.q.weight[3,5]",
	  PAIR("base_model.model.base_model.layers.0.q", 3, 5), "base_model.layers.0.q.weight ",
	  NULL },
	{ "a genuine module", "module.q.weight[3,5] q.weight[3,5]",
	  PAIR("base_model.model.module.q", 3, 5), "module.q.weight ", NULL },
	{ "compiled and sharded", "model.layers.0.q.weight[3,5]",
	  PAIR("_orig_mod.base_model.model.model.layers.0._fsdp_wrapped_module.q", 3, 5),
	  "model.layers.0.q.weight ", NULL },
	{ "a bare parameter", "m.proj[3,5]", PAIR("base_model.model.m.proj", 3, 5), "m.proj ",
	  NULL },
	{ "attention of torch", "m.attn.in_proj_weight[9,3] m.attn.out_proj.weight[3,3]",
	  PAIR("base_model.model.m.attn", 9,
	       3) " " PAIR("base_model.model.m.attn.base_layer.out_proj", 3, 3),
	  "m.attn.in_proj_weight m.attn.out_proj.weight ", NULL },
	{ "one key too many", "model.layers.0.q.weight[3,5]",
	  PAIR("base_model.model.model.layers.0.q", 3,
	       5) " " PAIR("base_model.model.model.layers.7.q", 3, 5),
	  NULL, "layers.7.q" },
	{ "another width", "model.layers.0.q.weight[3,5]",
	  PAIR("base_model.model.model.layers.0.q", 3, 6), NULL, "[3, 6]" },
	{ "another width, the tensor's", "model.layers.0.q.weight[3,5]",
	  PAIR("base_model.model.model.layers.0.q", 3, 6), NULL, "[3, 5]" },
	{ "a replacement", "m.norm.weight[5]", "base_model.model.m.norm.weight[5]",
	  "m.norm.weight ", NULL },
	{ "a replacement of another shape", "m.norm.weight[5]", "base_model.model.m.norm.weight[6]",
	  NULL, "[6]" },
	{ "a new module", "m.norm.weight[5]",
	  "base_model.model.m.norm.weight[5] base_model.model.score.weight[2,5]", NULL, "score" },
	{ "a bias that is not there", "m.q.weight[3,5]",
	  PAIR("base_model.model.m.q", 3, 5) " base_model.model.m.q.lora_B.bias[3]", NULL,
	  "lora_B.bias" },
	{ "biases", "m.q.weight[3,5] m.q.bias[3]",
	  PAIR("base_model.model.m.q", 3, 5) " base_model.model.m.q.lora_B.bias[3]",
	  "m.q.weight m.q.bias ", NULL },
	{ "a tensor of integers", "m.q.weight[3,5]:I64", PAIR("base_model.model.m.q", 3, 5), NULL,
	  "I64" },
	{ "a vector", "m.q.weight[15]", PAIR("base_model.model.m.q", 3, 5), NULL, "[15]" },
	{ "convolutions", "c1.weight[4,3,5,5] c2.weight[4,3,1,1] c3.weight[4,3] c4.weight[4,3,2]",
	  "c1.lora_A.weight[2,3,5,5] c1.lora_B.weight[4,2,1,1] c2.lora_A.weight[2,3] "
	  "c2.lora_B.weight[4,2] c3.lora_A.weight[2,3,1,1] c3.lora_B.weight[4,2,1,1] "
	  "c4.lora_A.weight[2,6] c4.lora_B.weight[4,2]",
	  "c1.weight c2.weight c3.weight c4.weight ", NULL },
	{ "channels last", "c.weight[4,5,5,3]", "c.lora_A.weight[2,3,5,5] c.lora_B.weight[4,2,1,1]",
	  NULL, "[4, 5, 5, 3]" },
	{ "groups", "c.weight[4,3,5,5]", "c.lora_A.weight[2,6,5,5] c.lora_B.weight[4,2,1,1]", NULL,
	  "[4, 3, 5, 5]" },
};

Test(resolve, by_name)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		ob_err err = { 0 };
		int rc;

		put_model(LLAMA, names[i].model);
		put_peft("a", PEFT, names[i].adapter);
		rc = resolve("a", &err);
		if (names[i].edited) {
			cr_expect_eq(rc, 0, "%s: %s", names[i].what, err.msg);
			if (rc == 0)
				cr_expect_str_eq(edited_names(), names[i].edited, "%s",
						 names[i].what);
			continue;
		}
		cr_expect_eq(rc, -1, "%s", names[i].what);
		cr_expect(err.code == OB_MISMATCH || err.code == OB_UNSUPPORTED, "%s",
			  names[i].what);
		cr_expect_not_null(strstr(err.msg, names[i].word), "%s: %s", names[i].what,
				   err.msg);
	}
}

Test(resolve, what_was_found)
{
	const struct ob_adapter_info *a;
	const struct ob_edit *x;

	put_model(LLAMA, "model.layers.0.q.weight[3,5] model.layers.1.q.weight[3,5]");
	put_peft("a", "{\"peft_type\":\"LORA\",\"r\":2,\"rank_pattern\":{\"layers.1.q\":1}}",
		 PAIR("layers.0.q", 3,
		      5) " layers.1.q.lora_A.weight[1,5] "
			 "layers.1.q.lora_B.weight[3,1] layers.1.q.original_module.weight[1]");
	works(resolve("a", e));
	a = &edits->adapter[0];
	cr_assert(a->keys == 5 && a->used == 4 && a->ignored == 1 && a->unused == 0);
	cr_assert(a->modules == 2 && a->rank_min == 1 && a->rank_max == 2);
	cr_assert_eq(a->alpha, 8);
	cr_assert_str_eq(a->names, "* -> model.*");
	cr_assert_str_eq(a->family, "PEFT LoRA");
	cr_assert_eq(edits->n_edited, 2);
	x = edits->of[0].edit;
	cr_assert(edits->of[0].n == 1 && edits->of[0].rows == 3 && edits->of[0].cols == 5);
	cr_assert(x->kind == OB_EDIT_LOWRANK && x->n_rows == 3 && x->n_cols == 5);
	cr_assert_eq(x->coeff, 4.0f);
	cr_assert_eq(view_at(&x->a, 1, 3), value_of("layers.0.q.lora_A.weight", 8));
	works(ob_edits_check(edits, e));
}

Test(resolve, no_adapters)
{
	put_model(LLAMA, "q.weight[3,5]");
	works(resolve("", e));
	cr_assert(edits->n_edited == 0 && edits->n_tensors == 1 && edits->of[0].rows == 3);
}

/* ---- keys that match nothing ---- */

Test(resolve, unused_keys)
{
	static const char two[] = PAIR("q", 3, 5) " " PAIR("x", 3, 5);

	put_model(LLAMA, "q.weight[3,5]");
	put_peft("a", PEFT, two);
	fails(resolve("a", e), OB_MISMATCH, "2 of 4 keys");
	options.allow_unused = true;
	works(resolve("a", e));
	cr_assert_eq(edits->adapter[0].unused, 2);
	cr_assert(has_note(&edits->adapter[0], "x.lora_A"));
	/* Nothing at all is an error even then, and so is a shape that does not fit. */
	put_peft("a", PEFT, PAIR("x", 3, 5));
	fails(resolve("a", e), OB_MISMATCH, "none of its 2 keys");
	put_peft("a", PEFT, PAIR("q", 3, 6));
	fails(resolve("a", e), OB_MISMATCH, "[3, 6]");
	/* Notes are errors when asked for. */
	put_peft("a", PEFT, two);
	options.strict = true;
	fails(resolve("a", e), OB_MISMATCH, "x.lora_A");
}

Test(resolve, unused_zeros_are_a_note)
{
	put_model(LLAMA, "q.weight[3,5]");
	put_peft("a", PEFT, PAIR("q", 3, 5) " x.lora_A.weight[2,5] x.lora_B.weight[3,2]=0");
	works(resolve("a", e));
	cr_assert(edits->adapter[0].unused == 2 && has_note(&edits->adapter[0], "zeros"));
}

Test(resolve, many_unused_keys)
{
	char list[8192] = "", *s = list;

	for (int i = 0; i < 60; i++)
		s += sprintf(s, "l.%d.lora_A.weight[2,5] l.%d.lora_B.weight[3,2] ", i, i);
	put_model(LLAMA, "q.weight[3,5]");
	put_peft("a", PEFT, list);
	fails(resolve("a", e), OB_MISMATCH, "none of its 120 keys");
	fails(resolve("a", e), OB_MISMATCH, "l.19.lora_A");
}

Test(resolve, nothing_would_change)
{
	static const double zero[] = { 0 };

	put_model(LLAMA, "q.weight[3,5]");
	put_peft("a", PEFT, "q.lora_A.weight[2,5] q.lora_B.weight[3,2]=0");
	fails(resolve("a", e), OB_MISMATCH, "change nothing");
	put_peft("a", PEFT, PAIR("q", 3, 5));
	fails(resolve_on("model", "a", zero, e), OB_MISMATCH, "change nothing");
	put_peft("b", PEFT, "q.weight[3,5]");
	fails(resolve("a b", e), OB_MISMATCH, "later adapter");
	works(resolve("b a", e));
}

/* ---- several adapters, order ---- */

Test(resolve, order_of_edits)
{
	static const double scale[] = { 2, -1 };
	const struct ob_tensor_edits *of;

	put_model(LLAMA, "q.weight[3,5] q.bias[3] v.weight[3,5]");
	put_peft("a", PEFT, PAIR("q", 3, 5));
	put_peft("b", PEFT,
		 PAIR("q", 3, 5) " q.base_layer.weight[3,5] q.lora_B.bias[3] "
				 "q.base_layer.bias[3]");
	works(resolve_on("model", "b a", scale, e));
	of = edits_of("q.weight");
	cr_assert(of->n == 3);
	cr_assert(of->edit[0].kind == OB_EDIT_REPLACE && of->edit[0].adapter == 0);
	cr_assert(of->edit[1].kind == OB_EDIT_LOWRANK && of->edit[1].coeff == 4);
	cr_assert(of->edit[2].adapter == 1 && of->edit[2].coeff == -2);
	of = edits_of("q.bias");
	cr_assert(of->rows == 1 && of->cols == 3 && of->n == 2);
	cr_assert(of->edit[0].kind == OB_EDIT_REPLACE && of->edit[1].kind == OB_EDIT_ADD);
	cr_assert(has_note(&edits->adapter[0], "scale does not apply"));
	/* What a later replacement overwrites is left out. */
	put_peft("c", PEFT, PAIR("q", 3, 5) " q.lora_B.bias[3] " PAIR("v", 3, 5));
	works(resolve("c b", e));
	cr_assert_eq(edits->adapter[0].modules, 1);
	cr_assert(edits_of("q.weight")->n == 2 && edits_of("q.bias")->n == 2);
	cr_assert_eq(edits_of("q.weight")->edit[0].kind, OB_EDIT_REPLACE);
}

Test(resolve, the_same_adapter_twice)
{
	put_model(LLAMA, "q.weight[3,5]");
	put_peft("a", PEFT, PAIR("q", 3, 5));
	works(resolve("a a", e));
	cr_assert_eq(edits_of("q.weight")->n, 2);
	cr_assert(edits->adapter[0].modules == 1 && edits->adapter[1].modules == 1);
}

Test(resolve, two_spellings_of_one_target)
{
	static const char first[] = "model.q.lora_A.weight[2,5]=1 model.q.lora_B.weight[3,2]=2";

	char both[512];

	put_model(LLAMA, "model.q.weight[3,5]");
	snprintf(both, sizeof(both),
		 "%s base_model.model.model.q.lora_A.weight[2,5]=1 "
		 "base_model.model.model.q.lora_B.weight[3,2]=2",
		 first);
	put_peft("a", PEFT, both);
	works(resolve("a", e));
	cr_assert_eq(edits_of("model.q.weight")->n, 1);
	cr_assert(edits->adapter[0].used == 4 && has_note(&edits->adapter[0], "two names"));
	snprintf(both, sizeof(both),
		 "%s base_model.model.model.q.lora_A.weight[2,5]=1 "
		 "base_model.model.model.q.lora_B.weight[3,2]=3",
		 first);
	put_peft("a", PEFT, both);
	fails(resolve("a", e), OB_MISMATCH, "different ways");
}

Test(resolve, extreme_scales)
{
	static const double huge[] = { 1e39 }, tiny[] = { 1e-60 };

	put_model(LLAMA, "q.weight[3,5]");
	put_peft("a", PEFT, PAIR("q", 3, 5));
	fails(resolve_on("model", "a", huge, e), OB_NONFINITE, "scale");
	fails(resolve_on("model", "a", tiny, e), OB_MISMATCH, "change nothing");
}

/* ---- orientation ---- */

/* Which way the first edit of a tensor reads its factors: by one value of A and B. */
static bool is_transposed(const char *name, const char *module)
{
	const struct ob_edit *x = edits_of(name)->edit;
	char a[128];

	snprintf(a, sizeof(a), "%s.lora_A.weight", module);
	for (uint64_t i = 0; i < x->b.rows; i++)
		for (uint64_t k = 0; k < x->b.cols; k++)
			if (view_at(&x->b, i, k) != value_of(a, k * x->b.rows + i))
				return false;
	return true;
}

#define SQUARE PAIR("h.0.c", 4, 4)
#define FAN(flag) "{\"peft_type\":\"LORA\",\"r\":2,\"fan_in_fan_out\":" flag "}"
#define TYPE(name) "{\"model_type\":\"" name "\"}"

Test(resolve, orientation)
{
	static const struct {
		const char *what, *model_type, *model, *flag, *adapter;
		int transposed; /* of h.0.c; -1: an error */
	} rows[] = {
		{ "Conv1D, square", TYPE("gpt2"), "h.0.c.weight[4,4]", FAN("true"), SQUARE, 1 },
		{ "Conv1D, the flag is wrong", TYPE("gpt2"), "h.0.c.weight[4,4]", FAN("false"),
		  SQUARE, 1 },
		{ "Conv1D by a sibling", TYPE("gpt2"), "h.0.c.weight[4,4] h.0.d.weight[4,6]",
		  FAN("false"), SQUARE " " PAIR("h.0.d", 6, 4), 1 },
		{ "Conv1D, stored by MLX", TYPE("gpt2"), "h.0.c.weight[4,4] h.0.d.weight[6,4]",
		  FAN("true"), SQUARE " " PAIR("h.0.d", 6, 4), 0 },
		{ "Conv1D, a head is none", TYPE("gpt2"), "h.0.c.weight[4,4] lm_head.weight[9,4]",
		  FAN("true"), SQUARE " " PAIR("lm_head", 9, 4), 1 },
		{ "nn.Linear", TYPE("llama"), "h.0.c.weight[4,4]", FAN("false"), SQUARE, 0 },
		{ "nn.Linear, the flag is wrong", TYPE("llama"), "h.0.c.weight[4,4]", FAN("true"),
		  SQUARE, 0 },
		{ "nn.Linear that fits only transposed", TYPE("llama"), "h.0.c.weight[4,6]",
		  FAN("true"), PAIR("h.0.c", 6, 4), -1 },
		{ "unknown, shapes decide", TYPE("toy"), "h.0.c.weight[4,6]", FAN("false"),
		  PAIR("h.0.c", 6, 4), 1 },
		{ "unknown, a sibling decides", TYPE("toy"), "h.0.c.weight[4,4] h.0.d.weight[4,6]",
		  FAN("false"), SQUARE " " PAIR("h.0.d", 6, 4), 1 },
		{ "unknown, a sibling decides otherwise", TYPE("toy"),
		  "h.0.c.weight[4,4] h.0.d.weight[6,4]", FAN("true"),
		  SQUARE " " PAIR("h.0.d", 6, 4), 0 },
		{ "unknown, the flag decides", TYPE("toy"), "h.0.c.weight[4,4]", FAN("true"),
		  SQUARE, 1 },
		{ "unknown, PEFT's default", TYPE("toy"), "h.0.c.weight[4,4]", FAN("false"), SQUARE,
		  0 },
		{ "unknown, siblings of both kinds", TYPE("toy"),
		  "h.0.c.weight[4,4] h.0.d.weight[6,4] h.0.e.weight[4,6]", FAN("false"),
		  SQUARE " " PAIR("h.0.d", 6, 4) " " PAIR("h.0.e", 6, 4), -1 },
		{ "unknown, both kinds and the flag", TYPE("toy"),
		  "h.0.c.weight[4,4] h.0.d.weight[6,4] h.0.e.weight[4,6]", FAN("true"),
		  SQUARE " " PAIR("h.0.d", 6, 4) " " PAIR("h.0.e", 6, 4), 1 },
		{ "no config at all", NULL, "h.0.c.weight[4,4]", NULL, SQUARE, 0 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		ob_err err = { 0 };
		int rc;

		put_model(rows[i].model_type, rows[i].model);
		put_peft("a", rows[i].flag, rows[i].adapter);
		rc = resolve("a", &err);
		if (rows[i].transposed < 0) {
			cr_expect_eq(err.code, OB_MISMATCH, "%s", rows[i].what);
			continue;
		}
		cr_expect_eq(rc, 0, "%s: %s", rows[i].what, err.msg);
		if (rc == 0)
			cr_expect_eq(is_transposed("h.0.c.weight", "h.0.c"), rows[i].transposed,
				     "%s", rows[i].what);
	}
}

/* The stored update of a transposed layer is the transpose of B A. */
Test(resolve, transposed_factors)
{
	struct ob_edit normal, turned;

	put_model(TYPE("toy"), "h.0.c.weight[4,4]");
	put_peft("a", FAN("false"), SQUARE);
	works(resolve("a", e));
	normal = edits_of("h.0.c.weight")->edit[0];
	for (int i = 0; i < 16; i++) {
		double want = delta_at(&normal, (uint64_t)i / 4, (uint64_t)i % 4);

		turned = normal;
		turned.a = (struct ob_view){ normal.b.file, normal.b.off, OB_F32, 2, 4, 1, 2 };
		turned.b = (struct ob_view){ normal.a.file, normal.a.off, OB_F32, 4, 2, 1, 4 };
		cr_assert_eq(delta_at(&turned, (uint64_t)i % 4, (uint64_t)i / 4), want);
	}
	put_peft("a", FAN("true"), SQUARE);
	works(resolve("a", e));
	turned = edits_of("h.0.c.weight")->edit[0];
	cr_assert(turned.n_rows == 4 && turned.a.row_stride == 1 && turned.b.row_stride == 1);
}

/* ---- memory ---- */

static int step(void *ctx, ob_err *e)
{
	struct ob_adapter_spec spec = { in_scratch("a"), 1 };
	struct ob_edits *x;

	if (ob_edits_resolve(&x, &spec, 1, ctx, &options, e) != 0)
		return -1;
	ob_edits_free(x);
	return 0;
}

Test(resolve, out_of_memory)
{
	struct ob_model *m;

	put_model("{\"model_type\":\"llama\",\"tie_word_embeddings\":true,\"vocab_size\":7}",
		  "model.embed_tokens.weight[7,4] model.layers.0.q.weight[3,4]");
	put_peft(
		"a",
		"{\"peft_type\":\"LORA\",\"r\":2,\"alpha_pattern\":{\"q\":1},"
		"\"trainable_token_indices\":[3]}",
		PAIR("layers.0.q", 3, 4) " " PAIR(
			"lm_head", 7,
			4) " "
			   "embed_tokens.trainable_tokens_delta[1,4] "
			   "embed_tokens.lora_embedding_A[2,7] embed_tokens.lora_embedding_B[4,2]");
	works(ob_model_open(&m, in_scratch("model"), e));
	cr_assert_gt(oom_sweep(step, m), 20);
	put_peft("a", PEFT, PAIR("layers.9.q", 3, 4));
	for (uint64_t n = 1; n < 60; n++) {
		uint64_t before = ob_alloc_stats().in_use;
		ob_err err = { 0 };

		ob_alloc_fail_at(n, true);
		cr_assert_eq(step(m, &err), -1);
		ob_alloc_fail_at(0, false);
		cr_assert_eq(ob_alloc_stats().in_use, before);
	}
	ob_model_close(m);
}
