/* SPDX-License-Identifier: Apache-2.0 */
/* Progress of a run: bytes done, rate over the last two seconds, time left, which limit binds. */
#include "base/num.h"
#include "base/util.h"
#include "engine/internal.h"

void ob_meter_report(struct ob_meter *w, struct ob_engine *en, double start)
{
	struct ob_run *run = en->run;
	const struct ob_plan *p = en->plan;
	uint32_t out = atomic_load(&en->out_in_hand);
	uint64_t read = atomic_load(&en->bytes_read), written = atomic_load(&en->bytes_written);
	uint64_t busy = atomic_load(&en->busy_ns);
	double now = ob_now();
	unsigned at = w->n % OB_WINDOW, oldest = w->n < OB_WINDOW ? 0 : (w->n + 1) % OB_WINDOW;
	w->at[at] = now;
	w->bytes[at] = read + written;
	w->busy[at] = busy;
	w->n++;
	double span = now - w->at[oldest];
	struct ob_progress pr = {
		.done = ob_min_u64(read + written, en->bytes_total),
		.total = en->bytes_total,
		.seconds = now - start,
		.remaining = -1,
		.tensor = p->n_outs ? p->out[out].name : "",
		.file = p->n_outs ? p->out[out].part_file[0] + 1 : 0,
		.n_files = (uint32_t)p->n_files,
	};
	if (span > 0) {
		pr.rate = (double)(w->bytes[at] - w->bytes[oldest]) / span;
		pr.cpu_bound = (double)(w->busy[at] - w->busy[oldest]) / 1e9 >
			       0.8 * span * en->n_workers;
	}
	if (pr.rate > 0 && pr.seconds > 1)
		pr.remaining = (double)(pr.total - ob_min_u64(pr.done, pr.total)) / pr.rate;
	run->progress(run->user, &pr);
}
