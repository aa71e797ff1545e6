/* SPDX-License-Identifier: Apache-2.0 */
/* The journal: what counts of a damaged file, and what a run makes of what is left. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../laws/flat_codec.h"
#include "../support/world.h"
#include "engine/journal.h"
#include "plan/internal.h"

#define KEY 0x1234567890abcdefu
#define RECORD 64

static struct world w;
static struct ob_plan *plan;
static struct world_bytes *want;
static int file = -1;

/* Copies, conversions in two parts, and a tensor that is measured first. */
static void init(void)
{
	const struct ob_encoding flat = { .codec = &ob_codec_flat, .dtype = OB_BF16 };
	const struct ob_rowmap straight = { 0 };
	struct ob_out *o;
	uint32_t copied, measured;
	ob_err e = { 0 };

	world_begin(&w);
	w.pad = 3;
	plan = world_plan_begin(&w);
	copied = world_matrix(&w, "source", world_float(OB_BF16), 1300, 4096);
	measured = world_matrix(&w, "other", world_float(OB_F32), 2300, 1024);
	o = world_out(&w, plan, "quantized", world_mlx(4, 64, OB_BF16), 1300, 4096);
	world_piece(&w, o, copied, 0, 1300, straight);
	o = world_out(&w, plan, "measured", flat, 2300, 1024);
	world_piece(&w, o, measured, 0, 2300, straight);
	o = world_out(&w, plan, "copied", world_float(OB_BF16), 1300, 4096);
	world_piece(&w, o, copied, 0, 1300, straight);
	o->copy = true;
	world_commit(&w);
	cr_assert(!ob_layout_files(plan, &e) && !ob_make_tiles(plan, &e), "%s", e.msg);
	want = world_expect(&w, plan);
	file = memfd_create("journal", MFD_CLOEXEC);
	cr_assert(file >= 0 && !ftruncate(file, (off_t)ob_journal_size(plan)));
}

static void fini(void)
{
	close(file);
	world_bytes_free(plan, want);
	ob_plan_free(plan);
	world_end(&w);
}

TestSuite(journal, .init = init, .fini = fini, .timeout = 60);

static struct ob_journal *open_journal(uint64_t key)
{
	struct ob_journal *j;
	ob_err e = { 0 };

	cr_assert(!ob_journal_new(&j, plan, &e), "%s", e.msg);
	cr_assert(!ob_journal_open(j, file, "the journal", key, 1, &e), "%s", e.msg);
	return j;
}

static bool is_kept(struct ob_journal *j, size_t i)
{
	return ob_journal_tile(j, i)->state == OB_TILE_KEPT;
}

/* Tiles with a record. */
static size_t count_kept(struct ob_journal *j)
{
	size_t n = 0;

	for (size_t i = 0; i < plan->n_tiles; i++)
		n += is_kept(j, i);
	return n;
}

static size_t count_encoding(void)
{
	size_t n = 0;

	for (size_t i = 0; i < plan->n_tiles; i++)
		n += !plan->tile[i].measure;
	return n;
}

/* A whole run that leaves its journal in the file. */
static void run_whole(void)
{
	struct ob_journal *j = open_journal(KEY);
	struct ob_run run = { .journal = j };
	ob_err e = { 0 };

	cr_assert(!world_run(&w, plan, &run, 2, 6, &e), "%s", e.msg);
	cr_assert_eq(count_kept(j), count_encoding());
	ob_journal_free(j);
}

static uint8_t *read_file(void)
{
	size_t size = ob_journal_size(plan);
	uint8_t *bytes = malloc(size);

	cr_assert(bytes && pread(file, bytes, size, 0) == (ssize_t)size);
	return bytes;
}

static size_t kept_with(const uint8_t *bytes, size_t size, uint64_t key)
{
	struct ob_journal *j;
	size_t n;

	cr_assert(!ftruncate(file, 0) && pwrite(file, bytes, size, 0) == (ssize_t)size);
	j = open_journal(key);
	n = count_kept(j);
	ob_journal_free(j);
	return n;
}

/* ---- damage -------------------------------------------------------------------------------- */

Test(journal, is_read_up_to_where_it_is_torn)
{
	uint8_t *bytes;
	size_t whole = 0;

	run_whole();
	bytes = read_file();
	for (size_t size = 0; size <= ob_journal_size(plan); size++) {
		if (size && size % RECORD == 0)
			whole += !plan->tile[size / RECORD - 1].measure;
		cr_assert_eq(kept_with(bytes, size, KEY), whole, "cut at %zu", size);
	}
	free(bytes);
}

Test(journal, loses_a_record_with_any_bit)
{
	uint8_t *bytes;
	size_t all = count_encoding();

	run_whole();
	bytes = read_file();
	for (size_t bit = 0; bit < 8 * ob_journal_size(plan); bit++) {
		size_t i = bit / 8 / RECORD;

		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_assert_eq(kept_with(bytes, ob_journal_size(plan), KEY),
			     all - !plan->tile[i].measure, "bit %zu", bit);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	free(bytes);
}

Test(journal, is_that_of_one_job)
{
	uint8_t *bytes;

	run_whole();
	bytes = read_file();
	cr_assert_eq(kept_with(bytes, ob_journal_size(plan), KEY), count_encoding());
	for (unsigned bit = 0; bit < 64; bit++)
		cr_assert_eq(kept_with(bytes, ob_journal_size(plan), KEY ^ 1ull << bit), 0);
	free(bytes);
}

Test(journal, a_record_counts_at_its_place_only)
{
	uint8_t *bytes, *moved;
	size_t size = ob_journal_size(plan), n = plan->n_tiles;

	run_whole();
	bytes = read_file();
	moved = malloc(size);
	for (size_t from = 0; from < n; from++)
		for (size_t to = 0; to < n; to++) {
			if (from == to)
				continue;
			memcpy(moved, bytes, size);
			memcpy(moved + to * RECORD, bytes + from * RECORD, RECORD);
			cr_assert_eq(kept_with(moved, size, KEY),
				     count_encoding() - !plan->tile[to].measure, "%zu at %zu", from,
				     to);
		}
	free(moved);
	free(bytes);
}

Test(journal, ignores_what_is_behind_the_last_tile)
{
	size_t size = ob_journal_size(plan);
	uint8_t *bytes, *longer = malloc(2 * size);

	run_whole();
	bytes = read_file();
	memcpy(longer, bytes, size);
	memcpy(longer + size, bytes, size);
	cr_assert_eq(kept_with(longer, 2 * size, KEY), count_encoding());
	free(longer);
	free(bytes);
}

/* ---- going on ------------------------------------------------------------------------------ */

static void spoil(size_t tile)
{
	const struct ob_tile *t = &plan->tile[tile];
	const struct ob_out *o = &plan->out[t->out];
	struct ob_range r[OB_MAX_RANGES] = { { t->e0, 1 } };
	int fd = w.target[o->part_file[0]].handle->fd;
	uint8_t byte;

	if (!o->copy)
		o->enc.codec->ranges(&o->enc, &o->shape, 0, (struct ob_elems){ t->e0, t->e1 }, r);
	cr_assert_eq(pread(fd, &byte, 1, (off_t)(o->part_off[0] + r[0].off)), 1);
	byte ^= 1;
	cr_assert_eq(pwrite(fd, &byte, 1, (off_t)(o->part_off[0] + r[0].off)), 1);
	cr_assert_eq(fdatasync(fd), 0);
}

static void forget(size_t tile)
{
	static const uint8_t zeros[RECORD];

	cr_assert_eq(pwrite(file, zeros, RECORD, (off_t)(tile * RECORD)), RECORD);
}

/* Resumes, on several machines; returns the bytes that the run wrote. */
static uint64_t resume(size_t differing, enum ob_io_kind io, bool no_direct)
{
	struct ob_journal *j = open_journal(KEY);
	struct ob_run check = { .journal = j, .reread = true, .io = io, .no_direct = no_direct };
	struct ob_run run = { .journal = j, .io = io, .no_direct = no_direct };
	ob_err e = { 0 };

	cr_assert(!world_run_again(&w, plan, &check, 2, 6, &e), "%s", e.msg);
	cr_assert_eq(check.n_differ, differing);
	cr_assert_eq(check.bytes_written, 0);
	cr_assert(!world_run_again(&w, plan, &run, 2, 6, &e), "%s", e.msg);
	world_compare(&w, plan, want, "resumed");
	cr_assert_eq(count_kept(j), count_encoding());
	ob_journal_free(j);
	return run.bytes_written;
}

Test(journal, nothing_is_made_twice)
{
	run_whole();
	cr_assert_eq(resume(0, OB_IO_AUTO, false), 0);
	cr_assert_eq(resume(0, OB_IO_SYNC_ONLY, true), 0);
}

Test(journal, a_tile_without_a_record_is_made_again)
{
	run_whole();
	for (size_t i = 0; i < plan->n_tiles; i++) {
		if (plan->tile[i].measure)
			continue;
		spoil(i);
		forget(i);
		cr_assert_gt(resume(0, i % 2 ? OB_IO_THREADS : OB_IO_AUTO, false), 0, "tile %zu",
			     i);
	}
}

Test(journal, a_tile_that_is_not_what_its_record_says_is_made_again)
{
	run_whole();
	for (size_t i = 0; i < plan->n_tiles; i++) {
		if (plan->tile[i].measure)
			continue;
		spoil(i);
		cr_assert_gt(resume(1, i % 2 ? OB_IO_SYNC_ONLY : OB_IO_AUTO, i % 3 == 0), 0,
			     "tile %zu", i);
	}
}

Test(journal, a_file_that_cannot_be_synced_ends_the_run)
{
	struct ob_journal *j;
	struct ob_run run = { 0 };
	ob_err e = { 0 };

	close(file);
	file = open("/dev/full", O_RDWR | O_CLOEXEC);
	cr_assert(file >= 0);
	cr_assert(!ob_journal_new(&j, plan, &e));
	cr_assert(!ob_journal_open(j, file, "the journal", KEY, 1, &e));
	run.journal = j;
	cr_assert_eq(world_run(&w, plan, &run, 2, 6, &e), -1);
	cr_assert_eq(e.code, OB_NOSPC, "%s", e.msg);
	cr_assert(strstr(e.msg, "the journal"), "%s", e.msg);
	cr_assert_eq(count_kept(j), 0);
	ob_journal_free(j);
}

/* ---- samples ------------------------------------------------------------------------------- */

Test(journal, a_sample_has_something_of_every_tensor)
{
	bool seen[WORLD_TENSORS] = { false };
	struct ob_journal *j;
	ob_err e = { 0 };
	size_t n = 0;

	cr_assert(!ob_journal_new(&j, plan, &e));
	for (size_t i = 0; i < plan->n_tiles; i++)
		ob_journal_tile(j, i)->state = OB_TILE_WRITTEN;
	ob_journal_suspect(j, false);
	for (size_t i = 0; i < plan->n_tiles; i++)
		if (ob_journal_tile(j, i)->suspect) {
			seen[plan->tile[i].out] = true;
			n++;
		}
	for (size_t i = 0; i < plan->n_outs; i++)
		cr_assert(seen[i], "%s", plan->out[i].name);
	cr_assert_leq(n, plan->n_tiles);
	ob_journal_free(j);
}
