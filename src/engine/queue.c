/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/queue.h"

#include "base/alloc.h"

int ob_queue_init(struct ob_queue *q, size_t cap, ob_err *e)
{
	*q = (struct ob_queue){ .cap = cap };
	q->item = ob_calloc(cap, sizeof(*q->item));
	if (!q->item)
		return ob_fail_nomem(e, "queue");
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->filled, NULL);
	return 0;
}

void ob_queue_fini(struct ob_queue *q)
{
	if (!q->item)
		return;
	pthread_cond_destroy(&q->filled);
	pthread_mutex_destroy(&q->lock);
	ob_free(q->item);
	q->item = NULL;
}

void ob_queue_push(struct ob_queue *q, void *p)
{
	pthread_mutex_lock(&q->lock);
	q->item[(q->head + q->n++) % q->cap] = p;
	pthread_cond_signal(&q->filled);
	pthread_mutex_unlock(&q->lock);
}

static void *take(struct ob_queue *q)
{
	if (!q->n)
		return NULL;
	void *p = q->item[q->head];
	q->head = (q->head + 1) % q->cap;
	q->n--;
	return p;
}

void *ob_queue_pop(struct ob_queue *q)
{
	pthread_mutex_lock(&q->lock);
	while (!q->n && !q->is_closed)
		pthread_cond_wait(&q->filled, &q->lock);
	void *p = take(q);
	pthread_mutex_unlock(&q->lock);
	return p;
}

void *ob_queue_try_pop(struct ob_queue *q)
{
	pthread_mutex_lock(&q->lock);
	void *p = take(q);
	pthread_mutex_unlock(&q->lock);
	return p;
}

void ob_queue_close(struct ob_queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->is_closed = true;
	pthread_cond_broadcast(&q->filled);
	pthread_mutex_unlock(&q->lock);
}
