/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's threads on every backend, for a race detector: good runs, runs that fail half-way and
 * runs that another thread stops. A plain program: the detector must see main.
 */
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../laws/flat_codec.h"
#include "../support/check.h"
#include "../support/world.h"
#include "engine/journal.h"
#include "kernels/gemm.h"
#include "plan/internal.h"

static const enum ob_io_kind kinds[] = { OB_IO_URING, OB_IO_THREADS, OB_IO_SYNC_ONLY };
static unsigned runs;

static bool is_missing(enum ob_io_kind kind)
{
	char notice[256];
	struct ob_io *io;
	ob_err e = { 0 };

	if (ob_io_open(&io, kind, 1, notice, sizeof(notice), &e))
		return true;
	io->ops->close(io);
	return false;
}

static void watch(void *user, const struct ob_progress *p)
{
	CHECK(p->done <= p->total, "%s", p->tensor);
	++*(unsigned *)user;
}

static int delay_all(void *user, struct ob_io **io, ob_err *e)
{
	const struct ob_fault slow = { .nth = 1, .sticky = true, .ops_mask = ~0u, .delay_ms = 15 };

	(void)user;
	return ob_io_open_fault(io, *io, &slow, NULL, e);
}

static int fail_one(void *user, struct ob_io **io, ob_err *e)
{
	const struct ob_fault broken = { .nth = *(uint64_t *)user, .ops_mask = ~0u, .error = 5 };

	return ob_io_open_fault(io, *io, &broken, NULL, e);
}

static void *stop_soon(void *flag)
{
	nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	atomic_store((atomic_int *)flag, 1);
	return NULL;
}

static void run_stopped(struct world *w, const struct ob_plan *p, enum ob_io_kind kind)
{
	atomic_int cancel = 0;
	struct ob_run run = { .io = kind, .cancel = &cancel, .wrap_io = delay_all };
	pthread_t other;
	ob_err e = { 0 };

	CHECK(!pthread_create(&other, NULL, stop_soon, &cancel), "thread");
	CHECK(world_run(w, p, &run, 2, 4, &e) && e.code == OB_CANCELLED, "%s", e.msg);
	pthread_join(other, NULL);
	runs++;
}

/* One that records every tile, half of it again, and all of it read back. */
static void run_recorded(struct world *w, const struct ob_plan *p, enum ob_io_kind kind)
{
	struct ob_run run = { .io = kind }, back = { .io = kind, .reread = true };
	struct ob_journal *j;
	int fd = memfd_create("journal", MFD_CLOEXEC);
	ob_err e = { 0 };

	CHECK(fd >= 0 && !ob_journal_new(&j, p, &e) && !ob_journal_open(j, fd, "memory", 1, 1, &e),
	      "%s", e.msg);
	run.journal = back.journal = j;
	CHECK(!world_run(w, p, &run, 3, 9, &e), "%s", e.msg);
	for (size_t i = 0; i < p->n_tiles; i += 2)
		ob_journal_tile(j, i)->state = OB_TILE_OPEN;
	CHECK(!world_run_again(w, p, &run, 3, 9, &e), "%s", e.msg);
	ob_journal_suspect(j, true);
	CHECK(!world_run_again(w, p, &back, 3, 9, &e) && !back.n_differ, "%s", e.msg);
	ob_journal_free(j);
	close(fd);
	runs += 3;
}

static void run_all(struct world *w, const struct ob_plan *p, const char *what)
{
	struct world_bytes *want = world_expect(w, p);

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		unsigned calls = 0;
		struct ob_effect effect[WORLD_TENSORS] = { 0 };
		struct ob_run run = {
			.io = kinds[i], .progress = watch, .user = &calls, .effect = effect
		};
		ob_err e = { 0 };

		if (is_missing(kinds[i]))
			continue;
		for (unsigned workers = 1; workers <= 4; workers += 3) {
			CHECK(!world_run(w, p, &run, workers, 12, &e), "%s: %s", what, e.msg);
			world_compare(w, p, want, what);
			CHECK(run.bytes_read == p->read_bytes, "%s", what);
			CHECK(run.bytes_written == p->out_bytes, "%s", what);
			runs++;
		}
		for (uint64_t nth = 2; nth < 7; nth += 3) {
			struct ob_run broken = { .io = kinds[i],
						 .wrap_io = fail_one,
						 .wrap_user = &nth };

			e.code = OB_OK;
			CHECK(world_run(w, p, &broken, 3, 7, &e) && e.code == OB_IO, "%s", e.msg);
			runs++;
		}
		run_stopped(w, p, kinds[i]);
		run_recorded(w, p, kinds[i]);
		run = (struct ob_run){ .io = kinds[i] };
		e.code = OB_OK;
		CHECK(!world_run(w, p, &run, 3, 9, &e), "%s", e.msg);
		CHECK(!world_verify(w, p, &run, 3, 9, &e), "%s", e.msg);
		runs += 2;
	}
	world_bytes_free(p, want);
}

static void formats(void)
{
	struct world w;
	struct ob_plan *p;

	world_begin(&w);
	w.pad = 3;
	world_matrix(&w, "copied.weight", world_mlx(4, 64, OB_BF16), 1100, 8192);
	world_matrix(&w, "norm.weight", world_float(OB_BF16), 0, 640);
	world_matrix(&w, "quantized.weight", world_float(OB_BF16), 1300, 4096);
	w.recipe.quant = OB_QUANT_TO;
	w.recipe.to = world_mlx(4, 64, OB_N_DTYPES);
	world_commit(&w);
	p = world_plan(&w);
	run_all(&w, p, "copies and conversions");
	ob_plan_free(p);
	world_end(&w);
}

static void two_passes(void)
{
	const struct ob_encoding flat = { .codec = &ob_codec_flat, .dtype = OB_BF16 };
	const char *const names[] = { "a.weight", "b.weight" };
	struct world w;
	struct ob_plan *p;
	ob_err e = { 0 };

	world_begin(&w);
	p = world_plan_begin(&w);
	for (unsigned i = 0; i < 2; i++) {
		uint32_t t = world_matrix(&w, "source", world_float(OB_F32), 2300, 1024);
		struct ob_out *o = world_out(&w, p, names[i], flat, 2300, 1024);

		world_piece(&w, o, t, 0, 2300, (struct ob_rowmap){ 0 });
	}
	world_commit(&w);
	CHECK(!ob_layout_files(p, &e) && !ob_make_tiles(p, &e), "%s", e.msg);
	run_all(&w, p, "two passes");
	ob_plan_free(p);
	world_end(&w);
}

static void edits(void)
{
	struct world w;
	struct ob_plan *p;

	world_begin(&w);
	world_lowrank(&w, world_matrix(&w, "a.weight", world_float(OB_BF16), 2100, 2048), 4, 1);
	world_lowrank(&w, world_matrix(&w, "b.weight", world_mlx(8, 64, OB_BF16), 700, 2048), 4, 1);
	world_commit(&w);
	p = world_plan(&w);
	run_all(&w, p, "edits");
	ob_plan_free(p);
	world_end(&w);
}

int main(void)
{
	ob_err e = { 0 };

	CHECK(!ob_gemm_init(&e), "%s", e.msg);
	formats();
	two_passes();
	if (ob_gemm_is_fma())
		edits();
	printf("thread_engine: %u runs\n", runs);
	return 0;
}
