/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault handler of mapped files, and the list that it searches.
 *
 * The handler may run in any thread at any time, so it takes no lock. Files are added by one atomic
 * store. A file is taken out by one too, and is let go only when no handler walks the list.
 */
#include "io/sigbus.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/num.h"
#include "io/file.h"

static struct ob_file *mapped; /* newest first */
static unsigned walkers;       /* handlers inside the list */
static pthread_mutex_t writers = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before; /* what was installed when the handler came */
static uintptr_t page_size;

static bool put_zeros(uintptr_t addr)
{
	void *page = (void *)(addr & ~(page_size - 1));

	return mmap(page, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	       page;
}

static bool repair(uintptr_t addr)
{
	struct ob_file *f;
	bool ok = false;

	__atomic_add_fetch(&walkers, 1, __ATOMIC_SEQ_CST);
	for (f = __atomic_load_n(&mapped, __ATOMIC_SEQ_CST); f;
	     f = __atomic_load_n(&f->next_mapped, __ATOMIC_SEQ_CST)) {
		/* The last page is mapped as a whole. */
		if (addr >= (uintptr_t)f->map &&
		    addr - (uintptr_t)f->map < ob_round_up(f->stamp.size, page_size)) {
			/* Marked first: whoever reads the zeros can find the mark. */
			__atomic_store_n(&f->shrunk, 1, __ATOMIC_SEQ_CST);
			ok = put_zeros(addr);
			break;
		}
	}
	__atomic_sub_fetch(&walkers, 1, __ATOMIC_SEQ_CST);
	return ok;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	const int saved = errno;

	/* A positive code comes from the kernel, others from kill and its like. */
	if (info->si_code > 0 && repair((uintptr_t)info->si_addr)) {
		errno = saved;
		return;
	}
	if (before.sa_flags & SA_SIGINFO) {
		before.sa_sigaction(sig, info, context);
	} else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
		before.sa_handler(sig);
	} else {
		signal(sig, SIG_DFL);
		raise(sig); /* blocked until this handler returns */
	}
	errno = saved;
}

static void install(void)
{
	struct sigaction act = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_RESTART };

	page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
	sigemptyset(&act.sa_mask);
	sigaction(SIGBUS, NULL, &before); /* known before the handler can run */
	sigaction(SIGBUS, &act, NULL);
}

void ob_sigbus_add(struct ob_file *f)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, install);
	pthread_mutex_lock(&writers);
	f->next_mapped = mapped;
	__atomic_store_n(&mapped, f, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&writers);
}

void ob_sigbus_remove(struct ob_file *f)
{
	struct ob_file **at = &mapped;

	pthread_mutex_lock(&writers);
	while (*at != f)
		at = &(*at)->next_mapped;
	__atomic_store_n(at, f->next_mapped, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&writers);
	while (__atomic_load_n(&walkers, __ATOMIC_SEQ_CST))
		sched_yield();
}
