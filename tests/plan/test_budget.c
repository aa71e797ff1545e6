/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "../support/world.h"
#include "base/util.h"

static struct world w;

static void init(void)
{
	world_begin(&w);
}

static void fini(void)
{
	world_end(&w);
}

TestSuite(budget, .init = init, .fini = fini);

#define MIB (1ull << 20)

static struct ob_budget fit(const struct ob_plan *p, uint64_t limit, unsigned threads, bool verify)
{
	struct ob_budget b;
	ob_err e = { 0 };

	cr_assert_eq(ob_budget_fit(&b, p, limit, threads, verify, &e), 0, "%s", e.msg);
	return b;
}

/* The promise of the manual: whatever the shape, with an adapter, to any format. */
Test(budget, every_shape_fits_64_MiB)
{
	static const struct {
		uint64_t rows, cols;
	} shapes[] = {
		{ 0, 3000000000 }, { 2, 1500000000 }, { 1500000000, 2 },
		{ 1, 1 },	   { 262144, 16384 }, { 3, 64 * 15625000 },
	};

	for (unsigned i = 0; i < 6 * 4; i++) {
		uint64_t rows = shapes[i / 4].rows, cols = shapes[i / 4].cols;
		struct ob_plan *p;
		struct ob_budget b;
		uint32_t t;

		world_end(&w);
		world_begin(&w);
		t = world_matrix(&w, "a.weight", world_float(i % 4 == 3 ? OB_F32 : OB_BF16), rows,
				 cols);
		if (i % 4 == 1)
			world_lowrank(&w, t, 16, 1);
		if (i % 4 >= 2) {
			w.recipe.quant = OB_QUANT_TO;
			w.recipe.to = world_mlx(4, 64, OB_N_DTYPES);
			w.recipe.dtype = OB_F16;
		}
		p = world_plan(&w);
		b = fit(p, 0, 1, false);
		cr_assert_lt(b.minimum - ob_rss_now(), 48 * MIB, "[%llu, %llu] needs %llu MiB",
			     (unsigned long long)rows, (unsigned long long)cols,
			     (unsigned long long)(b.minimum >> 20));
		ob_plan_free(p);
	}
}

Test(budget, more_memory_never_gives_less)
{
	struct ob_budget last = { 0 }, b;
	struct ob_plan *p;

	world_lowrank(&w, world_matrix(&w, "a.weight", world_float(OB_BF16), 9000, 8192), 64, 1);
	p = world_plan(&w);
	b = fit(p, 0, 1, false);
	for (uint64_t limit = b.minimum + MIB; limit < 2048 * MIB; limit += 3 * MIB) {
		b = fit(p, limit, 16, false);
		cr_assert_leq(b.need, limit);
		cr_assert_geq(b.need, b.minimum);
		cr_assert_geq(b.workers, last.workers);
		cr_assert_geq(b.slots, 2 * 2);
		last = b;
	}
	cr_assert_eq(last.workers, 16);
	cr_assert_geq(last.slots, 3 * 16);
	/* Beyond what is of use, nothing is taken. */
	cr_assert_eq(fit(p, 64ull << 30, 16, false).slots, last.slots);
	ob_plan_free(p);
}

Test(budget, the_error_names_a_minimum_that_works)
{
	struct ob_plan *p;
	struct ob_budget b;
	ob_err e = { 0 };
	char bytes[32];

	world_lowrank(&w, world_matrix(&w, "a.weight", world_float(OB_BF16), 9000, 8192), 64, 1);
	p = world_plan(&w);
	cr_assert_eq(ob_budget_fit(&b, p, MIB, 4, false, &e), -1);
	cr_assert_eq(e.code, OB_BUDGET);
	snprintf(bytes, sizeof(bytes), "%llu bytes", (unsigned long long)b.minimum);
	cr_assert(strstr(e.msg, bytes), "%s", e.msg);
	/* What the process holds may have grown by a page or so meanwhile. */
	b = fit(p, b.minimum + MIB / 2, 4, false);
	cr_assert_eq(b.workers, 1);
	cr_assert_eq(b.slots, 4);
	ob_plan_free(p);
}

Test(budget, a_verification_holds_what_it_compares)
{
	struct ob_plan *p;
	uint64_t without;

	world_matrix(&w, "a.weight", world_float(OB_BF16), 9000, 8192);
	w.recipe.dtype = OB_F16;
	p = world_plan(&w);
	without = fit(p, 0, 1, false).minimum;
	/* The process itself may have shrunk by some pages meanwhile. */
	cr_assert_gt(fit(p, 0, 1, true).minimum, without + 2 * p->slot_bytes - MIB);
	ob_plan_free(p);
}

Test(budget, factors_are_kept_while_they_fit)
{
	struct ob_plan *p;
	uint64_t one;
	uint32_t t = world_matrix(&w, "a.weight", world_float(OB_BF16), 12288, 8192);

	world_lowrank(&w, t, 100, 1);
	p = world_plan(&w);
	one = fit(p, 0, 1, false).need;
	ob_plan_free(p);
	for (unsigned i = 0; i < 4; i++)
		world_lowrank(&w, t, 100, 1);
	p = world_plan(&w);
	cr_assert_gt(fit(p, 0, 1, false).need, one + 4 * 100 * (12288 * 2 + 8192 * 4) - MIB);
	ob_plan_free(p);
}

Test(budget, ten_adapters_of_high_rank_need_64_MiB)
{
	struct ob_plan *p;
	uint32_t t = world_matrix(&w, "a.weight", world_float(OB_BF16), 12288, 8192);
	struct ob_budget b;

	for (unsigned i = 0; i < 10; i++)
		world_lowrank(&w, t, 256, 1);
	p = world_plan(&w);
	b = fit(p, 64 * MIB, 2, false);
	cr_assert_lt(b.kept_factors, ob_edits_bytes(p->out[0].edit, p->out[0].n_edits));
	ob_plan_free(p);
}

Test(budget, the_default_is_bounded)
{
	struct ob_plan *p;

	world_matrix(&w, "a.weight", world_float(OB_BF16), 9000, 8192);
	p = world_plan(&w);
	cr_assert_leq(fit(p, 0, 1024, false).need, 2048 * MIB);
	cr_assert_eq(fit(p, 0, 3, false).workers, 3);
	ob_plan_free(p);
}

Test(budget, scratch_is_laid_out_without_overlap)
{
	struct ob_scratch_layout s;
	struct ob_plan *p;

	world_matrix(&w, "a.weight", world_float(OB_BF16), 900, 1024);
	p = world_plan(&w);
	ob_scratch_layout(p, &s);
	cr_assert_eq(s.total, 0, "a copy computes nothing");
	ob_plan_free(p);

	world_lowrank(&w, 0, 4, 1);
	w.recipe.quant = OB_QUANT_TO;
	w.recipe.to = world_mlx(4, 32, OB_N_DTYPES);
	p = world_plan(&w);
	ob_scratch_layout(p, &s);
	cr_assert_geq(s.edits, s.weights + OB_RECT_ELEMS);
	cr_assert_geq(s.codec, s.edits + ob_edit_scratch_floats());
	cr_assert_geq(s.sample, s.codec + 2 * OB_RECT_ELEMS / 32);
	cr_assert_geq(s.encoded, s.sample + 3 * OB_SAMPLE_ELEMS);
	cr_assert_geq(s.total, s.encoded + OB_SAMPLE_ELEMS);
	ob_plan_free(p);
}
