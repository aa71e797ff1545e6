/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target of the npz reader: zip archives as they are; all else is an array in an archive, stored
 * and deflated. */
#include "../container/zipmaker.h"
#include "container_fuzz.h"

static void fuzz_data(const char *data, size_t size)
{
	const struct zip_spec m[] = {
		{ "a.npy", data, size, 0 },
		{ "b.npy", data, size, 1 },
		{ "README", data, size, 1 },
	};
	uint8_t *zip;
	size_t zip_size;

	if (size >= 2 && memcmp(data, "PK", 2) == 0) {
		fuzz_container(&ob_container_npz, true, data, size);
		return;
	}
	zip = zip_make(m, 3, ZIP_NUMPY, &zip_size);
	fuzz_container(&ob_container_npz, true, zip, zip_size);
	free(zip);
}
