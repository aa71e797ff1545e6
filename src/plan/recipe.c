/* SPDX-License-Identifier: Apache-2.0 */
/* What the user asked for, applied to each tensor: which encoding it gets, and what the model as a
 * whole is then called. */
#include <string.h>

#include "plan/internal.h"

/* A mixture of experts leaves thousands of tensors for one reason: they are counted, not listed. */
static int leave(struct ob_plan *p, const char *name, enum ob_dtype dtype, const char *why,
		 ob_err *e)
{
	struct ob_left **at = &p->left;
	for (; *at; at = &(*at)->next)
		if ((*at)->dtype == dtype && !strcmp((*at)->why, why)) {
			(*at)->n++;
			return 0;
		}
	*at = ob_arena_alloc(&p->arena, sizeof(**at), e);
	if (!*at)
		return -1;
	**at = (struct ob_left){
		.name = name,
		.why = ob_arena_printf(&p->arena, e, "%s", why),
		.dtype = dtype,
		.n = 1,
	};
	return (*at)->why ? 0 : -1;
}

static const char *model_format(const struct ob_model *m, char *buf, size_t size)
{
	return m->quant ? m->quant->codec->describe(m->quant, buf, size) : "plain floats";
}

/* Does config.json describe the tensors otherwise than they are? Asked of the format that they have;
 * where all are float, of every format. */
int ob_compare_config(struct ob_plan *p, ob_err *e)
{
	const struct ob_encoding *enc = p->model->quant;
	const char *says = NULL;
	char buf[160];
	for (size_t i = 0; ob_codecs[i] && !says; i++)
		if (ob_codecs[i]->config_differs && (!enc || enc->codec == ob_codecs[i]))
			says = ob_codecs[i]->config_differs(enc, p->model->config, buf,
							    sizeof(buf));
	if (!says)
		return 0;
	p->config_says = ob_arena_printf(&p->arena, e, "%s", says);
	return p->config_says ? 0 : -1;
}

static int note_all(struct ob_plan *p, ob_err *e)
{
	size_t n = 0;
	char format[80];
	for (const struct ob_left *l = p->left; l; l = l->next)
		n++;
	p->note = ob_arena_alloc(&p->arena, (n + 1) * sizeof(*p->note), e);
	if (!p->note)
		return -1;
	if (p->config_says) {
		p->note[p->n_notes] =
			ob_arena_printf(&p->arena, e,
					"config.json says %s, but the tensors are %s: they decide",
					p->config_says,
					model_format(p->model, format, sizeof(format)));
		if (!p->note[p->n_notes++])
			return -1;
	}
	for (const struct ob_left *l = p->left; l; l = l->next) {
		const char *dtype = ob_dtype_name(l->dtype);
		const char *text =
			l->n == 1 ? ob_arena_printf(&p->arena, e, "%s stays %s: %s", l->name, dtype,
						    l->why)
				  : ob_arena_printf(&p->arena, e, "%s and %llu more stay %s: %s",
						    l->name, (unsigned long long)l->n - 1, dtype,
						    l->why);
		if (!text)
			return -1;
		p->note[p->n_notes++] = text;
	}
	return 0;
}

static struct ob_encoding as_float(const struct ob_recipe *r, enum ob_dtype own)
{
	return (struct ob_encoding){
		.codec = &ob_codec_float,
		.dtype = r->dtype == OB_N_DTYPES ? own : r->dtype,
	};
}

/* What a tensor becomes that is not to be quantized. Arithmetic is in float32: an F64 tensor that an
 * adapter edits comes out as F32. */
static struct ob_encoding unquantized(const struct ob_recipe *r, const struct ob_encoding *own,
				      bool is_edited)
{
	if (own->codec == &ob_codec_raw)
		return *own;
	return as_float(r, own->dtype == OB_F64 && is_edited ? OB_F32 : own->dtype);
}

static struct ob_encoding quantized(const struct ob_recipe *r, const struct ob_encoding *to,
				    const struct ob_encoding *own)
{
	struct ob_encoding enc = *to;
	enc.dtype = r->dtype != OB_N_DTYPES ? r->dtype : own->dtype == OB_F64 ? OB_F32 : own->dtype;
	return enc;
}

static int apply_rule(struct ob_plan *p, const struct ob_rule *rule, const struct ob_source *s,
		      const struct ob_shape *shape, const struct ob_encoding *own,
		      struct ob_encoding *enc, ob_err *e)
{
	const char *why = NULL;
	bool is_edited = s->edits && s->edits->n;
	if (rule->skip) {
		*enc = *own;
		if (own->dtype == OB_F64 && is_edited)
			enc->dtype = OB_F32;
		return 0;
	}
	if (rule->enc.codec == &ob_codec_float) {
		*enc = unquantized(p->recipe, own, is_edited);
		if (rule->enc.dtype != OB_N_DTYPES && own->codec != &ob_codec_raw)
			enc->dtype = rule->enc.dtype;
		return 0;
	}
	if (own->codec == &ob_codec_raw)
		return ob_fail(e, OB_MISMATCH,
			       "%s holds %s values, which --tensor-type %s cannot quantize",
			       s->name, ob_dtype_name(own->dtype), rule->text);
	*enc = quantized(p->recipe, &rule->enc, own);
	if (!enc->codec->accepts(enc, shape, &why))
		return ob_fail(e, OB_MISMATCH, "%s cannot be stored as --tensor-type %s says: %s",
			       s->name, rule->text, why);
	return 0;
}

int ob_choose_encoding(struct ob_plan *p, const struct ob_source *s, const struct ob_shape *shape,
		       struct ob_encoding *enc, ob_err *e)
{
	const struct ob_recipe *r = p->recipe;
	const struct ob_encoding *own = &p->model->tensor[s->tensor].enc;
	bool is_edited = s->edits && s->edits->n;
	bool is_plain = own->codec == &ob_codec_float || own->codec == &ob_codec_raw;
	for (size_t i = 0; i < r->n_rules; i++) {
		int hit = ob_regex_search(r->rule[i].re, s->name, e);
		if (hit < 0)
			return -1;
		if (hit)
			return apply_rule(p, &r->rule[i], s, shape, own, enc, e);
	}
	const char *why = NULL;
	if (r->quant == OB_QUANT_TO && own->codec != &ob_codec_raw &&
	    r->to.codec->default_target(&r->to, s->name, shape, ob_family_use(p->model, s->name),
					p->model->config)) {
		*enc = quantized(r, &r->to, own);
		if (enc->codec->accepts(enc, shape, &why))
			return 0;
		*enc = unquantized(r, own, is_edited);
		return leave(p, s->name, enc->dtype, why, e);
	}
	*enc = r->quant == OB_QUANT_KEEP && !is_plain ? *own : unquantized(r, own, is_edited);
	return 0;
}

/* The quantized encoding that most elements of the output have. */
static const struct ob_encoding *main_encoding(const struct ob_plan *p)
{
	const struct ob_encoding *best = NULL;
	uint64_t most = 0;
	const struct ob_encoding *kinds[64] = { NULL };
	uint64_t elems[64];
	size_t n = 0;
	for (size_t i = 0; i < p->n_outs; i++) {
		const struct ob_out *o = &p->out[i];
		if (o->enc.codec == &ob_codec_float || o->enc.codec == &ob_codec_raw)
			continue;
		size_t k = 0;
		while (k < n && !ob_encoding_equal(kinds[k], &o->enc))
			k++;
		if (k == n) {
			if (n == 64)
				continue;
			kinds[n] = &o->enc;
			elems[n++] = 0;
		}
		elems[k] += o->rows * o->cols;
		if (elems[k] > most) {
			most = elems[k];
			best = kinds[k];
		}
	}
	return best;
}

static const char *meta_value(const struct ob_model *m, const char *key)
{
	for (size_t i = 0; i < m->n_meta; i++)
		if (!strcmp(m->meta[i].key, key))
			return m->meta[i].value;
	return NULL;
}

int ob_choose_model_format(struct ob_plan *p, ob_err *e)
{
	const struct ob_model *m = p->model;
	const char *format = meta_value(m, "format");
	if (note_all(p, e))
		return -1;
	p->quant = main_encoding(p);
	/* The scheme that was asked for names the model even where a rule outvotes it. */
	if (p->recipe->quant == OB_QUANT_TO)
		for (size_t i = 0; i < p->n_outs && p->quant; i++)
			if (p->out[i].enc.codec == p->recipe->to.codec &&
			    p->out[i].enc.bits == p->recipe->to.bits &&
			    p->out[i].enc.group == p->recipe->to.group) {
				p->quant = &p->out[i].enc;
				break;
			}
	if (p->quant && p->quant->codec->meta_format)
		format = p->quant->codec->meta_format;
	if (!format || (strcmp(format, "pt") && strcmp(format, "mlx")))
		format = "pt";
	if (p->recipe->layout == OB_LAYOUT_AUTO)
		p->layout = !strcmp(format, "mlx") ? OB_LAYOUT_MLX : OB_LAYOUT_HF;
	else
		p->layout = p->recipe->layout;
	if (p->recipe->layout == OB_LAYOUT_MLX)
		format = "mlx";
	else if (p->recipe->layout == OB_LAYOUT_HF && !p->quant)
		format = "pt";

	p->meta = ob_arena_alloc(&p->arena, (m->n_meta + 1) * sizeof(*p->meta), e);
	if (!p->meta)
		return -1;
	p->meta[p->n_meta++] = (struct ob_meta_entry){ "format", format };
	for (size_t i = 0; i < m->n_meta; i++)
		if (strcmp(m->meta[i].key, "format"))
			p->meta[p->n_meta++] = m->meta[i];
	return 0;
}
