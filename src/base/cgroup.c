/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds the groups of this process and reads their limits.
 *
 * Each controller is looked up on its own: a machine may have the memory controller in v1 and still
 * show a v2 line. A controller that is absent from a hierarchy has no files there and limits
 * nothing, so every hierarchy that might carry it is asked.
 */
#include "base/cgroup.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "base/util.h"

#define NONE UINT64_MAX
/* v1 writes "no limit" as the largest multiple of a page that fits a signed 64-bit number. */
#define V1_UNLIMITED 9223372036854710272ull /* with 64 KiB pages, the least of them */

typedef void (*line_fn)(void *ctx, char *line);

/* Calls fn for every line of the file that fits the buffer. */
static void each_line(const char *root, const char *path, line_fn fn, void *ctx)
{
	char buf[2 * PATH_MAX];
	bool whole = true;
	FILE *f;

	snprintf(buf, sizeof(buf), "%s%s", root, path);
	f = fopen(buf, "re");
	if (!f)
		return;
	while (fgets(buf, sizeof(buf), f)) {
		size_t n = strcspn(buf, "\n");
		bool ends = buf[n] == '\n' || feof(f);

		buf[n] = '\0';
		if (whole && ends)
			fn(ctx, buf);
		whole = ends;
	}
	fclose(f);
}

/* Is `word` in a list separated by commas? */
static bool in_list(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (;; list++) {
		size_t len = strcspn(list, ",");

		if (len == n && memcmp(list, word, n) == 0)
			return true;
		list += len;
		if (*list == '\0')
			return false;
	}
}

/* A group, while it is looked for. */
struct group {
	const char *root;
	const char *controller; /* NULL: the v2 hierarchy */
	char path[PATH_MAX];	/* inside the hierarchy; "" until found */
	char dir[PATH_MAX];	/* where it is mounted; "" until found */
	size_t top;		/* bytes of dir that are the mount point */
};

/* "ID:CONTROLLERS:PATH" */
static void take_path(void *ctx, char *line)
{
	struct group *g = ctx;
	char *list = strchr(line, ':');
	char *path = list ? strchr(list + 1, ':') : NULL;

	if (!path)
		return;
	*path++ = '\0';
	list++;
	if (g->controller ? in_list(list, g->controller) : *list == '\0')
		snprintf(g->path, sizeof(g->path), "%s", path);
}

/* The kernel writes blanks and backslashes in paths as three octal digits. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++)
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	*to = '\0';
}

/* What of `path` lies below `base`, or NULL. */
static const char *below(const char *path, const char *base)
{
	size_t n = strcmp(base, "/") == 0 ? 0 : strlen(base);

	if (strncmp(path, base, n) != 0 || (path[n] != '/' && path[n] != '\0'))
		return NULL;
	/* Outside the namespace of this process. */
	if (strstr(path + n, "/.."))
		return NULL;
	return strcmp(path + n, "/") == 0 ? "" : path + n;
}

/* "ID PARENT DEV ROOT MOUNT_POINT OPTIONS [FIELDS] - TYPE SOURCE OPTIONS" */
static void take_mount(void *ctx, char *line)
{
	struct group *g = ctx;
	char *field[5], *type, *options, *save = NULL;
	char *tail = strstr(line, " - ");
	const char *rest;

	if (!tail)
		return;
	*tail = '\0';
	for (int i = 0; i < 5; i++) {
		field[i] = strtok_r(i ? NULL : line, " ", &save);
		if (!field[i])
			return;
	}
	type = strtok_r(tail + 3, " ", &save);
	options = type && strtok_r(NULL, " ", &save) ? strtok_r(NULL, " ", &save) : NULL;
	if (!options || strcmp(type, g->controller ? "cgroup" : "cgroup2") != 0 ||
	    (g->controller && !in_list(options, g->controller)))
		return;
	unescape(field[3]);
	unescape(field[4]);
	rest = below(g->path, field[3]);
	/* The hierarchy may be mounted several times: a mount that shows the group wins. Where
	 * none does, as in some containers, the mount point is the group. */
	if (g->dir[0] && !rest)
		return;
	g->top = strlen(field[4]);
	snprintf(g->dir, sizeof(g->dir), "%s%s", field[4], rest ? rest : "");
}

static bool find_group(struct group *g)
{
	each_line(g->root, "/proc/self/cgroup", take_path, g);
	if (g->path[0])
		each_line(g->root, "/proc/self/mountinfo", take_mount, g);
	return g->dir[0] != '\0';
}

/* To the parent; false when g was the top. */
static bool go_up(struct group *g)
{
	char *slash = strrchr(g->dir + g->top, '/');

	if (!slash)
		return false;
	*slash = '\0';
	return true;
}

/* Finds "NAME VALUE" in a file; an empty name takes the first line. */
struct value {
	const char *name;
	char text[64];
};

static void take_value(void *ctx, char *line)
{
	struct value *v = ctx;
	size_t n = strlen(v->name);

	if (!v->text[0] && strncmp(line, v->name, n) == 0)
		snprintf(v->text, sizeof(v->text), "%.63s", line + n);
}

static uint64_t to_u64(const char *text)
{
	const char *digits = text + strspn(text, " \t");
	unsigned long long n;
	char *end;

	n = strtoull(digits, &end, 10);
	/* Also "max", and -1 for no quota. */
	return end == digits || *digits == '-' ? NONE : n;
}

static struct value read_value(const struct group *g, const char *file, const char *name)
{
	struct value v = { .name = name };
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", g->dir, file);
	each_line(g->root, path, take_value, &v);
	return v;
}

static uint64_t read_u64(const struct group *g, const char *file, const char *name)
{
	return to_u64(read_value(g, file, name).text);
}

static void tighten(uint64_t to, uint64_t used, uint64_t cache, uint64_t *limit, uint64_t *left)
{
	if (to >= V1_UNLIMITED)
		return;
	if (used == NONE)
		used = 0;
	if (cache != NONE)
		used -= ob_min_u64(used, cache);
	*limit = ob_min_u64(*limit, to);
	*left = ob_min_u64(*left, to - ob_min_u64(to, used));
}

void ob_cgroup_memory(const char *root, uint64_t *limit, uint64_t *left)
{
	struct group v1 = { .root = root, .controller = "memory" };
	struct group v2 = { .root = root };

	*limit = *left = NONE;
	if (find_group(&v1)) {
		do {
			tighten(read_u64(&v1, "memory.limit_in_bytes", ""),
				read_u64(&v1, "memory.usage_in_bytes", ""),
				read_u64(&v1, "memory.stat", "total_inactive_file "), limit, left);
		} while (go_up(&v1));
	}
	if (find_group(&v2)) {
		do {
			uint64_t used = read_u64(&v2, "memory.current", "");
			uint64_t cache = read_u64(&v2, "memory.stat", "inactive_file ");

			tighten(read_u64(&v2, "memory.max", ""), used, cache, limit, left);
			tighten(read_u64(&v2, "memory.high", ""), used, cache, limit, left);
		} while (go_up(&v2));
	}
}

static uint64_t quota(uint64_t run, uint64_t period)
{
	return run == NONE || period == NONE || period == 0 ? NONE : ob_div_up(run, period);
}

uint64_t ob_cgroup_cpus(const char *root)
{
	struct group v1 = { .root = root, .controller = "cpu" };
	struct group v2 = { .root = root };
	uint64_t cpus = NONE;

	if (find_group(&v1)) {
		do {
			cpus = ob_min_u64(cpus, quota(read_u64(&v1, "cpu.cfs_quota_us", ""),
						      read_u64(&v1, "cpu.cfs_period_us", "")));
		} while (go_up(&v1));
	}
	if (find_group(&v2)) {
		do {
			/* "RUN PERIOD" */
			struct value v = read_value(&v2, "cpu.max", "");
			const char *period = strchr(v.text, ' ');

			if (period)
				cpus = ob_min_u64(cpus, quota(to_u64(v.text), to_u64(period)));
		} while (go_up(&v2));
	}
	return cpus;
}

uint64_t ob_meminfo(const char *root, const char *name)
{
	struct value v = { .name = name };
	uint64_t kib;

	each_line(root, "/proc/meminfo", take_value, &v);
	kib = to_u64(v.text);
	return kib == NONE ? NONE : kib << 10;
}
