/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded FIFO of pointers between threads; never allocates after init. */
#ifndef OB_ENGINE_QUEUE_H
#define OB_ENGINE_QUEUE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct ob_queue {
	pthread_mutex_t lock;
	pthread_cond_t filled;
	void **item;
	size_t cap, head, n;
	bool is_closed;
};

int ob_queue_init(struct ob_queue *q, size_t cap, ob_err *e);
void ob_queue_fini(struct ob_queue *q);
/* At most cap items may be in it: the caller knows (one per slot). */
void ob_queue_push(struct ob_queue *q, void *p);
/* Waits for an item; NULL once the queue is closed and empty. */
void *ob_queue_pop(struct ob_queue *q);
/* NULL when empty. */
void *ob_queue_try_pop(struct ob_queue *q);
void ob_queue_close(struct ob_queue *q);

#endif
