/* SPDX-License-Identifier: Apache-2.0 */
/* The fault backend: fails, shortens or delays chosen operations on their way to another one. */
#include <fcntl.h>

#include "base/alloc.h"
#include "base/num.h"
#include "io/io_impl.h"

struct fault_io {
	struct ob_io io;
	struct ob_io *inner;
	struct ob_fault rule;
	uint64_t own_count;
	uint64_t *count;
	struct ob_io_list held;	  /* delayed; the oldest first, so the next one due */
	struct ob_io_list failed; /* to be reaped */
};

static bool applies(struct fault_io *f, const struct ob_io_req *req)
{
	if (!(f->rule.ops_mask & 1u << req->op))
		return false;
	++*f->count;
	if (f->rule.sticky)
		return f->rule.nth && *f->count >= f->rule.nth;
	return *f->count == f->rule.nth;
}

/* Length of a first transfer that is too short by rule.shorten; 0 for no limit. */
static uint32_t first_max(const struct fault_io *f, const struct ob_io_req *req)
{
	uint32_t n = req->len > f->rule.shorten ? req->len - f->rule.shorten : 1;

	if (!f->rule.shorten || req->op == OB_IO_SYNC || req->len < 2)
		return 0;
	return fcntl(req->fd, F_GETFL) & O_DIRECT ? (uint32_t)ob_round_down(n, OB_IO_ALIGN) : n;
}

static void forward(struct fault_io *f, struct ob_io_req *req)
{
	if (req->error)
		ob_io_list_add(&f->failed, req);
	else
		f->inner->ops->submit(f->inner, req);
}

/* Below the rules for retries, as the system would do it. */
static void disturb(struct fault_io *f, struct ob_io_req *req)
{
	const bool is_transient = ob_io_is_transient(f->rule.error);

	if (f->rule.error && !is_transient) {
		req->error = f->rule.error;
		return;
	}
	req->first_max = first_max(f, req);
	if (is_transient)
		req->n_disturbed = f->rule.sticky ? UINT16_MAX : 3;
	else if (f->rule.empty && req->op != OB_IO_SYNC)
		req->n_disturbed = 1;
	req->disturbance = (int16_t)-f->rule.error;
}

static void fault_submit(struct ob_io *io, struct ob_io_req *req)
{
	struct fault_io *f = (struct fault_io *)io;

	ob_io_begin(io, req);
	req->first_max = 0;
	req->n_disturbed = 0;
	if (!applies(f, req)) {
		forward(f, req);
		return;
	}
	disturb(f, req);
	if (f->rule.delay_ms) {
		/* No backend counts retries before the request reaches it. */
		req->retries = (uint32_t)ob_io_deadline((int)f->rule.delay_ms);
		ob_io_list_add(&f->held, req);
	} else {
		forward(f, req);
	}
}

/* Milliseconds until the oldest held request is due, or timeout_ms when that is less. */
static int time_left(const struct fault_io *f, int timeout_ms)
{
	if (!f->held.head)
		return timeout_ms;
	int32_t ms = (int32_t)(f->held.head->retries - (uint32_t)ob_io_deadline(0));
	int left = ms > 0 ? ms : 0;
	return timeout_ms < 0 || left < timeout_ms ? left : timeout_ms;
}

static struct ob_io_req *fault_reap(struct ob_io *io, int timeout_ms)
{
	struct fault_io *f = (struct fault_io *)io;
	struct ob_io_list done;
	struct ob_io_req *req;

	while (f->held.head && time_left(f, -1) == 0)
		forward(f, ob_io_list_pop(&f->held));
	done = f->failed;
	f->failed.head = NULL;
	req = f->inner->ops->reap(f->inner, done.head ? 0 : time_left(f, timeout_ms));
	while (req) {
		struct ob_io_req *next = req->next;

		ob_io_list_add(&done, req);
		req = next;
	}
	return ob_io_give(io, &done);
}

static void fault_wake(struct ob_io *io)
{
	struct fault_io *f = (struct fault_io *)io;

	f->inner->ops->wake(f->inner);
}

static void fault_close(struct ob_io *io)
{
	struct fault_io *f = (struct fault_io *)io;

	f->inner->ops->close(f->inner);
	ob_free(f);
}

static const struct ob_io_ops fault_ops = {
	.name = "fault",
	.submit = fault_submit,
	.reap = fault_reap,
	.wake = fault_wake,
	.close = fault_close,
};

int ob_io_open_fault(struct ob_io **io, struct ob_io *inner, const struct ob_fault *fault,
		     uint64_t *count, ob_err *e)
{
	struct fault_io *f = ob_alloc(sizeof(*f));

	if (!f)
		return ob_fail_nomem(e, "fault injection");
	f->io.ops = &fault_ops;
	f->inner = inner;
	f->rule = *fault;
	f->count = count ? count : &f->own_count;
	*io = &f->io;
	return 0;
}
