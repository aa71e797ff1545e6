/* SPDX-License-Identifier: Apache-2.0 */
/* Options by name: one table, one small function per kind of value. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/util.h"
#include "lib/job.h"

static char *keep(struct oocbake_job *job, const char *s, ob_err *e)
{
	return ob_arena_strndup(&job->strings, s, strlen(s), e);
}

static int set_string(struct oocbake_job *job, char **to, const char *value, ob_err *e)
{
	*to = keep(job, value, e);
	return *to ? 0 : -1;
}

static int set_model(struct oocbake_job *job, const char *v, ob_err *e)
{
	return set_string(job, &job->model_path, v, e);
}

static int set_output(struct oocbake_job *job, const char *v, ob_err *e)
{
	size_t n = strlen(v);
	if (!n)
		return ob_fail(e, OB_USAGE, "the output path is empty");
	if (set_string(job, &job->output, v, e))
		return -1;
	/* "out/" and "out" are one folder. */
	while (n > 1 && job->output[n - 1] == '/')
		job->output[--n] = '\0';
	return 0;
}

/* Splits PATH:SCALE. A file of the whole name wins. */
static int set_lora(struct oocbake_job *job, const char *v, ob_err *e)
{
	struct stat st;
	struct ob_adapter_spec spec = { .scale = 1 };
	char *path = keep(job, v, e);
	if (!path)
		return -1;
	char *colon = stat(path, &st) ? strrchr(path, ':') : NULL;
	if (colon) {
		char *end;
		spec.scale = strtod_l(colon + 1, &end, ob_c_locale());
		if (end == colon + 1 || *end || !isfinite(spec.scale))
			return ob_fail(
				e, OB_USAGE,
				"--lora %s: \"%s\" is no number, and no file or folder has the whole name",
				v, colon + 1);
		*colon = '\0';
	}
	spec.path = path;
	struct ob_adapter_spec *more = ob_realloc(job->lora, (job->n_lora + 1) * sizeof(*more));
	if (!more)
		return ob_fail_nomem(e, "list of adapters");
	job->lora = more;
	job->lora[job->n_lora++] = spec;
	return 0;
}

static int set_layout(struct oocbake_job *job, const char *v, ob_err *e)
{
	static const char *const name[] = { "auto", "hf", "mlx" };
	for (unsigned i = 0; i < 3; i++)
		if (!strcmp(v, name[i])) {
			job->recipe.layout = (enum ob_layout)i;
			return 0;
		}
	return ob_fail(e, OB_USAGE, "--layout %s is unknown; it is auto, hf or mlx", v);
}

static int parse_dtype(const char *v, enum ob_dtype *t)
{
	static const struct {
		const char *name;
		enum ob_dtype dtype;
	} names[] = {
		{ "auto", OB_N_DTYPES }, { "f32", OB_F32 },	{ "float32", OB_F32 },
		{ "f16", OB_F16 },	 { "float16", OB_F16 }, { "bf16", OB_BF16 },
		{ "bfloat16", OB_BF16 },
	};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcasecmp(v, names[i].name)) {
			*t = names[i].dtype;
			return 0;
		}
	return -1;
}

static int set_dtype(struct oocbake_job *job, const char *v, ob_err *e)
{
	if (parse_dtype(v, &job->recipe.dtype))
		return ob_fail(e, OB_USAGE, "--dtype %s is unknown; it is auto, f32, f16 or bf16",
			       v);
	return 0;
}

static int set_quant(struct oocbake_job *job, const char *v, ob_err *e)
{
	return set_string(job, &job->quant, v, e);
}

static int parse_count(const char *option, const char *v, int64_t most, int64_t *n, ob_err *e)
{
	char *end;
	errno = 0;
	long long x = strtoll(v, &end, 10);
	if (errno || end == v || *end || x < 1 || x > most)
		return ob_fail(e, OB_USAGE, "--%s %s is no whole number from 1 to %lld", option, v,
			       (long long)most);
	*n = x;
	return 0;
}

static int set_bits(struct oocbake_job *job, const char *v, ob_err *e)
{
	return parse_count("bits", v, 64, &job->bits, e);
}

static int set_group(struct oocbake_job *job, const char *v, ob_err *e)
{
	return parse_count("q-group-size", v, 1 << 20, &job->group, e);
}

static int add_rule(struct oocbake_job *job, const struct ob_rule *rule, ob_err *e)
{
	struct ob_rule *more =
		ob_realloc(job->recipe.rule, (job->recipe.n_rules + 1) * sizeof(*more));
	if (!more)
		return ob_fail_nomem(e, "list of rules");
	job->recipe.rule = more;
	job->recipe.rule[job->recipe.n_rules++] = *rule;
	return 0;
}

/* A bad pattern of the user's is a usage error, not a bad input. */
static int compile(struct ob_regex **re, const char *pattern, const char *option, ob_err *e)
{
	ob_err why = { 0 };
	if (!ob_regex_new(re, pattern, option, &why))
		return 0;
	return ob_fail(e, why.code == OB_NOMEM ? OB_NOMEM : OB_USAGE, "%s", why.msg);
}

static int set_skip(struct oocbake_job *job, const char *v, ob_err *e)
{
	struct ob_rule r = { .skip = true, .text = keep(job, v, e) };
	if (!r.text || compile(&r.re, v, "--skip", e))
		return -1;
	if (!add_rule(job, &r, e))
		return 0;
	ob_regex_free(r.re);
	return -1;
}

/* The encoding a rule or --quant names, beyond the schemes of the codecs: none, f32, bf16, f16. */
static int parse_encoding(const char *text, struct ob_encoding *enc, ob_err *e)
{
	*enc = (struct ob_encoding){ .codec = &ob_codec_float, .dtype = OB_N_DTYPES };
	if (!strcasecmp(text, "none") || !parse_dtype(text, &enc->dtype))
		return 0;
	return ob_encoding_parse(enc, text, e);
}

/* REGEX=SCHEME: both may hold '=', so the first place where a scheme follows splits. */
static int set_tensor_type(struct oocbake_job *job, const char *v, ob_err *e)
{
	ob_err last = { 0 };
	struct ob_rule r = { .text = keep(job, v, e) };
	char *regex = keep(job, v, e);
	if (!r.text || !regex)
		return -1;
	char *at = strchr(regex, '=');
	if (!at)
		return ob_fail(e, OB_USAGE, "--tensor-type %s has no '='; it is REGEX=SCHEME", v);
	for (; at; at = strchr(at + 1, '=')) {
		last.code = OB_OK;
		if (!parse_encoding(at + 1, &r.enc, &last) || last.code == OB_NOMEM)
			break;
	}
	if (!at || last.code) {
		if (!e->code)
			*e = last;
		return -1;
	}
	*at = '\0';
	if (compile(&r.re, regex, "--tensor-type", e))
		return -1;
	if (!add_rule(job, &r, e))
		return 0;
	ob_regex_free(r.re);
	return -1;
}

static int set_max_shard(struct oocbake_job *job, const char *v, ob_err *e)
{
	if (ob_parse_size(v, &job->recipe.max_shard))
		return ob_fail(e, OB_USAGE,
			       "--max-shard-size %s is no size; write 5GB, 500MB or 2GiB", v);
	return 0;
}

static int set_memory(struct oocbake_job *job, const char *v, ob_err *e)
{
	char *end;
	double share = strtod_l(v, &end, ob_c_locale());
	job->memory = 0;
	job->memory_share = 0;
	if (end != v && (!strcmp(end, "%") || (!*end && share < 1)) && share > 0) {
		job->memory_share = *end ? share / 100 : share;
		if (job->memory_share <= 1)
			return 0;
	}
	if (ob_parse_size(v, &job->memory))
		return ob_fail(e, OB_USAGE,
			       "--memory %s is no size and no share; write 2GiB, 50%% or 0.75", v);
	return 0;
}

static int set_threads(struct oocbake_job *job, const char *v, ob_err *e)
{
	int64_t n;
	if (parse_count("threads", v, 1024, &n, e))
		return -1;
	job->threads = (unsigned)n;
	return 0;
}

static int set_io(struct oocbake_job *job, const char *v, ob_err *e)
{
	if (ob_io_kind_parse(v, &job->io))
		return ob_fail(e, OB_USAGE,
			       "--io %s is unknown; it is auto, uring, threads or sync", v);
	return 0;
}

static int set_sandbox(struct oocbake_job *job, const char *v, ob_err *e)
{
	static const char *const name[] = { "off", "auto", "on" };
	for (unsigned i = 0; i < 3; i++)
		if (!strcmp(v, name[i])) {
			job->sandbox = (enum ob_sandbox_mode)i;
			return 0;
		}
	return ob_fail(e, OB_USAGE, "--sandbox %s is unknown; it is auto, on or off", v);
}

static int set_nonfinite(struct oocbake_job *job, const char *v, ob_err *e)
{
	static const char *const name[] = { "fail", "warn", "keep" };
	for (unsigned i = 0; i < 3; i++)
		if (!strcmp(v, name[i])) {
			job->recipe.nonfinite = (enum ob_nonfinite)i;
			return 0;
		}
	return ob_fail(e, OB_USAGE, "--nonfinite %s is unknown; it is fail, warn or keep", v);
}

static int set_depth(enum ob_depth *to, enum ob_depth unless, const char *option, const char *v,
		     ob_err *e)
{
	static const char *const name[] = { "none", "headers", "sample", "full" };
	for (unsigned i = 0; i < 4; i++)
		if (!strcmp(v, name[i]) && i != unless) {
			*to = (enum ob_depth)i;
			return 0;
		}
	return ob_fail(e, OB_USAGE, "--%s %s is unknown; it is %s, sample or full", option, v,
		       name[unless == OB_DEPTH_NONE]);
}

/* After a bake there is no header that could differ; a verification looks at something. */
static int set_verify(struct oocbake_job *job, const char *v, ob_err *e)
{
	return set_depth(&job->verify, OB_DEPTH_HEADERS, "verify", v, e);
}

static int set_verify_depth(struct oocbake_job *job, const char *v, ob_err *e)
{
	return set_depth(&job->depth, OB_DEPTH_NONE, "depth", v, e);
}

static int set_switch(bool *to, const char *name, const char *v, ob_err *e)
{
	if (v && strcmp(v, "0") && strcmp(v, "1"))
		return ob_fail(e, OB_USAGE, "--%s takes no value", name);
	*to = !v || v[0] == '1';
	return 0;
}

int ob_job_option(struct oocbake_job *job, const char *name, const char *value, ob_err *e)
{
	static const struct {
		const char *name;
		int (*set)(struct oocbake_job *job, const char *v, ob_err *e);
	} table[] = {
		{ "model", set_model },
		{ "output", set_output },
		{ "lora", set_lora },
		{ "layout", set_layout },
		{ "dtype", set_dtype },
		{ "quant", set_quant },
		{ "bits", set_bits },
		{ "q-group-size", set_group },
		{ "tensor-type", set_tensor_type },
		{ "skip", set_skip },
		{ "max-shard-size", set_max_shard },
		{ "memory", set_memory },
		{ "threads", set_threads },
		{ "io", set_io },
		{ "nonfinite", set_nonfinite },
		{ "sandbox", set_sandbox },
		{ "verify", set_verify },
		{ "depth", set_verify_depth },
	};
	const struct {
		const char *name;
		bool *to;
	} switches[] = {
		{ "allow-unused", &job->adapter_options.allow_unused },
		{ "strict", &job->adapter_options.strict },
		{ "force", &job->force },
		{ "resume", &job->resume },
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (!strcmp(name, table[i].name)) {
			if (!value)
				return ob_fail(e, OB_USAGE, "--%s needs a value", name);
			return table[i].set(job, value, e);
		}
	for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++)
		if (!strcmp(name, switches[i].name))
			return set_switch(switches[i].to, name, value, e);
	return ob_fail(e, OB_USAGE, "there is no option --%s", name);
}

/* Options that only together make sense. */
int ob_job_finish_options(struct oocbake_job *job, ob_err *e)
{
	struct ob_recipe *r = &job->recipe;
	struct ob_encoding enc;
	if (!job->model_path)
		return ob_fail(e, OB_USAGE, "no model is given; name one with -m");
	if (!job->output)
		return ob_fail(e, OB_USAGE, "no output is given; name one with -o");
	r->out = job->output;
	r->quant = OB_QUANT_KEEP;
	if (job->bits && job->quant)
		return ob_fail(e, OB_USAGE, "-q %lld and --quant %s are both given; give one",
			       (long long)job->bits, job->quant);
	if (job->bits) {
		char scheme[64];
		snprintf(scheme, sizeof(scheme), job->group ? "mlx:%lld,group=%lld" : "mlx:%lld",
			 (long long)job->bits, (long long)job->group);
		if (ob_encoding_parse(&r->to, scheme, e))
			return -1;
		r->quant = OB_QUANT_TO;
		return 0;
	}
	if (job->group)
		return ob_fail(e, OB_USAGE,
			       "--q-group-size goes with -q; with --quant write SCHEME,group=%lld",
			       (long long)job->group);
	if (!job->quant || !strcasecmp(job->quant, "keep"))
		return 0;
	if (parse_encoding(job->quant, &enc, e))
		return -1;
	r->quant = OB_QUANT_TO;
	r->to = enc;
	if (enc.codec == &ob_codec_float) {
		r->quant = OB_QUANT_NONE;
		if (enc.dtype != OB_N_DTYPES)
			return ob_fail(e, OB_USAGE,
				       "--quant %s is a float type; use --quant none --dtype %s",
				       job->quant, job->quant);
	}
	return 0;
}

void ob_job_free_options(struct oocbake_job *job)
{
	for (size_t i = 0; i < job->recipe.n_rules; i++)
		ob_regex_free(job->recipe.rule[i].re);
	ob_free(job->recipe.rule);
	ob_free(job->lora);
	ob_arena_free(&job->strings);
}
