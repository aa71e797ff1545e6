/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What holds for every container, tried on the good files in tests/data/container/NAME: the reader
 * knows them, the listing keeps the promises of container.h, an allocation that fails gives OB_NOMEM
 * and no leak, and memory stays small. What corrupted files give is in corruption.c.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>

#include "../container/memfile.h"

#define FILE_MAX 8192u
#define MEMORY_MAX (1u << 20)

static const struct ob_container *container;
static const char *file_name;
static unsigned failures, files;

static void broken(const char *law, size_t where, const char *what)
{
	fprintf(stderr, "%s: %s: %s at %zu: %s\n", container->name, file_name, law, where, what);
	failures++;
}

/* Lists f, which fails only for want of memory. */
static enum ob_code list(struct ob_file *f, const char *law, size_t where)
{
	uint64_t before = ob_alloc_stats().in_use;
	struct ob_arena a = { 0 };
	struct ob_listing l = { 0 };
	const char *what = NULL;
	ob_err e = { 0 };
	int rc = container->open(f, &a, &l, &e);

	if (rc == 0)
		what = listing_broken(&l);
	else if (e.code != OB_NOMEM)
		what = e.msg;
	if ((rc == 0) != (e.code == OB_OK))
		what = "result and error disagree";
	ob_file_close(l.unpacked);
	ob_arena_free(&a);
	if (ob_alloc_stats().in_use != before)
		what = "leak";
	if (what)
		broken(law, where, what);
	return e.code;
}

static void law_good(struct ob_file *f)
{
	if (!container->probe(f))
		broken("probe", 0, "does not know its own file");
	if (list(f, "good file", 0) != OB_OK)
		broken("good file", 0, "is refused");
}

static void law_allocation(struct ob_file *f)
{
	for (int sticky = 0; sticky < 2; sticky++) {
		enum ob_code code = OB_NOMEM;

		for (uint64_t n = 1; code == OB_NOMEM; n++) {
			uint64_t calls = ob_alloc_stats().calls;

			ob_alloc_fail_at(n, sticky);
			code = list(f, "allocation failed", n);
			ob_alloc_fail_at(0, false);
			if (code != OB_NOMEM && ob_alloc_stats().calls - calls >= n)
				broken("allocation failed", n, ob_code_name(code));
		}
	}
}

static void try_file(const uint8_t *data, size_t n)
{
	int fd = memfile_fd(data, n);
	struct ob_file *f;
	ob_err e = { 0 };

	files++;
	if (fd < 0 || memfile_open_fd(&f, fd, &e) != 0) {
		broken("open", 0, e.msg);
		return;
	}
	law_good(f);
	law_allocation(f);
	ob_file_close(f);
	close(fd);
}

static void try_path(const char *path)
{
	static uint8_t data[FILE_MAX + 1];
	FILE *in = fopen(path, "rb");
	size_t n = in ? fread(data, 1, sizeof(data), in) : 0;

	if (n == 0 || n > FILE_MAX)
		broken("open", n, "no file of a fitting size");
	else
		try_file(data, n);
	if (in)
		fclose(in);
}

static void try_folder(const char *top)
{
	unsigned before = files;
	char path[4096];
	const struct dirent *d;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/tests/data/container/%s", top, container->name);
	dir = opendir(path);
	while (dir && (d = readdir(dir)) != NULL) {
		file_name = d->d_name;
		snprintf(path, sizeof(path), "%s/tests/data/container/%s/%s", top, container->name,
			 d->d_name);
		if (ob_has_prefix(d->d_name, "good-"))
			try_path(path);
	}
	if (dir)
		closedir(dir);
	file_name = "folder";
	if (files == before)
		broken("good file", 0, "there is none");
}

int main(void)
{
	const char *top = getenv("top_srcdir");

	for (const struct ob_container *const *c = ob_containers; *c; c++) {
		container = *c;
		try_folder(top ? top : ".");
	}
	if (ob_alloc_stats().peak > MEMORY_MAX)
		broken("memory", ob_alloc_stats().peak, "too much");
	printf("%u files, %u failures\n", files, failures);
	return failures > 0;
}
