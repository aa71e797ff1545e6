/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What holds for every container, tried on the good files in tests/data/container/NAME: cut
 * anywhere or with any bit changed, a file gives an error that names it, or a listing that keeps
 * the promises of container.h; an allocation that fails gives OB_NOMEM and no leak; memory stays
 * small.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>

#include "../container/memfile.h"

#define FILE_MAX 8192u /* every bit of it is tried */
#define MEMORY_MAX (1u << 20)

static const struct ob_container *container;
static const char *file_name;
static unsigned failures, files;

static void broken(const char *law, size_t where, const char *what)
{
	fprintf(stderr, "%s: %s: %s at %zu: %s\n", container->name, file_name, law, where, what);
	failures++;
}

/* Lists f, whatever is in it now, and checks what holds in any case. */
static enum ob_code list(struct ob_file *f, const char *law, size_t where)
{
	uint64_t before = ob_alloc_stats().in_use;
	struct ob_arena a = { 0 };
	struct ob_listing l = { 0 };
	const char *what = NULL;
	ob_err e = { 0 };
	int rc = container->open(f, &a, &l, &e);

	if (rc == 0)
		what = listing_broken(&l, f->stamp.size);
	else if (e.code != OB_NOMEM && ob_exit_status(e.code) != 3)
		what = ob_code_name(e.code);
	else if (e.code != OB_NOMEM && !strstr(e.msg, f->path))
		what = e.msg;
	if ((rc == 0) != (e.code == OB_OK))
		what = "result and error disagree";
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

/* Changes the file through fd; f sees it, because it maps the file. */
static void law_flip(struct ob_file *f, int fd, const uint8_t *data, size_t n)
{
	for (size_t i = 0; i < 8 * n; i++) {
		uint8_t byte = data[i / 8] ^ (uint8_t)(1u << i % 8);

		if (pwrite(fd, &byte, 1, (off_t)(i / 8)) != 1)
			broken("flip", i, "cannot write");
		list(f, "bit flipped", i);
		if (i % 8 == 7 && pwrite(fd, &data[i / 8], 1, (off_t)(i / 8)) != 1)
			broken("flip", i, "cannot write");
	}
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

static void law_truncate(int fd, size_t n)
{
	while (n-- > 0) {
		struct ob_file *f;
		ob_err e = { 0 };

		if (ftruncate(fd, (off_t)n) != 0 || memfile_open_fd(&f, fd, &e) != 0) {
			broken("truncated", n, e.msg);
			return;
		}
		list(f, "truncated", n);
		ob_file_close(f);
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
	law_flip(f, fd, data, n);
	law_allocation(f);
	ob_file_close(f);
	law_truncate(fd, n);
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
