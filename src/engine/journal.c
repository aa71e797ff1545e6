/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/journal.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "base/util.h"

#define BATCH_BYTES (1ull << 30)
#define BATCH_SECONDS 5.0
#define WINDOW 1024u /* records that are written at a time */
#define SAMPLE_EVERY 32u

/* As it lies in the file. */
struct stored {
	uint64_t hash;
	double dd, aa, da;
	uint64_t n, changed;
	uint64_t nonfinite;
	uint64_t check; /* of all before it, seeded with key and place */
};
_Static_assert(sizeof(struct stored) == 64, "it has no holes");

enum step { IDLE, SYNC_DATA, WRITE_TABLE, SYNC_TABLE };
enum { DIRTY = 1, IN_BATCH = 2 }; /* of an output file */

struct ob_journal {
	const struct ob_plan *plan;
	struct ob_tile_record *tile;
	uint8_t *file; /* per output file */
	struct stored *window;
	int fd;
	const char *folder;
	uint64_t key, batch_bytes;

	/* Since the last batch began. */
	uint32_t lo, hi; /* written tiles lie in [lo, hi) */
	uint64_t bytes;
	double since; /* when the first of them was written */

	/* The batch under way: tiles of [at, end) are still to be recorded. */
	struct ob_io *io;
	const struct ob_target *target;
	enum step step;
	uint32_t first, at, end;
	size_t at_file;
	struct ob_handle *held;
	struct ob_io_req req;
};

int ob_journal_new(struct ob_journal **journal, const struct ob_plan *p, ob_err *e)
{
	struct ob_journal *j = ob_alloc(sizeof(*j));
	if (!j)
		return ob_fail_nomem(e, "journal");
	j->plan = p;
	j->fd = -1;
	j->lo = UINT32_MAX;
	j->tile = ob_calloc(p->n_tiles + 1, sizeof(*j->tile));
	j->file = ob_calloc(p->n_files + 1, 1);
	j->window = ob_calloc(WINDOW, sizeof(*j->window));
	if (!j->tile || !j->file || !j->window) {
		ob_journal_free(j);
		return ob_fail_nomem(e, "journal");
	}
	*journal = j;
	return 0;
}

void ob_journal_free(struct ob_journal *j)
{
	if (!j)
		return;
	ob_free(j->tile);
	ob_free(j->file);
	ob_free(j->window);
	ob_free(j);
}

struct ob_tile_record *ob_journal_tile(struct ob_journal *j, size_t index)
{
	return &j->tile[index];
}

/* ---- the file ------------------------------------------------------------------------------ */

static uint64_t check_of(const struct ob_journal *j, const struct stored *s, uint64_t index)
{
	return ob_hash64(s, offsetof(struct stored, check), j->key + index);
}

static void to_stored(const struct ob_journal *j, uint64_t index, struct stored *s)
{
	const struct ob_tile_record *r = &j->tile[index];
	*s = (struct stored){
		.hash = r->hash,
		.dd = r->effect.dd,
		.aa = r->effect.aa,
		.da = r->effect.da,
		.n = r->effect.n,
		.changed = r->effect.changed,
		.nonfinite = r->nonfinite,
	};
	s->check = check_of(j, s, index);
}

static void from_stored(struct ob_journal *j, uint64_t index, const struct stored *s)
{
	if (s->check != check_of(j, s, index) || j->plan->tile[index].measure)
		return;
	j->tile[index] = (struct ob_tile_record){
		.hash = s->hash,
		.effect = { s->dd, s->aa, s->da, s->n, s->changed },
		.nonfinite = s->nonfinite != 0,
		.state = OB_TILE_KEPT,
		.suspect = true,
	};
}

uint64_t ob_journal_size(const struct ob_plan *p)
{
	return p->n_tiles * sizeof(struct stored);
}

bool ob_journal_has_file(const struct ob_journal *j)
{
	return j->fd >= 0;
}

/* Reads what there is of n records; what is missing stays zero and so fails its check. */
static int read_window(const struct ob_journal *j, uint64_t at, size_t n, ob_err *e)
{
	size_t size = n * sizeof(*j->window);
	memset(j->window, 0, size);
	int err = ob_io_read_all(j->fd, j->window, size, at * sizeof(*j->window));
	if (err && err != ENODATA)
		return ob_fail_sys(e, OB_IO, err, "cannot read the journal in %s", j->folder);
	return 0;
}

int ob_journal_open(struct ob_journal *j, int fd, const char *folder, uint64_t key, uint64_t batch,
		    ob_err *e)
{
	j->fd = fd;
	j->folder = folder;
	j->key = key;
	j->batch_bytes = batch ? batch : BATCH_BYTES;
	for (uint64_t at = 0; at < j->plan->n_tiles; at += WINDOW) {
		size_t n = (size_t)ob_min_u64(WINDOW, j->plan->n_tiles - at);
		if (read_window(j, at, n, e))
			return -1;
		for (size_t i = 0; i < n; i++)
			from_stored(j, at + i, &j->window[i]);
	}
	return 0;
}

/* ---- which tiles --------------------------------------------------------------------------- */

/* The first and the last tile of every part, and some between. */
static bool is_sampled(const struct ob_plan *p, size_t i)
{
	const struct ob_tile *t = &p->tile[i], *next = t + 1;
	bool is_last = i + 1 == p->n_tiles || next->out != t->out || next->part != t->part;
	uint64_t place[] = { t->out, t->part, t->e0 };
	return !t->e0 || is_last || ob_hash64(place, sizeof(place), 0) % SAMPLE_EVERY == 0;
}

void ob_journal_suspect(struct ob_journal *j, bool all)
{
	for (size_t i = 0; i < j->plan->n_tiles; i++)
		j->tile[i].suspect = j->tile[i].state != OB_TILE_OPEN &&
				     (all || is_sampled(j->plan, i));
}

void ob_journal_keep_unsampled(struct ob_journal *j)
{
	for (size_t i = 0; i < j->plan->n_tiles; i++)
		if (!j->plan->tile[i].measure && !is_sampled(j->plan, i))
			j->tile[i].state = OB_TILE_KEPT;
}

uint64_t ob_journal_kept(const struct ob_journal *j)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < j->plan->n_tiles; i++)
		if (j->tile[i].state == OB_TILE_KEPT)
			sum += ob_tile_out_bytes(j->plan, &j->plan->tile[i]);
	return sum;
}

uint64_t ob_journal_suspected(const struct ob_journal *j)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < j->plan->n_tiles; i++)
		if (j->tile[i].suspect)
			sum += ob_tile_out_bytes(j->plan, &j->plan->tile[i]);
	return sum;
}

/* ---- batches ------------------------------------------------------------------------------- */

void ob_journal_start(struct ob_journal *j, struct ob_io *io, const struct ob_target *target)
{
	j->io = io;
	j->target = target;
}

bool ob_journal_is_busy(const struct ob_journal *j)
{
	return j->step != IDLE;
}

void ob_journal_written(struct ob_journal *j, uint32_t tile, uint64_t bytes)
{
	const struct ob_tile *t = &j->plan->tile[tile];
	const struct ob_out *o = &j->plan->out[t->out];
	j->tile[tile].state = OB_TILE_WRITTEN;
	for (unsigned k = 0; k < o->part.n; k++)
		if (!o->copy || k == t->part)
			j->file[o->part_file[k]] |= DIRTY;
	if (j->lo >= j->hi)
		j->since = ob_now();
	j->lo = (uint32_t)ob_min_u64(j->lo, tile);
	j->hi = (uint32_t)ob_max_u64(j->hi, tile + 1);
	j->bytes += bytes;
}

static int submit(struct ob_journal *j, enum ob_io_op op, int fd, void *buf, uint64_t off,
		  uint64_t len)
{
	j->req = (struct ob_io_req){
		.op = op, .fd = fd, .buf = buf, .off = off, .len = (uint32_t)len
	};
	j->io->ops->submit(j->io, &j->req);
	return 0;
}

/* A file that the pool closed was synced before. */
static int sync_data(struct ob_journal *j, ob_err *e)
{
	for (; j->at_file < j->plan->n_files; j->at_file++) {
		struct ob_handle *h = j->target[j->at_file].handle;
		if (!(j->file[j->at_file] & IN_BATCH))
			continue;
		if (ob_handle_hold_open(h)) {
			j->held = h;
			return submit(j, OB_IO_SYNC, h->fd, NULL, 0, 0);
		}
		if (h->lost)
			return ob_fail_sys(e, OB_IO, h->lost, "cannot bring %s to the disk",
					   h->path);
	}
	j->step = WRITE_TABLE;
	return 1;
}

static int write_table(struct ob_journal *j)
{
	while (j->at < j->end && j->tile[j->at].state != OB_TILE_SYNCING)
		j->at++;
	uint32_t n = (uint32_t)ob_min_u64(WINDOW, j->end - j->at);
	if (!n) {
		j->step = SYNC_TABLE;
		return submit(j, OB_IO_SYNC, j->fd, NULL, 0, 0);
	}
	memset(j->window, 0, n * sizeof(*j->window));
	for (uint32_t i = 0; i < n; i++)
		if (j->tile[j->at + i].state >= OB_TILE_SYNCING)
			to_stored(j, j->at + i, &j->window[i]);
	return submit(j, OB_IO_WRITE, j->fd, j->window, j->at * sizeof(*j->window),
		      n * sizeof(*j->window));
}

static int next_request(struct ob_journal *j, ob_err *e)
{
	if (j->step == SYNC_DATA) {
		int rc = sync_data(j, e);
		if (rc <= 0)
			return rc;
	}
	return write_table(j);
}

/* Tiles of a batch that fails stay unrecorded: a failed sync is never tried again. */
static void end_batch(struct ob_journal *j, enum ob_tile_state state)
{
	for (uint32_t i = j->first; i < j->end; i++)
		if (j->tile[i].state == OB_TILE_SYNCING)
			j->tile[i].state = (uint8_t)state;
	j->step = IDLE;
}

int ob_journal_step(struct ob_journal *j, bool last, ob_err *e)
{
	if (j->fd < 0 || j->step != IDLE || j->lo >= j->hi)
		return 0;
	if (!last && j->bytes < j->batch_bytes && ob_now() - j->since < BATCH_SECONDS)
		return 0;
	j->first = j->at = j->lo;
	j->end = j->hi;
	j->lo = UINT32_MAX;
	j->hi = 0;
	j->bytes = 0;
	for (uint32_t i = j->first; i < j->end; i++)
		if (j->tile[i].state == OB_TILE_WRITTEN)
			j->tile[i].state = OB_TILE_SYNCING;
	for (size_t i = 0; i < j->plan->n_files; i++)
		j->file[i] = j->file[i] & DIRTY ? IN_BATCH : 0;
	j->at_file = 0;
	j->step = SYNC_DATA;
	if (!next_request(j, e))
		return 0;
	end_batch(j, OB_TILE_WRITTEN);
	return -1;
}

static int fail_request(const struct ob_journal *j, ob_err *e)
{
	if (j->step == SYNC_DATA)
		return ob_fail_sys(e, OB_IO, j->req.error, "cannot bring %s to the disk",
				   j->target[j->at_file].handle->path);
	return ob_fail_sys(e, OB_IO, j->req.error, "cannot %s the journal in %s",
			   j->step == WRITE_TABLE ? "write" : "sync", j->folder);
}

int ob_journal_complete(struct ob_journal *j, bool abandon, ob_err *e)
{
	int rc = j->req.error ? fail_request(j, e) : 0;
	if (j->held)
		ob_handle_drop(j->held);
	j->held = NULL;
	if (rc || abandon) {
		end_batch(j, OB_TILE_WRITTEN);
		return rc;
	}
	switch (j->step) {
	case SYNC_DATA:
		j->at_file++;
		break;
	case WRITE_TABLE:
		j->at += j->req.len / (uint32_t)sizeof(*j->window);
		break;
	default:
		end_batch(j, OB_TILE_KEPT);
		return 0;
	}
	rc = next_request(j, e);
	if (rc)
		end_batch(j, OB_TILE_WRITTEN);
	return rc;
}
