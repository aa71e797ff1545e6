/* SPDX-License-Identifier: Apache-2.0 */
/* adapter_config.json of PEFT: what scales plain LoRA, and what is more than plain LoRA. */
#include <math.h>
#include <string.h>

#include "adapter/peft.h"
#include "adapter/reader.h"

/* PEFT's defaults for both. */
#define DEFAULT_RANK 8
#define DEFAULT_ALPHA 8

/* Fields that make an adapter something else when they are set, and what it is then. */
static const struct {
	const char *field, *what;
} special[] = {
	{ "use_dora", "a DoRA adapter" },
	{ "use_qalora", "a QA-LoRA adapter, whose input is pooled" },
	{ "use_bdlora", "a block-diagonal LoRA adapter" },
	{ "alora_invocation_tokens", "an activated LoRA: it acts only after certain tokens, so no "
				     "baked weight equals it" },
	{ "invocation_string", "an activated LoRA: it acts only after certain tokens, so no baked "
			       "weight equals it" },
	{ "arrow_config",
	  "an Arrow adapter: it is routed per token, so no baked weight equals it" },
	{ "kasa_config", "a KaSA adapter: it needs a base without its smallest singular values" },
	{ "layer_replication", "an adapter for replicated layers, which the base does not have" },
	{ "target_parameters", "LoRA on fused expert parameters" },
};

/* Initialisations after which the base is not the one that was trained on. */
static const char *const residual[] = { "pissa", "olora", "corda", "lora_ga" };

static bool is_set(const struct ob_jv *v)
{
	if (!v)
		return false;
	switch (ob_json_type(v)) {
	case OB_JSON_NULL:
		return false;
	case OB_JSON_BOOL:
		return ob_json_is_true(v);
	case OB_JSON_ARRAY:
	case OB_JSON_OBJECT:
		return ob_json_first(v);
	default:
		return true;
	}
}

static int refuse_special(const struct ob_adapter_file *f, ob_err *e)
{
	const char *init = ob_json_str(ob_json_get(f->config, "init_lora_weights"));

	for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
		if (is_set(ob_json_get(f->config, special[i].field)))
			return ob_fail(e, OB_UNSUPPORTED,
				       "%s: %s is set, so this is %s; that is "
				       "not supported by this version",
				       f->config_path, special[i].field, special[i].what);
	for (size_t i = 0; init && i < sizeof(residual) / sizeof(residual[0]); i++)
		if (ob_has_prefix(init, residual[i]))
			return ob_fail(e, OB_UNSUPPORTED,
				       "%s: init_lora_weights is \"%s\": the "
				       "adapter fits a base that lost its initial factors; save it "
				       "with path_initial_model_for_weight_conversion",
				       f->config_path, OB_SHOWN(init));
	return 0;
}

/* A number that may be absent or null. */
static int number(const struct ob_adapter_file *f, const char *field, double *x, ob_err *e)
{
	const struct ob_jv *v = ob_json_get(f->config, field);

	if (!v || ob_json_type(v) == OB_JSON_NULL)
		return 0;
	if (!ob_json_num(v, x) || !isfinite(*x))
		return ob_fail(e, OB_CORRUPT, "%s: \"%s\" is no finite number", f->config_path,
			       field);
	return 0;
}

static int patterns(const struct ob_adapter_file *f, const char *field, struct ob_peft_patterns *p,
		    ob_err *e)
{
	const char *what = ob_arena_printf(f->arena, e, "%s: \"%s\"", f->config_path, field);

	return what ? ob_peft_patterns_new(p, ob_json_get(f->config, field), what, e) : -1;
}

int ob_peft_config_read(const struct ob_adapter_file *f, struct ob_peft_config *c, ob_err *e)
{
	const char *init;

	*c = (struct ob_peft_config){ .present = f->config,
				      .r = DEFAULT_RANK,
				      .alpha = DEFAULT_ALPHA };
	if (!f->config)
		return 0;
	if (refuse_special(f, e) != 0 || number(f, "r", &c->r, e) != 0 ||
	    number(f, "lora_alpha", &c->alpha, e) != 0 ||
	    patterns(f, "rank_pattern", &c->rank, e) != 0)
		return -1;
	if (patterns(f, "alpha_pattern", &c->alphas, e) != 0) {
		ob_peft_patterns_free(&c->rank);
		return -1;
	}
	c->rslora = ob_json_is_true(ob_json_get(f->config, "use_rslora"));
	c->fan_in_fan_out = ob_json_is_true(ob_json_get(f->config, "fan_in_fan_out"));
	c->ensure_weight_tying = ob_json_is_true(ob_json_get(f->config, "ensure_weight_tying"));
	c->tokens = ob_json_get(f->config, "trainable_token_indices");
	init = ob_json_str(ob_json_get(f->config, "init_lora_weights"));
	if (init && !strcmp(init, "loftq"))
		c->warning =
			"it was initialised by LoftQ: the base must be the one that LoftQ made";
	return 0;
}

void ob_peft_config_free(struct ob_peft_config *c)
{
	ob_peft_patterns_free(&c->rank);
	ob_peft_patterns_free(&c->alphas);
}

int ob_peft_scale(const struct ob_adapter_file *f, const struct ob_peft_config *c,
		  const char *module, uint64_t r, const char *key, double *scale, ob_err *e)
{
	double want = c->r, alpha = c->alpha;

	if (!c->present) {
		*scale = 1;
		return 0;
	}
	if (ob_peft_patterns_find(&c->rank, module, &want, e) != 0 ||
	    ob_peft_patterns_find(&c->alphas, module, &alpha, e) != 0)
		return -1;
	if (want != (double)r)
		return ob_fail(e, OB_MISMATCH, "%s: the key \"%s\" has rank %llu, but %s says %g",
			       f->path, OB_SHOWN(key), (unsigned long long)r, f->config_path, want);
	*scale = alpha / (c->rslora ? sqrt((double)r) : (double)r);
	return 0;
}
