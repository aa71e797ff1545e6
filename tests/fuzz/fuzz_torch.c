/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target of the torch reader: zip archives, and files of the format before torch 1.6, as they
 * are; all else is the pickle in an archive with three storages, since a changed pickle would not get
 * past the archive's checksum. */
#include "../container/zipmaker.h"
#include "container_fuzz.h"

static void fuzz_data(const char *data, size_t size)
{
	static const uint8_t storage[64];
	const struct zip_spec m[] = {
		{ "archive/data.pkl", data, size, 0 },
		{ "archive/data/0", storage, 64, 0 },
		{ "archive/data/1", storage, 24, 0 },
		{ "archive/data/2", storage, 0, 0 },
	};
	uint8_t *zip;
	size_t zip_size;

	if ((size >= 2 && memcmp(data, "PK", 2) == 0) ||
	    (size >= 4 && memcmp(data, "\x80\2\x8a\12", 4) == 0)) {
		fuzz_container(&ob_container_torch, true, data, size);
		return;
	}
	zip = zip_make(m, 4, ZIP_PLAIN, &zip_size);
	fuzz_container(&ob_container_torch, true, zip, zip_size);
	free(zip);
}
