/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target of the safetensors reader. */
#include "container_fuzz.h"

static void fuzz_data(const char *data, size_t size)
{
	fuzz_container(&ob_container_safetensors, false, data, size);
}
