/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What decides the bytes of an output, as text: who makes it, from which files, by which plan. It lies
 * beside a staged output, so that a later run knows whether it may go on with it.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/util.h"
#include "kernels/gemm.h"
#include "lib/job.h"
#include "oocbake/version.h"

#define EDGE (64u << 10) /* bytes at both ends of a file, where the headers are */
#define INPUT "input size=%" PRIu64 " mtime=%" PRId64 " inode=%" PRIu64 " ends=%" PRIx64 " "

struct input {
	uint64_t size;
	int64_t mtime_ns;
	uint64_t ino, ends;
};

/* Without the device: its number is another after a reboot. */
static struct input input_of(const struct ob_file *f)
{
	struct input in = { f->stamp.size, f->stamp.mtime_ns, f->stamp.ino, 0 };
	uint64_t n = ob_min_u64(in.size, EDGE), last = in.size - n;
	if (f->map) {
		in.ends = ob_hash64(f->map, n, 0);
		in.ends = ob_hash64(f->map + last, n, in.ends);
	}
	ob_file_drop(f, 0, n);
	ob_file_drop(f, last, n);
	return in;
}

static void add_input(struct ob_text *t, const struct ob_file *f)
{
	char path[4 * PATH_MAX];
	struct input in = input_of(f);
	ob_text_printf(t, INPUT "%s\n", in.size, in.mtime_ns, in.ino, in.ends,
		       ob_printable(f->path, path, sizeof(path)));
}

int ob_job_facts(const struct oocbake_job *job, struct ob_text *t, ob_err *e)
{
	ob_text_printf(t, "program oocbake %s\njournal 1\n", OOCBAKE_VERSION);
	for (size_t i = 0; i < job->model->n_files; i++)
		add_input(t, job->model->file[i]);
	for (size_t i = 0; i < job->edits->n_adapters; i++)
		add_input(t, job->edits->file[i]->file);
	/* All kernels that fuse give the same sums. */
	if (!job->plan->edits->n_edited)
		ob_text_printf(t, "sums none\n");
	else if (ob_gemm_is_fma())
		ob_text_printf(t, "sums fused\n");
	else
		ob_text_printf(t, "sums BLIS %s %s\n", ob_gemm_version(), ob_gemm_arch());
	ob_text_printf(t, "plan %016" PRIx64 "\n", job->plan->fingerprint);
	return t->failed ? ob_fail_nomem(e, "description of the run") : 0;
}

/* ---- comparison ---------------------------------------------------------------------------- */

/* A line, and behind it the next. */
struct line {
	const char *text;
	int len;
};

static struct line next_line(const char **at)
{
	struct line l = { *at, (int)strcspn(*at, "\n") };
	*at += l.len;
	*at += **at == '\n';
	return l;
}

static bool equal(struct line a, struct line b)
{
	return a.len == b.len && !memcmp(a.text, b.text, (size_t)a.len);
}

/* Returns where the path begins, NULL if it is no input. */
static const char *parse_input(struct line l, struct input *in)
{
	int n = 0;
	if (sscanf(l.text, INPUT "%n", &in->size, &in->mtime_ns, &in->ino, &in->ends, &n) != 4 ||
	    n > l.len)
		return NULL;
	return l.text + n;
}

static int path_len(struct line l, const char *path)
{
	return l.len - (int)(path - l.text);
}

/* Writes what differs; false when nothing does. A path may: the file is the same. */
static bool inputs_differ(struct line was, struct line is, char *why, size_t size)
{
	struct input a, b;
	const char *old = parse_input(was, &a), *new = parse_input(is, &b);
	if (!old && !new)
		return false;
	if (!new)
		snprintf(why, size, "the earlier run read %.*s, too", path_len(was, old), old);
	else if (!old)
		snprintf(why, size, "the earlier run did not read %.*s", path_len(is, new), new);
	else if (a.size != b.size)
		snprintf(why, size, "%.*s has %" PRIu64 " bytes and had %" PRIu64 " then",
			 path_len(is, new), new, b.size, a.size);
	else if (a.mtime_ns != b.mtime_ns)
		snprintf(why, size, "%.*s was written to since, or is another file",
			 path_len(is, new), new);
	else if (a.ino != b.ino)
		snprintf(why, size, "%.*s is another file", path_len(is, new), new);
	else if (a.ends != b.ends)
		snprintf(why, size, "%.*s has other contents", path_len(is, new), new);
	else
		return false;
	return true;
}

static bool starts(struct line l, const char *word)
{
	return !strncmp(l.text, word, strlen(word));
}

static void lines_differ(struct line was, struct line is, char *why, size_t size)
{
	if (starts(was, "plan ") && starts(is, "plan "))
		snprintf(why, size, "its options were others");
	else
		snprintf(why, size, "it had \"%.*s\" where this one has \"%.*s\"", was.len,
			 was.text, is.len, is.text);
}

int ob_job_compare_facts(const char *was, const char *is, const char *where, ob_err *e)
{
	char why[700] = "";
	while (!*why && (*was || *is)) {
		struct line a = next_line(&was), b = next_line(&is);
		struct input in;
		if (equal(a, b) || inputs_differ(a, b, why, sizeof(why)))
			continue;
		if (!parse_input(a, &in))
			lines_differ(a, b, why, sizeof(why));
	}
	if (!*why)
		return 0;
	return ob_fail(
		e, OB_MISMATCH,
		"the run that left %s cannot be resumed: %s; give what it was given, or start again without --resume",
		where, why);
}
