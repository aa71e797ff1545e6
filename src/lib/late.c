/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts whose length only the run tells. While it runs they lie padded at the end of their files; then
 * they move together, and headers, sizes and small files become what they are to be.
 */
#include <string.h>

#include "base/util.h"
#include "io/stage.h"
#include "lib/job.h"

struct late {
	uint64_t *len; /* per output tensor */
	char **text;
	struct ob_arena arena;
};

static int make(struct late *l, const struct ob_plan *p, ob_err *e)
{
	l->len = ob_arena_alloc(&l->arena, p->n_outs * sizeof(*l->len), e);
	l->text = ob_arena_alloc(&l->arena, p->n_outs * sizeof(*l->text), e);
	return l->len && l->text ? 0 : -1;
}

static int read_texts(struct late *l, const struct ob_plan *p, const struct ob_target *target,
		      ob_err *e)
{
	for (size_t i = 0; i < p->n_outs; i++) {
		const struct ob_out *o = &p->out[i];
		int k = ob_out_late_part(o);
		if (k < 0)
			continue;
		size_t n = (size_t)o->part.part[k].len;
		l->text[i] = ob_arena_alloc(&l->arena, n, e);
		if (!l->text[i] ||
		    ob_stage_read(target[o->part_file[k]].handle, l->text[i], n, o->part_off[k], e))
			return -1;
		l->len[i] = ob_trimmed(l->text[i], n);
	}
	return 0;
}

static int write_texts(const struct late *l, const struct ob_plan *p,
		       const struct ob_target *target, ob_err *e)
{
	for (size_t i = 0; i < p->n_outs; i++) {
		const struct ob_out *o = &p->out[i];
		int k = ob_out_late_part(o);
		if (k >= 0 && ob_stage_write(target[o->part_file[k]].handle, l->text[i],
					     (size_t)l->len[i], o->part_off[k], e))
			return -1;
	}
	return 0;
}

static int finish_files(struct oocbake_job *job, const struct ob_target *target, ob_err *e)
{
	for (size_t i = 0; i < job->plan->n_files; i++) {
		const struct ob_out_file *f = &job->plan->file[i];
		if (f->n_late && (ob_stage_shrink(target[i].handle, f->size, e) ||
				  ob_job_put_header(job, target, i, e)))
			return -1;
	}
	return 0;
}

int ob_job_settle(struct oocbake_job *job, struct ob_stage *st, const struct ob_target *target,
		  ob_err *e)
{
	struct late l = { 0 };
	int rc = -1;
	if (!job->plan->n_late)
		return 0;
	/* What follows is to be short: a run that is killed in it begins anew. */
	if (!ob_stage_flush(st, e) && !make(&l, job->plan, e) &&
	    !read_texts(&l, job->plan, target, e) && !ob_plan_finish(job->plan, l.len, e) &&
	    !write_texts(&l, job->plan, target, e) && !finish_files(job, target, e))
		rc = ob_job_export(job, e);
	ob_arena_free(&l.arena);
	return rc;
}

/* ---- verification -------------------------------------------------------------------------- */

/* The lengths in one output file. One that is not like the plan keeps the plan's: its header will differ. */
static int take_lengths(struct late *l, const struct ob_plan *p, uint32_t i, struct ob_file *f,
			ob_err *e)
{
	const struct ob_out_file *want = &p->file[i];
	struct ob_listing have = { 0 };
	ob_err why = { 0 };
	if (ob_container_safetensors.open(f, &l->arena, &have, &why) && why.code == OB_NOMEM)
		return ob_fail_nomem(e, f->path);
	if (have.n_tensors != want->n_entries)
		return 0;
	const struct ob_stored *t = have.tensor + want->n_entries - want->n_late;
	for (size_t k = 0; k < p->n_outs; k++) {
		const struct ob_out *o = &p->out[k];
		int part = ob_out_late_part(o);
		if (part >= 0 && o->part_file[part] == i && t->len <= o->part.part[part].len)
			l->len[k] = t->len;
		t += part >= 0 && o->part_file[part] == i;
	}
	return 0;
}

int ob_job_adopt_lengths(struct oocbake_job *job, struct ob_file *const *output, ob_err *e)
{
	struct ob_plan *p = job->plan;
	struct late l = { 0 };
	int rc = -1;
	if (!p->n_late)
		return 0;
	if (make(&l, p, e))
		goto done;
	for (size_t i = 0; i < p->n_outs; i++) {
		int k = ob_out_late_part(&p->out[i]);
		l.len[i] = k < 0 ? 0 : p->out[i].part.part[k].len;
	}
	for (uint32_t i = 0; i < p->n_files; i++)
		if (p->file[i].n_late && take_lengths(&l, p, i, output[i], e))
			goto done;
	rc = ob_plan_finish(p, l.len, e) || ob_job_export(job, e) ? -1 : 0;
done:
	ob_arena_free(&l.arena);
	return rc;
}
