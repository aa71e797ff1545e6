/* SPDX-License-Identifier: Apache-2.0 */
/* The table of containers, and the choice among them. */
#include "container/container.h"

#include "base/util.h"

const struct ob_container *const ob_containers[] = {
	&ob_container_safetensors,
	&ob_container_npz, /* before torch: both are zip archives */
	&ob_container_torch,
	NULL,
};

static bool has_suffix(const struct ob_container *c, const char *path)
{
	for (const char *const *s = c->suffix; *s; s++)
		if (ob_has_suffix(path, *s))
			return true;
	return false;
}

int ob_container_list(struct ob_file *f, struct ob_arena *a, struct ob_listing *out, ob_err *e)
{
	for (const struct ob_container *const *c = ob_containers; *c; c++)
		if (has_suffix(*c, f->path))
			return (*c)->open(f, a, out, e);
	/* Files of download caches are called by their hash. */
	for (const struct ob_container *const *c = ob_containers; *c; c++)
		if ((*c)->probe(f))
			return (*c)->open(f, a, out, e);
	return ob_fail(
		e, OB_UNSUPPORTED,
		"%s is in none of the tensor file formats that are read here; its name should "
		"end in .safetensors, .bin, .pt, .pth, .ckpt or .npz",
		f->path);
}
