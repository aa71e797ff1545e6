/* SPDX-License-Identifier: Apache-2.0 */
/* The PEFT reader: what it makes of files, and what it refuses. */
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

TestSuite(peft, .init = scratch_make, .fini = fini);

static int read_adapter(const char *config, const char *tensors, double scale, ob_err *e)
{
	struct ob_adapter_spec spec;

	close_adapter();
	put_peft("lora", config, tensors);
	spec = (struct ob_adapter_spec){ in_scratch("lora"), scale };
	if (ob_adapter_open(&f, &arena, &spec, e) != 0)
		return -1;
	return ob_adapter_read(f, &r, e);
}

static const struct ob_change *change(const char *module, enum ob_change_kind kind)
{
	for (size_t i = 0; i < r.n_changes; i++)
		if (!strcmp(r.change[i].module, module) && r.change[i].kind == kind)
			return &r.change[i];
	cr_assert(false, "no change of %s", module);
	return NULL;
}

#define LORA(more) "{\"peft_type\":\"LORA\"" more "}"
#define PAIR(module, r, o, i) \
	module ".lora_A.weight[" #r "," #i "] " module ".lora_B.weight[" #o "," #r "]"

Test(peft, a_pair)
{
	const struct ob_change *c;

	works(read_adapter(LORA(",\"r\":2,\"lora_alpha\":3"), PAIR("base_model.model.m.q", 2, 5, 3),
			   0.5, e));
	cr_assert_eq(r.n_changes, 1);
	c = change("m.q", OB_CHANGE_LINEAR);
	cr_assert_str_eq(c->path, "base_model.model.m.q");
	cr_assert_str_eq(c->param, "weight");
	cr_assert_eq(c->n_keys, 2);
	cr_assert_eq(c->coeff, 0.75);
	cr_assert(!c->zero);
	cr_assert(c->b.rows == 5 && c->b.cols == 2 && c->a.rows == 2 && c->a.cols == 3);
	cr_assert_eq(view_at(&c->a, 1, 2), value_of("base_model.model.m.q.lora_A.weight", 5));
	cr_assert_eq(view_at(&c->b, 4, 1), value_of("base_model.model.m.q.lora_B.weight", 9));
	cr_assert_str_eq(r.family, "PEFT LoRA");
	cr_assert_eq(r.alpha, 3);
}

/* The conformance case of the patterns: first match in file order, square root of the rank. */
Test(peft, scales)
{
	static const char tensors[] =
		PAIR("model.layers.0.self_attn.q_proj", 1, 2,
		     2) " " PAIR("model.layers.1.self_attn.q_proj", 1, 2,
				 2) " " PAIR("model.layers.0.self_attn.v_proj", 4, 2, 2);

	works(read_adapter(LORA(",\"r\":4,\"lora_alpha\":8,\"use_rslora\":true,\"rank_pattern\":{"
				"\"q_proj\":1},\"alpha_pattern\":{"
				"\"^model.layers.0.self_attn.q_proj\":3,\"q_proj\":5}"),
			   tensors, 1, e));
	cr_assert_eq(change("model.layers.0.self_attn.q_proj", OB_CHANGE_LINEAR)->coeff, 3);
	cr_assert_eq(change("model.layers.1.self_attn.q_proj", OB_CHANGE_LINEAR)->coeff, 5);
	cr_assert_eq(change("model.layers.0.self_attn.v_proj", OB_CHANGE_LINEAR)->coeff, 4);
	cr_assert(isnan(r.alpha));
	works(read_adapter(LORA(",\"r\":4,\"lora_alpha\":8,\"rank_pattern\":{\"q_proj\":1},"
				"\"alpha_pattern\":{\"q_proj\":5,"
				"\"^model.layers.0.self_attn.q_proj\":3}"),
			   tensors, -1, e));
	cr_assert_eq(change("model.layers.0.self_attn.q_proj", OB_CHANGE_LINEAR)->coeff, -5);
	cr_assert_eq(change("model.layers.0.self_attn.v_proj", OB_CHANGE_LINEAR)->coeff, -2);
}

/* PEFT's defaults are rank 8 and alpha 8. */
Test(peft, defaults)
{
	works(read_adapter(LORA(""), PAIR("q", 8, 2, 2), 1, e));
	cr_assert_eq(r.change[0].coeff, 1);
	works(read_adapter(LORA(",\"r\":null,\"lora_alpha\":2.5"), PAIR("q", 8, 2, 2), 1, e));
	cr_assert_eq(r.change[0].coeff, 2.5 / 8);
	fails(read_adapter(LORA(""), PAIR("q", 4, 2, 2), 1, e), OB_MISMATCH, "rank 4");
}

Test(peft, without_a_config)
{
	works(read_adapter(NULL, PAIR("base_model.model.q", 4, 2, 2), 2, e));
	cr_assert_eq(r.change[0].coeff, 2);
	cr_assert_eq(r.n_notes, 1);
	works(read_adapter(NULL, PAIR("q", 4, 2, 2) " q.alpha[]=6", 1, e));
	cr_assert_eq(r.change[0].coeff, 1.5);
	cr_assert_eq(r.change[0].n_keys, 3);
	cr_assert_eq(r.n_notes, 0);
	works(read_adapter(NULL, PAIR("q", 4, 2, 2) " q.alpha[1,1]=6 v.alpha[1]=2", 1, e));
	cr_assert_eq(r.n_ignored, 1);
	fails(read_adapter(NULL, PAIR("q", 4, 2, 2) " q.alpha[2]", 1, e), OB_CORRUPT, "one number");
}

Test(peft, embedding_factors_are_transposed)
{
	const struct ob_change *c;

	works(read_adapter(LORA(",\"r\":1,\"lora_alpha\":1"),
			   "e.lora_embedding_A[1,3] e.lora_embedding_B[2,1]", 1, e));
	c = change("e", OB_CHANGE_EMBEDDING);
	cr_assert(c->b.rows == 3 && c->b.cols == 1 && c->a.rows == 1 && c->a.cols == 2);
	cr_assert_eq(view_at(&c->b, 2, 0), value_of("e.lora_embedding_A", 2));
	cr_assert_eq(view_at(&c->a, 0, 1), value_of("e.lora_embedding_B", 1));
}

Test(peft, convolution_is_flattened)
{
	const struct ob_change *c;

	works(read_adapter(LORA(",\"r\":2"), "c.lora_A.weight[2,3,5,5] c.lora_B.weight[4,2,1,1]", 1,
			   e));
	c = change("c", OB_CHANGE_LINEAR);
	cr_assert(c->a.rows == 2 && c->a.cols == 75 && c->b.rows == 4 && c->b.cols == 2);
	cr_assert_eq(c->shape.rank, 4);
}

Test(peft, biases_and_whole_tensors)
{
	const struct ob_change *c;

	works(read_adapter(
		LORA(",\"r\":2,\"lora_alpha\":6"),
		PAIR("base_model.model.q", 2, 3,
		     4) " base_model.model.q.lora_B.bias[3] "
			"base_model.model.q.base_layer.bias[3] base_model.model.v.bias[5] "
			"base_model.model.e.modules_to_save.default.weight[7,2] "
			"base_model.model.e.original_module.weight[7,2]",
		1, e));
	cr_assert_eq(r.n_changes, 5);
	c = change("q", OB_CHANGE_BIAS_ADD);
	cr_assert(c->coeff == 3 && c->b.rows == 1 && c->b.cols == 3);
	c = change("q", OB_CHANGE_REPLACE);
	cr_assert_str_eq(c->param, "bias");
	cr_assert_eq(c->coeff, 1);
	c = change("e", OB_CHANGE_REPLACE);
	cr_assert(c->shape.rank == 2 && c->shape.dim[0] == 7);
	cr_assert_eq(r.n_ignored, 1);
	cr_assert_not_null(strstr(r.ignored[0], "original_module"));
}

Test(peft, token_rows)
{
	static const char tensors[] = "m.embed_tokens.token_adapter.trainable_tokens_delta[3,2]";
	const struct ob_change *c;

	works(read_adapter(LORA(",\"trainable_token_indices\":[7,0,42]"), tensors, 1, e));
	c = change("m.embed_tokens", OB_CHANGE_ROWS);
	cr_assert(c->n_index == 3 && c->index[0] == 7 && c->index[1] == 0 && c->index[2] == 42);
	works(read_adapter(
		LORA(",\"trainable_token_indices\":{\"x\":[1],\"embed_tokens\":[4,5,6]}"), tensors,
		1, e));
	cr_assert_eq(change("m.embed_tokens", OB_CHANGE_ROWS)->index[2], 6);
	fails(read_adapter(LORA(",\"trainable_token_indices\":[7,0]"), tensors, 1, e), OB_MISMATCH,
	      "3 rows");
	fails(read_adapter(LORA(",\"trainable_token_indices\":[7,0,-1]"), tensors, 1, e),
	      OB_CORRUPT, "index");
	fails(read_adapter(LORA(",\"trainable_token_indices\":{\"tokens\":[1,2,3]}"), tensors, 1,
			   e),
	      OB_MISMATCH, "which");
	fails(read_adapter(LORA(""), tensors, 1, e), OB_MISMATCH, "which");
}

Test(peft, adapter_names_in_keys)
{
	works(read_adapter(LORA(",\"r\":2"),
			   "q.lora_A.style.weight[2,3] q.lora_B.style.weight[4,2]", 1, e));
	cr_assert_eq(r.n_changes, 1);
	fails(read_adapter(LORA(",\"r\":2"), "q.lora_A.x.weight[2,3] q.lora_B.y.weight[4,2]", 1, e),
	      OB_UNSUPPORTED, "more than one adapter");
	fails(read_adapter(LORA(",\"r\":2"), PAIR("q", 2, 3, 4) " q.lora_A.x.weight[2,4]", 1, e),
	      OB_MISMATCH, "same factor");
}

Test(peft, zeros_ask_for_nothing)
{
	works(read_adapter(LORA(",\"r\":2"),
			   "q.lora_A.weight[2,3] q.lora_B.weight[4,2]=0 "
			   "v.lora_A.weight[2,3]=0 v.lora_B.weight[4,2] " PAIR("o", 2, 3, 4),
			   1, e));
	cr_assert(change("q", OB_CHANGE_LINEAR)->zero && change("v", OB_CHANGE_LINEAR)->zero);
	cr_assert(!change("o", OB_CHANGE_LINEAR)->zero);
	works(read_adapter(LORA(",\"r\":2,\"lora_alpha\":0"), PAIR("o", 2, 3, 4), 1, e));
	cr_assert(r.change[0].zero);
}

Test(peft, malformed)
{
	static const struct {
		const char *config, *tensors, *word;
		enum ob_code code;
	} rows[] = {
		{ LORA(",\"r\":2"), "x.q.lora_A.weight[2,3]", "x.q", OB_CORRUPT },
		{ LORA(",\"r\":2"), "x.q.lora_B.weight[2,3]", "lora_A", OB_CORRUPT },
		{ LORA(",\"r\":2"), "q.lora_A.weight[2,3] q.lora_B.weight[4,3]", "[4, 3]",
		  OB_MISMATCH },
		{ LORA(",\"r\":0"), "q.lora_A.weight[0,3] q.lora_B.weight[4,0]", "rank",
		  OB_MISMATCH },
		{ LORA(",\"r\":2"), "q.lora_A.weight[6] q.lora_B.weight[4,2]", "[6]", OB_CORRUPT },
		{ LORA(",\"r\":2"), "q.lora_A.weight[2,3]=nan q.lora_B.weight[4,2]", "q.lora_A",
		  OB_NONFINITE },
		{ LORA(",\"r\":2"), "q.lora_A.weight[2,3] q.lora_B.weight[4,2]=-inf", "q.lora_B",
		  OB_NONFINITE },
		{ LORA(",\"r\":2"), "q.lora_A.weight[2,3]:I64 q.lora_B.weight[4,2]", "I64",
		  OB_UNSUPPORTED },
		{ LORA(",\"r\":2"), "q.lora_B.bias[3]", "lora_B.bias", OB_CORRUPT },
		{ LORA(",\"r\":\"x\""), PAIR("q", 2, 3, 4), "\"r\"", OB_CORRUPT },
		{ LORA(",\"lora_alpha\":NaN"), PAIR("q", 8, 3, 4), "lora_alpha", OB_CORRUPT },
		{ LORA(",\"r\":3"), PAIR("q", 2, 3, 4), "says 3", OB_MISMATCH },
		{ LORA(",\"r\":2,\"rank_pattern\":{\"q\":9}"), PAIR("q", 2, 3, 4), "says 9",
		  OB_MISMATCH },
		{ LORA(",\"r\":2,\"alpha_pattern\":3"), PAIR("q", 2, 3, 4), "alpha_pattern",
		  OB_CORRUPT },
		{ LORA(",\"r\":2"), "q.lora_A.x.y.weight[2,3]", "lora_A.x.y", OB_UNSUPPORTED },
		{ "[]", PAIR("q", 2, 3, 4), "adapter_config.json", OB_CORRUPT },
		{ "{\"r\":", PAIR("q", 2, 3, 4), "adapter_config.json", OB_CORRUPT },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		fails(read_adapter(rows[i].config, rows[i].tensors, 1, e), rows[i].code,
		      rows[i].word);
}

/* What plain LoRA arithmetic would bake wrongly. */
Test(peft, refused_by_config)
{
	static const char *const fields[][2] = {
		{ "\"use_dora\":true", "DoRA" },
		{ "\"use_qalora\":true", "QA-LoRA" },
		{ "\"use_bdlora\":{\"x\":1}", "block-diagonal" },
		{ "\"alora_invocation_tokens\":[1]", "activated" },
		{ "\"invocation_string\":\"x\"", "activated" },
		{ "\"arrow_config\":{\"x\":1}", "Arrow" },
		{ "\"kasa_config\":{\"x\":1}", "KaSA" },
		{ "\"layer_replication\":[[0,4]]", "replicated" },
		{ "\"target_parameters\":[\"experts.down_proj\"]", "expert" },
		{ "\"init_lora_weights\":\"pissa\"", "pissa" },
		{ "\"init_lora_weights\":\"pissa_niter_16\"", "pissa_niter_16" },
		{ "\"init_lora_weights\":\"olora\"", "olora" },
		{ "\"init_lora_weights\":\"corda\"", "corda" },
		{ "\"init_lora_weights\":\"lora_ga\"", "lora_ga" },
	};
	char config[256];

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		snprintf(config, sizeof(config), LORA(",\"r\":2,%s"), fields[i][0]);
		fails(read_adapter(config, PAIR("q", 2, 3, 4), 1, e), OB_UNSUPPORTED, fields[i][1]);
	}
}

Test(peft, harmless_fields)
{
	works(read_adapter(LORA(",\"r\":2,\"use_dora\":false,\"use_qalora\":null,"
				"\"alora_invocation_tokens\":[],\"target_parameters\":null,"
				"\"layer_replication\":null,\"init_lora_weights\":\"gaussian\","
				"\"from_the_future\":{\"x\":[1,2]},\"velora_config\":{\"x\":1}"),
			   PAIR("q", 2, 3, 4), 1, e));
	works(read_adapter(LORA(",\"r\":2,\"init_lora_weights\":\"loftq\""), PAIR("q", 2, 3, 4), 1,
			   e));
	cr_assert_eq(r.n_notes, 1);
}

Test(peft, nested_factors)
{
	fails(read_adapter(NULL, "m.experts.base_layer.lora_A.weight[2,3]", 1, e), OB_UNSUPPORTED,
	      "expert");
}
