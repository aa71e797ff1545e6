/* SPDX-License-Identifier: Apache-2.0 */
/* Embeddings that are the head as well, and vocabularies that change their size. */
#include "fixture.h"

static void init(void)
{
	scratch_make();
	options = (struct ob_adapter_options){ 0 };
}

TestSuite(tied, .init = init, .fini = adapter_fini);

#define TIED "{\"model_type\":\"llama\",\"tie_word_embeddings\":true,\"vocab_size\":5}"
#define UNTIED "{\"model_type\":\"llama\",\"tie_word_embeddings\":false,\"vocab_size\":5}"
#define E "model.embed_tokens.weight"
#define H "lm_head.weight"
#define EMBED E "[5,3]"
#define PEFT(more) "{\"peft_type\":\"LORA\",\"r\":2" more "}"
#define HEAD_LORA "lm_head.lora_A.weight[2,3] lm_head.lora_B.weight[5,2]"
#define EMBED_LORA \
	"model.embed_tokens.lora_embedding_A[2,5] model.embed_tokens.lora_embedding_B[3,2]"
#define ROWS "model.embed_tokens.token_adapter.trainable_tokens_delta[2,3]"
#define INDICES ",\"trainable_token_indices\":[4,1]"

/* "E: kinds; H: kinds; config" of what came out, one letter per edit: L low-rank, R replacement,
 * T token rows. "-": no tensor of its own. */
static const char *outcome(void)
{
	static char text[256];
	static const char letter[] = { 'L', 'A', 'R', 'T' };
	static const char *const tensors[] = { E, H };
	size_t len = 0;

	for (int t = 0; t < 2; t++) {
		long i = ob_model_find(model, tensors[t]);
		const struct ob_tensor_edits *of = i >= 0 ? &edits->of[i] : NULL;

		if (!of && edits->n_extra && !strcmp(edits->extra[0].name, tensors[t]))
			of = &edits->extra[0].edits;
		len += (size_t)sprintf(text + len, "%s", of ? "" : "-");
		for (size_t k = 0; of && k < of->n; k++)
			text[len++] = letter[of->edit[k].kind];
		text[len++] = ' ';
	}
	text[len] = '\0';
	for (size_t i = 0; i < edits->n_config; i++)
		len += (size_t)sprintf(text + len, "%s:%s=%s ", edits->config[i].path,
				       edits->config[i].key, edits->config[i].value);
	return text;
}

#define NO ":tie_word_embeddings=false "

static const struct {
	const char *what, *config, *adapter, *outcome;
} table[] = {
	{ "nothing of the two", PEFT(""), "model.q.lora_A.weight[2,3] model.q.lora_B.weight[4,2]",
	  " - " },
	{ "LoRA on the head", PEFT(""), HEAD_LORA, " L " NO },
	{ "LoRA on the embedding", PEFT(""), EMBED_LORA, "L  " NO },
	{ "LoRA on both", PEFT(""), EMBED_LORA " " HEAD_LORA, "L L " NO },
	{ "on the embedding, tied on purpose", PEFT(",\"ensure_weight_tying\":true"), EMBED_LORA,
	  "L - " },
	{ "on both, tied on purpose", PEFT(",\"ensure_weight_tying\":true"),
	  EMBED_LORA " " HEAD_LORA, "L - " },
	{ "on the head, tied on purpose", PEFT(",\"ensure_weight_tying\":true"), HEAD_LORA,
	  " L " NO },
	{ "token rows", PEFT(INDICES), ROWS, "T - " },
	{ "token rows and LoRA on the head", PEFT(INDICES), ROWS " " HEAD_LORA, "T TL " NO },
	{ "token rows and LoRA on the embedding", PEFT(INDICES), ROWS " " EMBED_LORA, "TL T " NO },
	{ "the embedding replaced", PEFT(""), "model.embed_tokens.weight[5,3]", "R  " NO },
	{ "the head replaced", PEFT(""), "lm_head.weight[5,3]", " R " NO },
	{ "both replaced by the same", PEFT(""),
	  "model.embed_tokens.weight[5,3]=2 lm_head.weight[5,3]=2", "R - " },
	{ "both replaced", PEFT(""), "model.embed_tokens.weight[5,3] lm_head.weight[5,3]",
	  "R R " NO },
	{ "replaced, then LoRA on the head", PEFT(""),
	  "model.embed_tokens.weight[5,3]=2 lm_head.base_layer.weight[5,3]=2 " HEAD_LORA,
	  "R RL " NO },
	{ "the embedding replaced, tied on purpose", PEFT(",\"ensure_weight_tying\":true"),
	  "model.embed_tokens.weight[5,3]", "R - " },
	{ "a larger vocabulary", PEFT(""), "model.embed_tokens.weight[8,3]", "R - :vocab_size=8 " },
	{ "a larger vocabulary for both", PEFT(""),
	  "model.embed_tokens.weight[8,3]=2 lm_head.weight[8,3]=2", "R - :vocab_size=8 " },
	{ "a larger vocabulary and rows of it", PEFT(",\"trainable_token_indices\":[7,1]"),
	  "model.embed_tokens.token_adapter.base_layer.weight[8,3] " ROWS, "RT - :vocab_size=8 " },
};

Test(tied, head_absent)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		ob_err err = { 0 };
		int rc;

		put_model(TIED, EMBED " model.q.weight[4,3]");
		put_peft("a", table[i].config, table[i].adapter);
		rc = resolve("a", &err);
		cr_expect_eq(rc, 0, "%s: %s", table[i].what, err.msg);
		if (rc == 0)
			cr_expect_str_eq(outcome(), table[i].outcome, "%s: %s", table[i].what,
					 outcome());
	}
}

Test(tied, the_head_that_is_added)
{
	const struct ob_extra_tensor *x;

	put_model(TIED, "model.q.weight[4,3] " EMBED);
	put_peft("a", PEFT(""), HEAD_LORA);
	works(resolve("a", e));
	cr_assert_eq(edits->n_extra, 1);
	x = &edits->extra[0];
	cr_assert_str_eq(x->name, H);
	cr_assert_eq(x->source, 1);
	cr_assert(x->edits.rows == 5 && x->edits.cols == 3 && x->edits.shape.rank == 2);
	cr_assert_eq(edits->n_edited, 1);
	cr_assert_eq(edits->adapter[0].modules, 1);
	/* C3: the update of an embedding is (B A)^T. */
	put_peft("a", PEFT(""), EMBED_LORA);
	works(resolve("a", e));
	cr_assert_eq(edits->extra[0].edits.n, 0);
	cr_assert_eq(view_at(&edits_of(E)->edit[0].b, 4, 1),
		     value_of("model.embed_tokens.lora_embedding_A", 9));
}

Test(tied, head_stored_all_the_same)
{
	put_model(TIED, EMBED " " H "[5,3]");
	put_peft("a", PEFT(INDICES), ROWS);
	works(resolve("a", e));
	cr_assert_str_eq(outcome(), "T T ");
	put_peft("a", PEFT(""), HEAD_LORA);
	works(resolve("a", e));
	cr_assert_str_eq(outcome(), " L " NO);
	put_peft("a", PEFT(""), "model.embed_tokens.weight[8,3]");
	works(resolve("a", e));
	cr_assert_str_eq(outcome(), "R R :vocab_size=8 ");
	cr_assert_eq(edits_of(H)->rows, 8);
}

Test(tied, not_tied)
{
	put_model(UNTIED, EMBED " " H "[5,3]");
	put_peft("a", PEFT(INDICES), ROWS " " HEAD_LORA);
	works(resolve("a", e));
	cr_assert_str_eq(outcome(), "T L ");
	put_peft("a", PEFT(""), EMBED_LORA " " HEAD_LORA);
	works(resolve("a", e));
	cr_assert_str_eq(outcome(), "L L ");
	put_peft("a", PEFT(""), "model.embed_tokens.weight[8,3] lm_head.weight[8,3]");
	works(resolve("a", e));
	cr_assert_str_eq(outcome(), "R R :vocab_size=8 ");
	cr_assert(edits_of(E)->rows == 8 && edits_of(E)->shape.dim[0] == 8);
	/* C22: the replacement comes before the factors, which have its size. */
	put_peft("a", PEFT(""),
		 "model.embed_tokens.base_layer.weight[8,3] lm_head.weight[8,3] "
		 "model.embed_tokens.lora_embedding_A[2,8] "
		 "model.embed_tokens.lora_embedding_B[3,2]");
	works(resolve("a", e));
	cr_assert_str_eq(outcome(), "RL R :vocab_size=8 ");
	put_peft("a", PEFT(""), "model.embed_tokens.weight[8,3]");
	fails(resolve("a", e), OB_MISMATCH, "vocabulary");
	put_peft("a", PEFT(""), "model.embed_tokens.weight[8,4]");
	fails(resolve("a", e), OB_MISMATCH, "[8, 4]");
	/* A second adapter sees the size that the first one left. */
	put_peft("a", PEFT(""), "model.embed_tokens.weight[8,3] lm_head.weight[8,3]");
	put_peft("b", PEFT(""), "lm_head.lora_A.weight[2,3] lm_head.lora_B.weight[8,2]");
	works(resolve("a b", e));
	cr_assert_str_eq(outcome(), "R RL :vocab_size=8 ");
}

Test(tied, several_adapters)
{
	put_model(TIED, EMBED);
	put_peft("a", PEFT(INDICES), ROWS);
	put_peft("b", PEFT(""), HEAD_LORA);
	put_peft("c", PEFT(""), EMBED_LORA);
	works(resolve("a b c", e));
	cr_assert_str_eq(outcome(), "TL TL " NO);
	cr_assert(edits->extra[0].edits.edit[1].adapter == 1 && edits_of(E)->edit[1].adapter == 2);
}

Test(tied, rows_are_taken_once)
{
	put_model(TIED, EMBED);
	put_peft("a", PEFT(INDICES), ROWS);
	put_peft("b", PEFT(",\"trainable_token_indices\":[0,4]"), ROWS);
	fails(resolve("a b", e), OB_MISMATCH, "row 4");
	put_peft("b", PEFT(",\"trainable_token_indices\":[0,2]"), ROWS);
	works(resolve("a b", e));
	put_peft("b", PEFT(",\"trainable_token_indices\":[2,2]"), ROWS);
	fails(resolve("b", e), OB_MISMATCH, "row 2");
	put_peft("b", PEFT(",\"trainable_token_indices\":[2,5]"), ROWS);
	fails(resolve("b", e), OB_MISMATCH, "row 5");
}

Test(tied, where_config_says_it)
{
	put_model("{\"model_type\":\"llava\",\"tie_word_embeddings\":false,\"text_config\":{"
		  "\"tie_word_embeddings\":true,\"vocab_size\":5}}",
		  EMBED);
	put_peft("a", PEFT(""), HEAD_LORA);
	works(resolve("a", e));
	cr_assert_str_eq(outcome(), " L " NO "text_config" NO);
	put_peft("a", PEFT(""), "model.embed_tokens.weight[8,3]");
	works(resolve("a", e));
	cr_assert_str_eq(outcome(), "R - text_config:vocab_size=8 ");
	/* Tied by default: nothing to change, so it is added. */
	put_model("{\"model_type\":\"gemma\"}", EMBED);
	put_peft("a", PEFT(""), HEAD_LORA);
	works(resolve("a", e));
	cr_assert_str_eq(outcome(), " L " NO);
	put_model("{\"model_type\":\"gemma3\",\"text_config\":{}}", EMBED);
	works(resolve("a", e));
	cr_assert_str_eq(outcome(), " L " NO "text_config" NO);
}

Test(tied, no_config_to_untie_in)
{
	put_model(NULL, EMBED);
	put_peft("a", PEFT(""), HEAD_LORA);
	fails(resolve("a", e), OB_MISMATCH, "config.json");
	put_tensors("one.safetensors", EMBED);
	fails(resolve_on("one.safetensors", "a", NULL, e), OB_MISMATCH, "config.json");
	put_peft("a", PEFT(INDICES), ROWS);
	works(resolve("a", e));
	cr_assert_str_eq(outcome(), "T - ");
}

/* mlx-lm's embedding layer serves as the tied head too. */
Test(tied, mlx)
{
	put_model(TIED, EMBED);
	put_folder("m");
	put_text("m/adapter_config.json", "{\"fine_tune_type\":\"lora\"}");
	put_tensors("m/adapters.safetensors",
		    "model.embed_tokens.lora_a[5,2] model.embed_tokens.lora_b[2,3]");
	works(resolve("m", e));
	cr_assert_str_eq(outcome(), "L - ");
	put_peft("a", PEFT(""), HEAD_LORA);
	works(resolve("m a", e));
	cr_assert_str_eq(outcome(), "L LL " NO);
}

/* An encoder has no head that could be untied. */
Test(tied, encoder)
{
	put_model("{\"model_type\":\"bert\",\"architectures\":[\"BertModel\"],"
		  "\"tie_word_embeddings\":true}",
		  "embeddings.word_embeddings.weight[5,3]");
	put_peft("a", PEFT(""),
		 "embeddings.word_embeddings.lora_embedding_A[2,5] "
		 "embeddings.word_embeddings.lora_embedding_B[3,2]");
	works(resolve("a", e));
	cr_assert(edits->n_extra == 0 && edits->n_config == 0 && edits->n_edited == 1);
}
