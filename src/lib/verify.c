/* SPDX-License-Identifier: Apache-2.0 */
/* Compares an output with what its inputs and options give: sizes, headers, small files, then every
 * byte of every tensor. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "engine/journal.h"
#include "io/file.h"
#include "kernels/gemm.h"
#include "lib/job.h"

struct header_check {
	const struct ob_file *file;
};

static int compare_header(void *ctx, const void *data, size_t n, uint64_t off, ob_err *e)
{
	const struct header_check *c = ctx;
	char have[4096];
	const char *want = data;
	while (n) {
		size_t m = n < sizeof(have) ? n : sizeof(have);
		if (ob_file_read(c->file, have, m, off, e))
			return -1;
		if (memcmp(have, want, m))
			return ob_fail(
				e, OB_VERIFY,
				"%s: the header differs from what this bake gives, near byte %llu",
				c->file->path, (unsigned long long)off);
		want += m;
		off += m;
		n -= m;
	}
	return 0;
}

/* A file that is missing or no file is a difference; what the system refuses is a failure. */
static int cannot_open(const ob_err *why, ob_err *e)
{
	bool is_absent = why->code == OB_CORRUPT || why->sys == ENOENT || why->sys == ENOTDIR ||
			 why->sys == ELOOP;
	return ob_fail(e, is_absent ? OB_VERIFY : why->code, "%s", why->msg);
}

static int open_output(struct oocbake_job *job, size_t i, struct ob_file **f, ob_err *e)
{
	const struct ob_plan *p = job->plan;
	const struct ob_out_file *want = &p->file[i];
	ob_err why = { 0 };
	struct ob_arena a = { 0 };
	const char *path = p->to_file ? job->output
				      : ob_arena_printf(&a, e, "%s/%s", job->output, want->name);
	int rc = -1;
	if (!path)
		goto done;
	if (ob_file_open(f, path, &why)) {
		cannot_open(&why, e);
		goto done;
	}
	rc = 0;
done:
	ob_arena_free(&a);
	return rc;
}

static int check_output(const struct ob_plan *p, size_t i, struct ob_file *f, ob_err *e)
{
	const struct ob_out_file *want = &p->file[i];
	struct header_check c = { f };
	if (f->stamp.size != want->size)
		return ob_fail(e, OB_VERIFY, "%s has %llu bytes, this bake gives %llu", f->path,
			       (unsigned long long)f->stamp.size, (unsigned long long)want->size);
	if (ob_st_header_write(want->entry, want->n_entries, p->meta, p->n_meta, want->header_size,
			       compare_header, &c, e))
		return -1;
	ob_file_enable_direct(f);
	return 0;
}

/* Weight files that are not the bake's would be loaded along with it. */
static int find_strangers(const struct oocbake_job *job, ob_err *e)
{
	const struct ob_plan *p = job->plan;
	DIR *d = opendir(job->output);
	if (!d && (errno == ENOENT || errno == ENOTDIR))
		return ob_fail(e, OB_VERIFY, "%s is no folder", job->output);
	if (!d)
		return ob_fail_sys(e, OB_IO, errno, "cannot read the folder %s", job->output);
	struct dirent *ent;
	int rc = 0;
	while (!rc && (errno = 0, ent = readdir(d))) {
		if (!ob_has_suffix(ent->d_name, ".safetensors") &&
		    !ob_has_suffix(ent->d_name, ".safetensors.index.json"))
			continue;
		bool known = false;
		for (size_t i = 0; i < p->n_files && !known; i++)
			known = !strcmp(ent->d_name, p->file[i].name);
		for (size_t i = 0; i < job->small.n && !known; i++)
			known = !strcmp(ent->d_name, job->small.file[i].rel);
		if (!known)
			rc = ob_fail(e, OB_VERIFY, "%s/%s is not part of this bake", job->output,
				     ent->d_name);
	}
	if (!rc && errno)
		rc = ob_fail_sys(e, OB_IO, errno, "cannot read the folder %s", job->output);
	closedir(d);
	return rc;
}

#define BLOCK 65536u

/* Both files are read in step; neither is held whole. */
static int compare_copy(const char *path, const struct ob_file *have, const char *from, ob_err *e)
{
	struct ob_file *want = NULL;
	char *buf = ob_alloc(2 * BLOCK);
	int rc = -1;
	if (!buf) {
		ob_fail_nomem(e, "buffer");
		goto done;
	}
	if (ob_file_open(&want, from, e))
		goto done;
	if (want->stamp.size != have->stamp.size) {
		ob_fail(e, OB_VERIFY, "%s differs from %s in size", path, from);
		goto done;
	}
	for (uint64_t off = 0; off < want->stamp.size; off += BLOCK) {
		uint64_t left = want->stamp.size - off;
		size_t n = left < BLOCK ? (size_t)left : BLOCK;
		if (ob_file_read(have, buf, n, off, e) ||
		    ob_file_read(want, buf + BLOCK, n, off, e))
			goto done;
		if (memcmp(buf, buf + BLOCK, n)) {
			ob_fail(e, OB_VERIFY, "%s differs from %s", path, from);
			goto done;
		}
	}
	rc = 0;
done:
	ob_file_close(want);
	ob_free(buf);
	return rc;
}

static int compare_small(struct oocbake_job *job, const struct ob_small_file *s, ob_err *e)
{
	struct ob_arena a = { 0 };
	struct ob_file *have = NULL;
	ob_err why = { 0 };
	int rc = -1;
	const char *path = ob_arena_printf(&a, e, "%s/%s", job->output, s->rel);
	if (!path)
		goto done;
	if (ob_file_open(&have, path, &why))
		cannot_open(&why, e);
	else if (s->copy_from)
		rc = compare_copy(path, have, s->copy_from, e);
	else if (have->stamp.size != s->len || (s->len && memcmp(have->map, s->data, s->len)))
		ob_fail(e, OB_VERIFY, "%s differs from what this bake gives", path);
	else
		rc = 0;
done:
	ob_file_close(have);
	ob_arena_free(&a);
	return rc;
}

int ob_job_verify(struct oocbake_job *job, oocbake_progress_fn fn, void *user, ob_err *e)
{
	const struct ob_plan *p = job->plan;
	struct ob_target *target = ob_calloc(p->n_files, sizeof(*target));
	struct ob_file **file = ob_calloc(p->n_files, sizeof(*file));
	struct ob_journal *journal = NULL;
	int rc = -1;
	if (!target || !file) {
		ob_fail_nomem(e, "list of output files");
		goto done;
	}
	for (size_t i = 0; i < p->n_files; i++) {
		if (open_output(job, i, &file[i], e))
			goto done;
		target[i].reference = file[i];
	}
	if (ob_job_adopt_lengths(job, file, e))
		goto done;
	for (size_t i = 0; i < p->n_files; i++)
		if (check_output(p, i, file[i], e))
			goto done;
	if (!p->to_file && find_strangers(job, e))
		goto done;
	for (size_t i = 0; i < job->small.n; i++)
		if (compare_small(job, &job->small.file[i], e))
			goto done;
	if (job->depth == OB_DEPTH_SAMPLE) {
		if (ob_journal_new(&journal, p, e))
			goto done;
		ob_journal_keep_unsampled(journal);
	}
	struct ob_run run = { .target = target, .verify = true, .journal = journal };
	if (job->depth != OB_DEPTH_HEADERS) {
		rc = (p->edits->n_edited && ob_gemm_init(e)) ||
				     ob_job_confine(job, NULL, target, 1, e)
			     ? -1
			     : ob_job_main_run(job, run, fn, user, e);
	} else {
		job->run = (struct ob_run){ .verify = true };
		rc = 0;
	}
done:
	ob_journal_free(journal);
	for (size_t i = 0; file && i < p->n_files; i++)
		ob_file_close(file[i]);
	ob_free(file);
	ob_free(target);
	return rc;
}
