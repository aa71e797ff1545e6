/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a model is: a path, or a name in the local Hugging Face cache.
 *
 *	<cache>/models--org--name/refs/<revision>	holds a commit
 *	<cache>/models--org--name/snapshots/<commit>/	links to the files
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/internal.h"

#define REF_MAX 256u /* bytes of a ref file; a commit has 40 digits */

/* Where huggingface_hub keeps its cache, the strongest first. */
static const struct {
	const char *variable, *below;
} caches[] = {
	{ "HF_HUB_CACHE", "" },
	{ "HUGGINGFACE_HUB_CACHE", "" },
	{ "HF_HOME", "/hub" },
	{ "XDG_CACHE_HOME", "/huggingface/hub" },
	{ "HOME", "/.cache/huggingface/hub" },
};
enum { N_CACHES = sizeof(caches) / sizeof(*caches) };

/* A name as a user gives it: org/name@revision. */
struct repo {
	const char *folder; /* "models--org--name" */
	const char *revision;
	bool has_revision; /* given, not assumed */
};

static bool is_folder(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* "name" or "org/name" in the characters that the hub allows. */
static bool is_repo_name(const char *s, size_t n)
{
	size_t slashes = 0;

	for (size_t i = 0; i < n; i++) {
		if (s[i] == '/')
			slashes++;
		else if (!isascii(s[i]) || (!isalnum((unsigned char)s[i]) && !strchr("-_.", s[i])))
			return false;
	}
	return n > 0 && slashes <= 1 && s[0] != '/' && s[0] != '.' && s[n - 1] != '/';
}

/* Revisions may have slashes ("refs/pr/1"), but may not climb out of the cache. */
static bool is_revision(const char *s)
{
	for (;;) {
		size_t n = strcspn(s, "/");

		if (n == 0 || (n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.'))
			return false;
		if (!s[n])
			return true;
		s += n + 1;
	}
}

/* 1: *r is filled, 0: this cannot be the name of a repository. */
static int parse_name(struct ob_arena *a, const char *name, struct repo *r, ob_err *e)
{
	size_t n = strcspn(name, "@");
	const char *slash = memchr(name, '/', n);
	size_t org = slash ? (size_t)(slash - name) : 0;

	r->has_revision = name[n] == '@';
	r->revision = r->has_revision ? name + n + 1 : "main";
	if (!is_repo_name(name, n) || !is_revision(r->revision))
		return 0;
	if (slash)
		r->folder = ob_arena_printf(a, e, "models--%.*s--%.*s", (int)org, name,
					    (int)(n - org - 1), slash + 1);
	else
		r->folder = ob_arena_printf(a, e, "models--%.*s", (int)n, name);
	return r->folder ? 1 : -1;
}

/* The commit that a branch or tag stands for: 1, or 0 when the cache has no such ref. */
static int read_ref(struct ob_arena *a, const char *repo, const char *revision, const char **commit,
		    ob_err *e)
{
	char *path = ob_arena_printf(a, e, "%s/refs/%s", repo, revision);
	struct stat st;
	size_t len;
	char *text;
	int rc;

	if (!path)
		return -1;
	if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
		return 0;
	if (ob_file_slurp(path, REF_MAX, &text, &len, e) != 0)
		return -1;
	text[strcspn(text, " \t\r\n")] = '\0';
	rc = ob_name_check(text, path, e);
	if (rc == 0)
		*commit = ob_arena_strndup(a, text, strlen(text), e);
	ob_free(text);
	return rc == 0 && *commit ? 1 : -1;
}

/* 1: *path is the snapshot, 0: the cache lacks it. */
static int find_snapshot(struct ob_arena *a, const char *repo, const struct repo *r,
			 const char **path, ob_err *e)
{
	const char *commit = r->revision;
	char *snapshot;

	if (read_ref(a, repo, r->revision, &commit, e) < 0)
		return -1;
	snapshot = ob_arena_printf(a, e, "%s/snapshots/%s", repo, commit);
	if (!snapshot)
		return -1;
	*path = snapshot;
	return is_folder(snapshot);
}

static int search_caches(struct ob_arena *a, const char *name, const struct repo *r,
			 const char **path, ob_err *e)
{
	const char *looked = "", *without = NULL;

	for (int i = 0; i < N_CACHES; i++) {
		const char *base = getenv(caches[i].variable);
		const char *cache, *repo;
		int found;

		if (!base || !*base)
			continue;
		cache = ob_arena_printf(a, e, "%s%s", base, caches[i].below);
		if (!cache)
			return -1;
		looked = ob_arena_printf(a, e, "%s%s%s", looked, *looked ? ", " : "", cache);
		repo = ob_arena_printf(a, e, "%s/%s", cache, r->folder);
		if (!looked || !repo)
			return -1;
		if (!is_folder(repo))
			continue;
		found = find_snapshot(a, repo, r, path, e);
		if (found)
			return found < 0 ? -1 : 0;
		without = repo;
	}
	if (without)
		return ob_fail(e, OB_IO, "%s has no snapshot of revision %s; download it%s",
			       without, r->revision,
			       r->has_revision ? "" : ", or name one that is there: NAME@REVISION");
	if (!*looked)
		return ob_fail(e, OB_IO,
			       "there is no file or folder %s, and none of HF_HUB_CACHE, "
			       "HF_HOME, XDG_CACHE_HOME and HOME says where the Hugging Face cache "
			       "is",
			       name);
	return ob_fail(e, OB_IO,
		       "there is no file or folder %s, and no model of that name in the "
		       "Hugging Face cache (looked in %s); download it first",
		       name, looked);
}

int ob_locate_model(struct ob_arena *a, const char *name, const char **path, ob_err *e)
{
	size_t len = strlen(name);
	struct repo r;
	struct stat st;
	int rc;

	if (stat(name, &st) == 0) {
		while (len > 1 && name[len - 1] == '/')
			len--;
		*path = ob_arena_strndup(a, name, len, e);
		return *path ? 0 : -1;
	}
	if (errno != ENOENT && errno != ENOTDIR)
		return ob_fail_sys(e, OB_IO, errno, "cannot examine %s", name);
	rc = parse_name(a, name, &r, e);
	if (rc == 0)
		return ob_fail(e, OB_IO, "there is no file or folder %s", name);
	return rc < 0 ? -1 : search_caches(a, name, &r, path, e);
}
