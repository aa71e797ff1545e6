/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of torch.save since torch 1.6: a zip archive with one pickle, which says how the tensors lie
 * in the other members. Reads nothing but the directory and the pickle. Older files are read by
 * torch_legacy.c.
 */
#include "container/container.h"

#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "container/torch_dict.h"
#include "container/zip.h"

struct reader {
	struct ob_lister list;
	struct ob_zip zip;
	char prefix[256]; /* of all members: "archive/" */
};

/* The member with the bytes of a storage. */
static int find_storage(void *ctx, const struct ob_lister *list, const char *name,
			const struct ob_pstorage *s, struct ob_torch_place *at, ob_err *e)
{
	const struct reader *r = ctx;
	const struct ob_zip_member *m = NULL;
	char member[600];

	/* Keys are numbers. */
	if (s->key.n < 256 && !memchr(s->key.str, '/', s->key.n)) {
		snprintf(member, sizeof(member), "%sdata/%.*s", r->prefix, (int)s->key.n,
			 s->key.str);
		m = ob_zip_find(&r->zip, member);
	}
	if (!m)
		return ob_lister_fail(list, name, e, OB_CORRUPT,
				      "is in a storage that the archive does not have");
	if (m->deflated)
		return ob_lister_fail(list, name, e, OB_UNSUPPORTED,
				      "is in a compressed storage, which torch does not write; "
				      "repack the archive without compression");
	*at = (struct ob_torch_place){ m->off, m->size };
	return 0;
}

static int list_tensors(struct reader *r, const struct ob_zip_member *m, ob_err *e)
{
	struct ob_file *f = r->list.file;
	struct ob_arena values = { 0 };
	struct ob_pval root;
	const uint8_t *data;
	void *owned;
	int rc = ob_zip_read(&r->zip, m, OB_TORCH_PICKLE_MAX, &data, &owned, e);

	if (rc == 0)
		rc = ob_pickle_read(data, m->size, &values, f->path, &root, e);
	if (rc == 0)
		rc = ob_torch_list(&r->list, &root, m->size, find_storage, r, e);
	ob_arena_free(&values);
	ob_free(owned);
	return rc;
}

/* ---- the archive ---- */

static const struct ob_zip_member *find(const struct reader *r, const char *name)
{
	char full[sizeof(r->prefix) + 32];

	snprintf(full, sizeof(full), "%s%s", r->prefix, name);
	return ob_zip_find(&r->zip, full);
}

/* All members lie in one folder; its name is that of the file when it was saved. */
static int find_prefix(struct reader *r)
{
	const char *name = r->zip.n > 0 ? r->zip.member[0].name : "";
	size_t n = strcspn(name, "/") + 1;

	if (n > strlen(name) || n >= sizeof(r->prefix))
		return -1;
	memcpy(r->prefix, name, n);
	r->prefix[n] = '\0';
	return 0;
}

static int check_byte_order(struct reader *r, ob_err *e)
{
	const struct ob_zip_member *m = find(r, "byteorder"); /* absent before torch 2.1 */
	const uint8_t *data;
	void *owned;
	int rc = 0;

	if (!m)
		return 0;
	if (ob_zip_read(&r->zip, m, 64, &data, &owned, e) != 0)
		return -1;
	if (m->size != 6 || memcmp(data, "little", 6) != 0)
		rc = ob_fail(e, OB_UNSUPPORTED,
			     "%s was saved on a machine whose byte order is not little-endian",
			     r->list.file->path);
	ob_free(owned);
	return rc;
}

static int read_archive(struct reader *r, ob_err *e)
{
	const char *path = r->list.file->path;
	const struct ob_zip_member *pickle = NULL;

	if (find_prefix(r) == 0)
		pickle = find(r, "data.pkl");
	if (!pickle)
		return ob_fail(e, OB_UNSUPPORTED, "%s is a zip archive, but not one of torch.save",
			       path);
	if (find(r, "constants.pkl"))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s is a TorchScript program; save model.state_dict()", path);
	return check_byte_order(r, e) != 0 ? -1 : list_tensors(r, pickle, e);
}

static bool is_zip(const struct ob_file *f)
{
	return f->stamp.size >= 4 && memcmp(f->map, "PK\3\4", 4) == 0;
}

static int list_zip(struct reader *r, ob_err *e)
{
	int rc = ob_zip_open(&r->zip, r->list.file, e);

	if (rc == 0)
		rc = read_archive(r, e);
	ob_zip_close(&r->zip);
	return rc;
}

static int torch_open(struct ob_file *f, struct ob_arena *a, struct ob_listing *out, ob_err *e)
{
	struct reader r = { .list = { .file = f, .arena = a } };
	int rc;

	if (is_zip(f))
		rc = list_zip(&r, e);
	else if (ob_torch_is_legacy(f))
		rc = ob_torch_legacy_list(&r.list, e);
	else
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s is no file of torch.save: it begins neither like a zip archive "
			       "nor like the format before torch 1.6",
			       f->path);
	ob_lister_sort(&r.list);
	if (rc == 0) {
		out->meta = NULL;
		out->n_meta = 0;
		rc = ob_lister_finish(&r.list, out, e);
	}
	ob_lister_free(&r.list);
	return rc;
}

static bool torch_probe(const struct ob_file *f)
{
	return is_zip(f) || ob_torch_is_legacy(f);
}

static const char *const suffixes[] = { ".bin", ".pt", ".pth", ".ckpt", NULL };

const struct ob_container ob_container_torch = {
	.name = "torch",
	.suffix = suffixes,
	.probe = torch_probe,
	.open = torch_open,
};
