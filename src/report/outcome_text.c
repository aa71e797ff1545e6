/* SPDX-License-Identifier: Apache-2.0 */
/* Plan and result for people. */
#include <math.h>
#include <string.h>

#include "base/util.h"
#include "report/internal.h"

#define NAME 200

static void show_adapters(const struct ob_plan *p, struct ob_text *t)
{
	char name[NAME];
	for (size_t i = 0; i < p->edits->n_adapters; i++) {
		const struct ob_adapter_info *a = &p->edits->adapter[i];
		ob_text_printf(t, "adapter   %s, %s, scale %g: %zu/%zu keys matched, %zu tensors",
			       ob_printable(a->path, name, sizeof(name)), a->family, a->scale,
			       a->used + a->ignored, a->keys, a->modules);
		if (a->rank_max && a->rank_min == a->rank_max)
			ob_text_printf(t, ", rank %llu", (unsigned long long)a->rank_max);
		else if (a->rank_max)
			ob_text_printf(t, ", rank %llu to %llu", (unsigned long long)a->rank_min,
				       (unsigned long long)a->rank_max);
		if (a->names)
			ob_text_printf(t, ", names %s", ob_printable(a->names, name, sizeof(name)));
		ob_text_printf(t, "\n");
	}
}

static void show_sizes(const struct ob_outcome *o, struct ob_text *t)
{
	const struct ob_plan *p = o->plan;
	char name[NAME], size[32], count[32], enc[96];
	ob_text_printf(t, "model     %s: %s weights in %zu tensors, %s, %.2f bits per weight\n",
		       ob_printable(p->model->path, name, sizeof(name)),
		       ob_count_text(p->model->params, count, sizeof(count)), p->model->n_tensors,
		       ob_size_text(p->model->bytes, size, sizeof(size)),
		       ob_bits_per_weight(p->model->bytes, p->model->params));
	show_adapters(p, t);
	ob_text_printf(t, "output    %s: %s, %.2f bits per weight%s%s, %zu weight file%s\n",
		       ob_printable(o->output, name, sizeof(name)),
		       ob_size_text(p->out_bytes, size, sizeof(size)),
		       ob_bits_per_weight(p->out_bytes, p->params), p->quant ? ", " : "",
		       p->quant ? ob_encoding_text(p->quant, enc, sizeof(enc)) : "", p->n_files,
		       p->n_files == 1 ? "" : "s");
	ob_text_printf(t, "tensors   %zu: %zu edited, %zu converted, %zu copied byte for byte\n",
		       p->n_outs, p->n_edited, p->n_converted, p->n_copied);
}

static void show_plan(const struct ob_outcome *o, struct ob_text *t)
{
	const struct ob_plan *p = o->plan;
	char name[NAME], size[32];
	for (size_t i = 0; i < p->n_files; i++)
		ob_text_printf(t, "file      %s  %s, %zu tensors\n",
			       ob_printable(p->file[i].name, name, sizeof(name)),
			       ob_size_text(p->file[i].size, size, sizeof(size)),
			       p->file[i].n_entries);
	for (size_t i = 0; i < o->small->n; i++)
		ob_text_printf(t, "file      %s  %s\n",
			       ob_printable(o->small->file[i].rel, name, sizeof(name)),
			       o->small->file[i].copy_from ? "copied" : "written");
	ob_text_printf(t, "memory    %s with %u workers",
		       ob_size_text(o->budget->need, size, sizeof(size)), o->budget->workers);
	ob_text_printf(t, "; at least %s\n", ob_size_text(o->budget->minimum, size, sizeof(size)));
	ob_text_printf(
		t, "time      %.0f s if the disk moves %.0f GB/s, reading and writing together\n",
		ceil(ob_expected_seconds(p)), OB_ASSUMED_DISK_RATE / 1e9);
}

static void show_survival(const struct ob_outcome *o, struct ob_text *t)
{
	struct ob_survival worst[OB_WORST], all;
	unsigned n;
	char name[NAME];
	all = ob_survival_model(o, worst, &n);
	if (!all.has)
		return;
	ob_text_printf(
		t,
		"effect    %.1f %% of the adapter is in the output, correlation %.4f, %.1f %% of the sampled values differ\n",
		100 * all.kept, all.correlation, 100 * all.changed);
	/* Where the format keeps everything there is no worst. */
	for (unsigned i = 0; i < n && i < 3 && worst[i].correlation < 0.9; i++)
		ob_text_printf(t, "          least in %s: correlation %.3f\n",
			       ob_printable(o->plan->out[worst[i].out].name, name, sizeof(name)),
			       worst[i].correlation);
}

static void show_result(const struct ob_outcome *o, struct ob_text *t)
{
	const struct ob_run *r = o->run;
	uint64_t moved = r->bytes_read + r->bytes_written;
	char size[32];
	ob_text_printf(t, "time      %.2f s, %.2f GB/s read and written", o->seconds,
		       r->seconds > 0 ? (double)moved / r->seconds / 1e9 : 0);
	if (r->disk_busy > 0 && r->seconds > 0.2)
		ob_text_printf(t,
			       "; the disk was busy %.0f %% of the time and then moved %.2f GB/s",
			       100 * r->disk_busy / r->seconds, (double)moved / r->disk_busy / 1e9);
	ob_text_printf(t, "\nlimit     %s; I/O %s%s, %u workers busy %.0f %%, %.2f CPU seconds\n",
		       r->busy > 0.8 * r->seconds * o->budget->workers ? "arithmetic" : "disk",
		       r->backend ? r->backend : "none",
		       r->is_direct ? ", direct" : ", through the page cache", o->budget->workers,
		       r->seconds > 0 ? 100 * r->busy / (r->seconds * o->budget->workers) : 0,
		       o->cpu_seconds);
	ob_text_printf(t, "memory    %s at the peak",
		       ob_size_text(o->peak_rss, size, sizeof(size)));
	ob_text_printf(t, " of %s planned\n", ob_size_text(o->budget->need, size, sizeof(size)));
}

static void show_verified(const struct ob_outcome *o, struct ob_text *t)
{
	if (!o->depth)
		return;
	bool is_full = !strcmp(o->depth, "full");
	if (!o->verified)
		ob_text_printf(t,
			       "verified  %s was read back from the disk and is what was written\n",
			       is_full ? "every byte" : "a sample of every tensor");
	else if (!strcmp(o->depth, "headers"))
		ob_text_printf(
			t,
			"verified  sizes, headers and small files are what this bake gives; no weights were compared\n");
	else
		ob_text_printf(t, "verified  %s of the output is what this bake gives\n",
			       is_full ? "every byte" : "a sample of every tensor");
}

int ob_outcome_text(const struct ob_outcome *o, struct ob_text *t, ob_err *e)
{
	show_sizes(o, t);
	if (!o->run) {
		show_plan(o, t);
		return ob_text_done(t, e);
	}
	if (!o->verified)
		show_survival(o, t);
	show_result(o, t);
	show_verified(o, t);
	return ob_text_done(t, e);
}
