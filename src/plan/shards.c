/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output files: which stored part goes into which shard, where it lies there, and the headers.
 *
 * Shards follow the rule of huggingface_hub: tensors in order, a shard is closed before the tensor
 * that would exceed the limit, and a tensor above the limit (here also above 2 GiB) is alone in its
 * shard while the open one stays open. The parts of one tensor stay together where they fit.
 *
 * Inside a file the data begins at a multiple of 4096 and parts whose size is one come first, so that
 * nearly all bytes can be written directly; the rest follows by falling element size, which keeps every
 * tensor naturally aligned. Texts whose length only the run tells come last: until then they have the
 * room that they may need at most.
 */
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "io/io.h"
#include "plan/internal.h"

/* One stored part of the output. */
struct item {
	uint32_t out;
	uint8_t part;
	uint32_t shard;
	uint64_t len;
};

struct filler {
	uint64_t limit;
	uint32_t n_shards;
	uint32_t open; /* the shard that is being filled, when open_size > 0 or it has items */
	bool is_open;
	uint64_t open_size;
};

static uint32_t alone(struct filler *f)
{
	return f->n_shards++;
}

static uint32_t fill(struct filler *f, uint64_t len)
{
	if (f->is_open && f->open_size + len > f->limit)
		f->is_open = false;
	if (!f->is_open) {
		f->is_open = true;
		f->open = f->n_shards++;
		f->open_size = 0;
	}
	f->open_size += len;
	return f->open;
}

static bool needs_own_shard(const struct filler *f, uint64_t len)
{
	return len > f->limit || len > OB_OWN_SHARD;
}

static uint32_t assign_shards(struct ob_plan *p, struct item *item)
{
	struct filler f = { .limit = p->recipe->max_shard };
	size_t n = 0;
	for (size_t i = 0; i < p->n_outs; i++) {
		struct ob_out *o = &p->out[i];
		uint64_t total = ob_parts_bytes(&o->part);
		bool together = !needs_own_shard(&f, total);
		uint32_t shard = 0;
		if (p->to_file)
			f.n_shards = 1;
		else if (together)
			shard = fill(&f, total);
		for (unsigned k = 0; k < o->part.n; k++) {
			uint64_t len = o->part.part[k].len;
			if (!p->to_file && !together)
				shard = needs_own_shard(&f, len) ? alone(&f) : fill(&f, len);
			item[n++] = (struct item){ (uint32_t)i, (uint8_t)k, shard, len };
		}
	}
	return f.n_shards;
}

static bool is_late(const struct ob_plan *p, const struct item *i)
{
	return p->out[i->out].part.part[i->part].padded;
}

static int by_place(const void *x, const void *y, void *plan)
{
	const struct ob_plan *p = plan;
	const struct item *a = x, *b = y;
	if (a->shard != b->shard)
		return a->shard < b->shard ? -1 : 1;
	bool a_late = is_late(p, a), b_late = is_late(p, b);
	if (a_late != b_late)
		return a_late ? 1 : -1;
	bool a_odd = a->len % OB_IO_ALIGN != 0, b_odd = b->len % OB_IO_ALIGN != 0;
	if (!a_late && a_odd != b_odd)
		return a_odd ? 1 : -1;
	if (!a_late && a_odd) {
		unsigned ab = ob_dtype_bits(p->out[a->out].part.part[a->part].dtype);
		unsigned bb = ob_dtype_bits(p->out[b->out].part.part[b->part].dtype);
		if (ab != bb)
			return ab > bb ? -1 : 1;
	}
	if (a->out != b->out)
		return a->out < b->out ? -1 : 1;
	return a->part < b->part ? -1 : 1;
}

static int name_files(struct ob_plan *p, ob_err *e)
{
	const char *prefix = p->layout == OB_LAYOUT_MLX || p->model->is_file
				     ? "model"
				     : p->model->weights_prefix;
	for (size_t i = 0; i < p->n_files; i++) {
		const char *slash = strrchr(p->recipe->out, '/');
		if (p->to_file)
			p->file[i].name = ob_arena_printf(&p->arena, e, "%s",
							  slash ? slash + 1 : p->recipe->out);
		else if (p->n_files == 1)
			p->file[i].name = ob_arena_printf(&p->arena, e, "%s.safetensors", prefix);
		else
			p->file[i].name = ob_arena_printf(&p->arena, e,
							  "%s-%05zu-of-%05zu.safetensors", prefix,
							  i + 1, p->n_files);
		if (!p->file[i].name)
			return -1;
	}
	return 0;
}

/* Gives every part of one file its place and sizes the header. */
static int place(struct ob_plan *p, uint32_t shard, const struct item *item, size_t n, ob_err *e)
{
	struct ob_out_file *f = &p->file[shard];
	f->entry = ob_arena_alloc(&p->arena, n * sizeof(*f->entry), e);
	if (!f->entry)
		return -1;
	uint64_t pos = 0;
	for (size_t i = 0; i < n; i++) {
		struct ob_out *o = &p->out[item[i].out];
		const struct ob_part *part = &o->part.part[item[i].part];
		uint64_t end;
		if (!ob_add_u64(pos, part->len, &end))
			return ob_fail(e, OB_LIMIT, "%s would be larger than any file", f->name);
		f->entry[f->n_entries++] = (struct ob_st_entry){ o->part_name[item[i].part],
								 part->dtype, part->shape, pos,
								 end };
		o->part_off[item[i].part] = pos;
		o->part_file[item[i].part] = shard;
		f->n_late += part->padded;
		pos = end;
	}
	f->data_bytes = pos;
	if (ob_st_header_size(f->entry, f->n_entries, p->meta, p->n_meta, OB_IO_ALIGN,
			      &f->header_size, e))
		return -1;
	f->size = f->header_size + pos;
	for (size_t i = 0; i < n; i++)
		p->out[item[i].out].part_off[item[i].part] += f->header_size;
	p->out_bytes += pos;
	return 0;
}

/* The next of the late entries of its file, which are in the order of tensors. */
static int place_late(struct ob_plan *p, struct ob_out *o, unsigned part, size_t nth, uint64_t len,
		      ob_err *e)
{
	struct ob_out_file *f = &p->file[o->part_file[part]];
	size_t k = f->n_entries - f->n_late + nth;
	struct ob_st_entry *t = &f->entry[k];
	uint64_t *dim = ob_arena_alloc(&p->arena, sizeof(*dim), e);
	if (!dim)
		return -1;
	*dim = len;
	t->shape = (struct ob_shape){ .rank = 1, .dim = dim };
	t->begin = k ? f->entry[k - 1].end : 0;
	t->end = t->begin + len;
	f->data_bytes = t->end;
	f->size = f->header_size + t->end;
	o->part_off[part] = f->header_size + t->begin;
	o->part.part[part].shape = t->shape;
	o->part.part[part].len = len;
	return 0;
}

int ob_plan_finish(struct ob_plan *p, const uint64_t *len, ob_err *e)
{
	size_t *placed = ob_calloc(p->n_files, sizeof(*placed));
	int rc = placed ? 0 : ob_fail_nomem(e, "list of output files");
	for (size_t i = 0; i < p->n_outs && !rc; i++) {
		struct ob_out *o = &p->out[i];
		int k = ob_out_late_part(o);
		if (k >= 0)
			rc = place_late(p, o, (unsigned)k, placed[o->part_file[k]]++, len[i], e);
	}
	p->out_bytes = 0;
	for (size_t i = 0; i < p->n_files; i++)
		p->out_bytes += p->file[i].data_bytes;
	ob_free(placed);
	return rc;
}

int ob_layout_files(struct ob_plan *p, ob_err *e)
{
	size_t n = 0;
	for (size_t i = 0; i < p->n_outs; i++)
		n += p->out[i].part.n;
	struct item *item = ob_calloc(n ? n : 1, sizeof(*item));
	if (!item)
		return ob_fail_nomem(e, "list of output tensors");
	uint32_t n_shards = assign_shards(p, item);
	int rc = -1;
	p->n_files = n_shards ? n_shards : 1;
	p->file = ob_arena_alloc(&p->arena, p->n_files * sizeof(*p->file), e);
	if (!p->file || name_files(p, e))
		goto done;
	qsort_r(item, n, sizeof(*item), by_place, p);
	size_t at = 0;
	for (uint32_t s = 0; s < p->n_files; s++) {
		size_t end = at;
		while (end < n && item[end].shard == s)
			end++;
		if (place(p, s, item + at, end - at, e))
			goto done;
		at = end;
	}
	rc = 0;
done:
	ob_free(item);
	return rc;
}
