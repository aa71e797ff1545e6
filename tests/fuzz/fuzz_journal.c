/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target of the journal. The input is a journal file; a record whose checksum is zero gets the
 * right one, since none would be found by chance. Whatever the file holds:
 *  - a tile counts as done only if the record at its place has the right checksum;
 *  - what counts as done is still to be read back and compared.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "../support/check.h"
#include "../support/journal_file.h"
#include "fuzz.h"

#define MAX_SIZE 8192

int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct world world;
static struct ob_plan *plan;
static int fd;

static void clean_up(void)
{
	ob_plan_free(plan);
	world_end(&world);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	plan = journal_plan(&world);
	fd = memfd_create("journal", MFD_CLOEXEC);
	fuzz_require(fd >= 0);
	atexit(clean_up);
	return 0;
}

static void put_checksums(uint8_t *file, size_t size)
{
	for (size_t i = 0; (i + 1) * JOURNAL_RECORD <= size; i++) {
		uint8_t *record = file + i * JOURNAL_RECORD, *at = record + JOURNAL_RECORD - 8;
		uint64_t check;

		memcpy(&check, at, 8);
		if (check)
			continue;
		check = journal_check(record, i);
		memcpy(at, &check, 8);
	}
}

static void check(struct ob_journal *j, const uint8_t *file, size_t size)
{
	uint64_t kept = 0;

	for (size_t i = 0; i < plan->n_tiles; i++) {
		const struct ob_tile_record *r = ob_journal_tile(j, i);
		const uint8_t *record = file + i * JOURNAL_RECORD;
		bool good = false;
		uint64_t sum;

		if ((i + 1) * JOURNAL_RECORD <= size) {
			memcpy(&sum, record + JOURNAL_RECORD - 8, 8);
			good = sum == journal_check(record, i);
		}
		fuzz_require(r->state == (good ? OB_TILE_KEPT : OB_TILE_OPEN));
		fuzz_require(r->suspect == good);
		kept += good ? ob_tile_out_bytes(plan, &plan->tile[i]) : 0;
	}
	fuzz_require(ob_journal_kept(j) == kept && ob_journal_suspected(j) == kept);
}

static void fuzz_data(const char *data, size_t size)
{
	uint8_t file[MAX_SIZE];
	struct ob_journal *j = NULL;
	ob_err e = { 0 };
	int rc;

	size = size < sizeof(file) ? size : sizeof(file);
	if (size)
		memcpy(file, data, size);
	put_checksums(file, size);
	fuzz_require(ftruncate(fd, 0) == 0 && pwrite(fd, file, size, 0) == (ssize_t)size);
	fuzz_begin();
	rc = ob_journal_new(&j, plan, &e);
	if (rc == 0)
		rc = ob_journal_open(j, fd, "fuzz", JOURNAL_KEY, 0, &e);
	if (fuzz_end(rc, &e)) {
		fuzz_require(rc == 0);
		check(j, file, size);
	}
	if (e.code == OB_OK)
		ob_journal_free(j);
}
