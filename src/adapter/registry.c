/* SPDX-License-Identifier: Apache-2.0 */
/* The readers of adapter formats, the choice between them, and the results they fill. */
#include <math.h>
#include <string.h>

#include "adapter/names.h"
#include "adapter/reader.h"

const struct ob_adapter_reader *const ob_adapter_readers[] = {
	&ob_reader_peft,
	&ob_reader_mlx,
	NULL,
};

static int choose(const struct ob_adapter_file *f, const struct ob_adapter_reader **best, ob_err *e)
{
	const struct ob_adapter_reader *rival = NULL;
	int top = 0;

	*best = NULL;
	for (const struct ob_adapter_reader *const *r = ob_adapter_readers; *r; r++) {
		int bid = (*r)->bid(f);

		if (bid > top) {
			*best = *r;
			rival = NULL;
			top = bid;
		} else if (bid == top && bid) {
			rival = *r;
		}
	}
	if (rival)
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s: could be an adapter of the format %s or %s; "
			       "its adapter_config.json is needed to decide",
			       f->path, (*best)->name, rival->name);
	if (*best)
		return 0;
	return ob_fail(e, OB_UNSUPPORTED,
		       "%s: no adapter that this version knows: none of its %zu "
		       "keys is one of an adapter (the first is \"%s\")",
		       f->path, f->list.n_tensors,
		       f->list.n_tensors ? OB_SHOWN(f->list.tensor[0].name) : "");
}

int ob_adapter_read(const struct ob_adapter_file *f, struct ob_reader_result *out, ob_err *e)
{
	const struct ob_adapter_reader *reader;
	size_t keys;

	if (ob_refuse(f, e) != 0 || choose(f, &reader, e) != 0 || ob_result_init(out, f, e) != 0 ||
	    reader->read(f, out, e) != 0)
		return -1;
	keys = out->n_ignored;
	for (size_t i = 0; i < out->n_changes; i++)
		keys += out->change[i].n_keys;
	if (keys != f->list.n_tensors)
		return ob_fail(e, OB_INTERNAL, "%s: the reader %s accounted for %zu of %zu keys",
			       f->path, reader->name, keys, f->list.n_tensors);
	return 0;
}

int ob_result_init(struct ob_reader_result *out, const struct ob_adapter_file *f, ob_err *e)
{
	size_t n = f->list.n_tensors;

	*out = (struct ob_reader_result){ .family = "", .alpha = NAN };
	out->change = ob_arena_alloc(f->arena, n * sizeof(*out->change), e);
	out->ignored = ob_arena_alloc(f->arena, n * sizeof(*out->ignored), e);
	out->note = ob_arena_alloc(f->arena, (n + 1) * sizeof(*out->note), e);
	return out->change && out->ignored && out->note ? 0 : -1;
}

int ob_result_ignore(struct ob_reader_result *out, const struct ob_adapter_file *f, const char *key,
		     const char *reason, ob_err *e)
{
	const char *text = ob_arena_printf(f->arena, e, "%s (%s)", key, reason);

	if (!text)
		return -1;
	out->ignored[out->n_ignored++] = text;
	return 0;
}

struct ob_change *ob_result_change(struct ob_reader_result *out, const struct ob_adapter_file *f,
				   enum ob_change_kind kind, const char *path, const char *param,
				   const char *key, ob_err *e)
{
	struct ob_change *c = &out->change[out->n_changes];

	*c = (struct ob_change){
		.kind = kind, .path = path, .param = param, .key = key, .coeff = 1, .n_keys = 1
	};
	c->module = ob_name_stripped(path, f->arena, e);
	if (!c->module)
		return NULL;
	out->n_changes++;
	return c;
}
