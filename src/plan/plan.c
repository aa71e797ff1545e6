/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the plan: outputs from model, edits and recipe; then files; then tiles. */
#include <string.h>

#include "base/num.h"
#include "base/util.h"
#include "plan/internal.h"

/* A model in a quantization that no codec reads looks like plain tensors (codes, scales): those may be
 * moved, but neither edited nor converted. */
static int refuse_unknown_format(const struct ob_plan *p, ob_err *e)
{
	const struct ob_jv *q = ob_json_get(p->model->config, "quantization_config");
	const char *method = ob_json_str(ob_json_get(q, "quant_method"));
	bool only_moves = p->recipe->quant == OB_QUANT_KEEP && p->recipe->dtype == OB_N_DTYPES &&
			  !p->recipe->n_rules && !p->edits->n_edited;
	if (p->model->quant || p->config_says || ob_json_type(q) != OB_JSON_OBJECT || only_moves)
		return 0;
	return ob_fail(
		e, OB_UNSUPPORTED,
		"%s is quantized with %s, which this version does not read; it can only be copied as it is",
		p->model->path, method ? method : "a method that its config.json does not name");
}

/* Every output tensor: the model's own, and behind the token embedding the head that is untied. */
static int list_sources(struct ob_plan *p, struct ob_source **list, size_t *n, ob_err *e)
{
	const struct ob_model *m = p->model;
	const struct ob_edits *x = p->edits;
	struct ob_source *s = ob_calloc(m->n_tensors + x->n_extra + 1, sizeof(*s));
	if (!s)
		return ob_fail_nomem(e, "list of output tensors");
	for (uint32_t i = 0; i < m->n_tensors; i++) {
		s[(*n)++] = (struct ob_source){ m->tensor[i].name, i, x->of ? &x->of[i] : NULL };
		for (size_t k = 0; k < x->n_extra; k++)
			if (x->extra[k].source == i)
				s[(*n)++] = (struct ob_source){ x->extra[k].name, i,
								&x->extra[k].edits };
	}
	*list = s;
	return 0;
}

/* "a.b.weight" + ".scales" -> "a.b.scales" */
static const char *part_name(struct ob_plan *p, const char *name, const struct ob_part *part,
			     ob_err *e)
{
	if (!part->suffix)
		return name;
	size_t stem = strlen(name);
	if (!part->on_name && ob_has_suffix(name, ".weight"))
		stem -= strlen(".weight");
	return ob_arena_printf(&p->arena, e, "%.*s%s", (int)stem, name, part->suffix);
}

/* A copy is what is stored, be its shape another spelling of the same bytes. */
static int copy_part(struct ob_out *o, const struct ob_tensor *t, unsigned k, ob_err *e)
{
	struct ob_part *part = &o->part.part[k];
	const struct ob_stored *s = t->part[k];
	if (part->len != s->len && !part->whole)
		return ob_fail(e, OB_MISMATCH, "%s has %llu bytes, its format says %llu", s->name,
			       (unsigned long long)s->len, (unsigned long long)part->len);
	part->dtype = s->dtype;
	part->shape = s->shape;
	part->len = s->len;
	part->padded = false;
	return 0;
}

/* The matrix that tiles and edits refer to: an edit's own view on float tensors, else the codec's. */
static int choose_view(struct ob_out *o, const struct ob_source *s, const struct ob_tensor *t,
		       ob_err *e)
{
	bool is_float = o->enc.codec == &ob_codec_float && t->enc.codec == &ob_codec_float;
	const struct ob_encoding *enc = o->enc.codec == &ob_codec_float ? &t->enc : &o->enc;
	ob_codec_rows(enc, &o->shape, &o->rows, &o->cols);
	if (!s->edits || !s->edits->n)
		return 0;
	if (is_float) {
		o->rows = s->edits->rows;
		o->cols = s->edits->cols;
	} else if (s->edits->cols != o->cols || s->edits->rows != o->rows) {
		return ob_fail(
			e, OB_UNSUPPORTED,
			"%s is a matrix of %llu x %llu in its number format, the adapter edits it as %llu x %llu; bake it with --quant none",
			o->name, (unsigned long long)o->rows, (unsigned long long)o->cols,
			(unsigned long long)s->edits->rows, (unsigned long long)s->edits->cols);
	}
	return 0;
}

static int add_piece(struct ob_plan *p, struct ob_out *o, const struct ob_source *s,
		     const struct ob_tensor *t, ob_err *e)
{
	/* The source is not read where a replacement comes first. */
	if (o->n_edits && o->edit[0].kind == OB_EDIT_REPLACE)
		return 0;
	struct ob_piece *pc = ob_arena_alloc(&p->arena, sizeof(*pc), e);
	if (!pc)
		return -1;
	*pc = (struct ob_piece){ .tensor = s->tensor, .n_rows = o->rows };
	o->piece = pc;
	o->n_pieces = 1;
	for (unsigned k = 0; k < t->n_parts; k++)
		o->in_bytes += t->part[k]->len;
	return 0;
}

static int add_out(struct ob_plan *p, struct ob_out *o, const struct ob_source *s, ob_err *e)
{
	const struct ob_tensor *t = &p->model->tensor[s->tensor];
	bool is_edited = s->edits && s->edits->n;
	uint64_t elems;
	o->name = s->name;
	o->shape = is_edited ? s->edits->shape : t->shape;
	if (!ob_shape_elems(&o->shape, &elems))
		return ob_fail(e, OB_LIMIT, "%s has more elements than 64 bits count", o->name);
	if (ob_choose_encoding(p, s, &o->shape, &o->enc, e))
		return -1;
	if (is_edited && (t->enc.codec == &ob_codec_raw || !t->enc.codec->decode))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s holds %s values, which an adapter cannot change", o->name,
			       ob_dtype_name(t->enc.dtype));
	o->copy = !is_edited && ob_encoding_equal(&o->enc, &t->enc);
	const struct ob_codec *turns = o->enc.codec->turns_conv1d ? o->enc.codec : t->enc.codec;
	if (!o->copy && turns->turns_conv1d && ob_family_conv1d(p->model))
		return ob_fail(
			e, OB_UNSUPPORTED,
			"%s: the layers of this architecture are stored [in, out], but [out, in] in the format %s; it can only be copied as it is",
			o->name, turns->name);
	o->edit = is_edited ? s->edits->edit : NULL;
	o->n_edits = is_edited ? (uint32_t)s->edits->n : 0;
	if (choose_view(o, s, t, e) || add_piece(p, o, s, t, e))
		return -1;
	o->two_pass = !o->copy && elems &&
		      ob_codec_stats(&o->enc, &o->shape, (struct ob_elems){ 0, elems });
	if (o->enc.codec->layout(&o->enc, &o->shape, &p->arena, &o->part, e))
		return -1;
	for (unsigned k = 0; k < o->part.n; k++) {
		/* A copy keeps the stored name; so does a part without a suffix. */
		o->part_name[k] = o->copy && s->name == t->name
					  ? t->part[k]->name
					  : part_name(p, o->name, &o->part.part[k], e);
		if (!o->part_name[k] || (o->copy && copy_part(o, t, k, e)))
			return -1;
	}
	p->n_late += ob_out_late_part(o) >= 0;
	o->out_bytes = ob_parts_bytes(&o->part);
	p->params += elems;
	p->n_copied += o->copy;
	p->n_edited += is_edited;
	p->n_converted += !ob_encoding_equal(&o->enc, &t->enc);
	return 0;
}

/* New parts ("x.scales") may collide with tensors that the model has. */
static int check_names(const struct ob_plan *p, ob_err *e)
{
	struct ob_map seen = { 0 };
	int rc = 0;
	for (uint32_t i = 0; i < p->n_outs && !rc; i++)
		for (unsigned k = 0; k < p->out[i].part.n && !rc; k++) {
			const char *name = p->out[i].part_name[k];
			int hit = ob_map_add(&seen, name, strlen(name), i, e);
			if (hit > 0)
				ob_fail(e, OB_MISMATCH,
					"the output would hold %s twice; leave its tensor as it is with --skip",
					name);
			rc = hit ? -1 : 0;
		}
	ob_map_free(&seen);
	return rc;
}

static int build(struct ob_plan *p, ob_err *e)
{
	struct ob_source *s = NULL;
	size_t n = 0;
	if (ob_compare_config(p, e) || refuse_unknown_format(p, e) || list_sources(p, &s, &n, e))
		return -1;
	int rc = -1;
	p->out = ob_arena_alloc(&p->arena, (n ? n : 1) * sizeof(*p->out), e);
	if (!p->out)
		goto done;
	for (size_t i = 0; i < n; i++) {
		if (add_out(p, &p->out[p->n_outs], &s[i], e))
			goto done;
		p->n_outs++;
	}
	if (check_names(p, e) || ob_choose_model_format(p, e) || ob_layout_files(p, e) ||
	    ob_make_tiles(p, e))
		goto done;
	rc = 0;
done:
	ob_free(s);
	return rc;
}

int ob_out_late_part(const struct ob_out *o)
{
	for (unsigned k = 0; k < o->part.n; k++)
		if (o->part.part[k].padded)
			return (int)k;
	return -1;
}

static uint64_t hash_u64(uint64_t h, uint64_t v)
{
	return ob_hash64(&v, sizeof(v), h);
}

static uint64_t hash_str(uint64_t h, const char *s)
{
	return ob_hash64(s, strlen(s) + 1, h);
}

static uint64_t hash_file(uint64_t h, const struct ob_file *f)
{
	h = hash_u64(h, f->stamp.size);
	h = hash_u64(h, (uint64_t)f->stamp.mtime_ns);
	return hash_u64(h, f->stamp.ino);
}

static uint64_t hash_view(uint64_t h, const struct ob_view *v)
{
	uint64_t f[] = { v->off, v->dtype, v->rows, v->cols, v->row_stride, v->col_stride };
	return v->file ? ob_hash64(f, sizeof(f), h) : h;
}

static uint64_t hash_encoding(uint64_t h, const struct ob_encoding *enc)
{
	uint64_t f[] = { enc->dtype, enc->bits, enc->group, enc->variant };
	return ob_hash64(f, sizeof(f), hash_str(h, enc->codec->name));
}

static uint64_t hash_pieces(uint64_t h, const struct ob_plan *p, const struct ob_out *o)
{
	for (uint32_t i = 0; i < o->n_pieces; i++) {
		const struct ob_piece *pc = &o->piece[i];
		uint64_t f[] = { pc->tensor,	pc->src_row, pc->n_rows,
				 pc->map.block, pc->map.a,   pc->map.stride };
		h = hash_encoding(ob_hash64(f, sizeof(f), h), &p->model->tensor[pc->tensor].enc);
	}
	return h;
}

static uint64_t fingerprint(const struct ob_plan *p)
{
	uint64_t h = 2; /* version of this recipe */
	for (size_t i = 0; i < p->model->n_files; i++)
		h = hash_file(h, p->model->file[i]);
	for (size_t i = 0; i < p->edits->n_adapters; i++)
		h = hash_file(h, p->edits->file[i]->file);
	for (size_t i = 0; i < p->n_outs; i++) {
		const struct ob_out *o = &p->out[i];
		h = hash_str(h, o->name);
		h = hash_encoding(h, &o->enc);
		uint64_t f[] = { o->rows, o->cols, o->copy };
		h = hash_pieces(ob_hash64(f, sizeof(f), h), p, o);
		h = ob_hash64(o->shape.dim, o->shape.rank * sizeof(*o->shape.dim), h);
		for (unsigned k = 0; k < o->part.n; k++) {
			h = hash_str(h, o->part_name[k]);
			h = hash_u64(h, o->part_file[k]);
			h = hash_u64(h, o->part_off[k]);
		}
		for (uint32_t k = 0; k < o->n_edits; k++) {
			const struct ob_edit *ed = &o->edit[k];
			uint64_t g[] = { ed->kind,   ed->adapter, ed->row0,
					 ed->n_rows, ed->col0,	  ed->n_cols };
			h = ob_hash64(g, sizeof(g), h);
			h = ob_hash64(&ed->coeff, sizeof(ed->coeff), h);
			h = hash_view(hash_view(h, &ed->a), &ed->b);
			if (ed->index)
				h = ob_hash64(ed->index, ed->n_rows * sizeof(*ed->index), h);
		}
	}
	for (size_t i = 0; i < p->n_files; i++)
		h = hash_u64(hash_str(h, p->file[i].name), p->file[i].size);
	for (size_t i = 0; i < p->n_meta; i++)
		h = hash_str(hash_str(h, p->meta[i].key), p->meta[i].value);
	return hash_u64(h, p->recipe->nonfinite);
}

int ob_plan_build(struct ob_plan **out, const struct ob_model *m, const struct ob_edits *x,
		  const struct ob_recipe *r, ob_err *e)
{
	struct ob_plan *p = ob_alloc(sizeof(*p));
	if (!p)
		return ob_fail_nomem(e, "plan");
	p->model = m;
	p->edits = x;
	p->recipe = r;
	p->to_file = ob_has_suffix(r->out, ".safetensors");
	if (build(p, e)) {
		ob_plan_free(p);
		return -1;
	}
	p->fingerprint = fingerprint(p);
	*out = p;
	return 0;
}

void ob_plan_free(struct ob_plan *p)
{
	if (!p)
		return;
	ob_free(p->tile);
	ob_arena_free(&p->arena);
	ob_free(p);
}
