/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target of the safetensors reader. */
#include "container_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_container(&ob_container_safetensors, data, size);
	return 0;
}
