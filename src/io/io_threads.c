/* SPDX-License-Identifier: Apache-2.0 */
/* The threads backend: a small pool that carries requests out with blocking system calls. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "base/alloc.h"
#include "io/io_impl.h"

struct threads_io {
	struct ob_io io;
	struct ob_wake wake;
	pthread_mutex_t lock; /* guards the lists and stop */
	pthread_cond_t work;
	struct ob_io_list todo, done;
	bool stop;
	unsigned n_threads;
	pthread_t thread[];
};

static void *worker(void *arg)
{
	struct threads_io *t = arg;
	struct ob_io_req *req;

	pthread_mutex_lock(&t->lock);
	for (;;) {
		while (!t->stop && !t->todo.head)
			pthread_cond_wait(&t->work, &t->lock);
		if (t->stop)
			break;
		req = ob_io_list_pop(&t->todo);
		pthread_mutex_unlock(&t->lock);

		ob_io_perform(req);

		pthread_mutex_lock(&t->lock);
		ob_io_list_add(&t->done, req);
		/* Under the lock, so that close cannot come in between. */
		ob_wake_poke(&t->wake);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static void threads_submit(struct ob_io *io, struct ob_io_req *req)
{
	struct threads_io *t = (struct threads_io *)io;

	ob_io_begin(io, req);
	pthread_mutex_lock(&t->lock);
	ob_io_list_add(&t->todo, req);
	pthread_cond_signal(&t->work);
	pthread_mutex_unlock(&t->lock);
}

static struct ob_io_req *threads_reap(struct ob_io *io, int timeout_ms)
{
	struct threads_io *t = (struct threads_io *)io;
	const int64_t deadline = ob_io_deadline(timeout_ms);
	struct ob_io_req *list;

	do {
		pthread_mutex_lock(&t->lock);
		list = ob_io_give(io, &t->done);
		pthread_mutex_unlock(&t->lock);
	} while (!ob_wake_take(&t->wake) && !list && ob_wake_wait(&t->wake, deadline));
	return list;
}

static void threads_wake(struct ob_io *io)
{
	ob_wake_set(&((struct threads_io *)io)->wake);
}

static void threads_close(struct ob_io *io)
{
	struct threads_io *t = (struct threads_io *)io;

	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_broadcast(&t->work);
	pthread_mutex_unlock(&t->lock);
	while (t->n_threads)
		pthread_join(t->thread[--t->n_threads], NULL);
	ob_wake_close(&t->wake);
	pthread_cond_destroy(&t->work);
	pthread_mutex_destroy(&t->lock);
	ob_free(t);
}

static const struct ob_io_ops threads_ops = {
	.name = "threads",
	.submit = threads_submit,
	.reap = threads_reap,
	.wake = threads_wake,
	.close = threads_close,
};

static int start(struct threads_io *t, unsigned threads, ob_err *e)
{
	sigset_t all, old;
	int err = 0;

	/* Signals are for the caller's threads; the ones that a fault raises cannot be put off. */
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (t->n_threads < threads && !err) {
		err = pthread_create(&t->thread[t->n_threads], NULL, worker, t);
		if (!err)
			t->n_threads++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		return ob_fail_sys(e, OB_IO, err, "cannot start I/O thread %u of %u",
				   t->n_threads + 1, threads);
	return 0;
}

int ob_io_open_threads(struct ob_io **io, unsigned depth, unsigned threads, ob_err *e)
{
	struct threads_io *t;

	(void)depth; /* the queue is a list through the requests */
	if (!threads)
		threads = 1;
	t = ob_alloc(sizeof(*t) + threads * sizeof(t->thread[0]));
	if (!t)
		return ob_fail_nomem(e, "I/O threads");
	if (ob_wake_open(&t->wake, e)) {
		ob_free(t);
		return -1;
	}
	t->io.ops = &threads_ops;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->work, NULL);
	if (start(t, threads, e)) {
		threads_close(&t->io);
		return -1;
	}
	*io = &t->io;
	return 0;
}
