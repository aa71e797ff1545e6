/* SPDX-License-Identifier: Apache-2.0 */
/*
 * readrate FILE...: reads the files once with the engine's own backend, blocks and buffers, and does
 * nothing with the bytes: the fastest that any bake could take its input from this disk.
 */
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/util.h"
#include "io/file.h"
#include "io/io.h"

#define BLOCK (4u << 20)
#define DEPTH 8u

static int read_file(struct ob_io *io, const struct ob_file *f, uint8_t *buf, ob_err *e)
{
	struct ob_io_req req[DEPTH] = { 0 };
	uint64_t at = 0, size = f->stamp.size;
	int fd = f->handle->fd_direct >= 0 ? f->handle->fd_direct : f->handle->fd;
	for (unsigned i = 0; i < DEPTH || io->in_flight; i++) {
		/* The first rounds fill the queue; then each completed request starts the next. */
		struct ob_io_req *r = i < DEPTH ? &req[i] : io->ops->reap(io, -1);
		for (struct ob_io_req *next; r; r = next) {
			next = i < DEPTH ? NULL : r->next;
			if (r->error)
				return ob_fail_sys(e, OB_IO, r->error, "reading %s failed",
						   f->path);
			if (at >= size)
				continue;
			uint64_t n = ob_min_u64(BLOCK, size - at);
			void *to = buf + (size_t)(r - req) * BLOCK;
			*r = (struct ob_io_req){ .op = OB_IO_READ,
						 .fd = fd,
						 .buf = to,
						 .off = at,
						 .len = (uint32_t)ob_round_up(n, OB_IO_ALIGN),
						 .min_len = (uint32_t)n };
			at += n;
			io->ops->submit(io, r);
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	ob_err e = { 0 };
	struct ob_io *io = NULL;
	uint64_t bytes = 0;
	char notice[256];
	uint8_t *buf = ob_alloc_pages((size_t)DEPTH * BLOCK);
	int rc = !buf || ob_io_open(&io, OB_IO_AUTO, DEPTH, notice, sizeof(notice), &e);
	double start = ob_now();
	for (int i = 1; i < argc && !rc; i++) {
		struct ob_file *f;
		rc = ob_file_open(&f, argv[i], &e);
		if (rc)
			break;
		ob_file_enable_direct(f);
		rc = ob_handle_hold(f->handle, &e);
		if (!rc) {
			rc = read_file(io, f, buf, &e);
			ob_handle_drop(f->handle);
		}
		bytes += f->stamp.size;
		ob_file_close(f);
	}
	double seconds = ob_now() - start;
	if (rc)
		fprintf(stderr, "readrate: %s\n", e.code ? e.msg : "out of memory");
	else
		printf("%.3f s, %.2f GB/s\n", seconds, (double)bytes / seconds / 1e9);
	if (io)
		io->ops->close(io);
	ob_free_pages(buf, (size_t)DEPTH * BLOCK);
	return rc ? 1 : 0;
}
