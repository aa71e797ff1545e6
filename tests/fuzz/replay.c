/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main() of a fuzz target in builds without libFuzzer: gives it every file named on the command line
 * once, as libFuzzer does with files.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static int replay(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = NULL;
	long size = -1;
	int ret = -1;

	if (f && fseek(f, 0, SEEK_END) == 0)
		size = ftell(f);
	if (size >= 0)
		/* Exactly as long as the input, so that a sanitizer sees one byte too many. */
		data = malloc((size_t)size);
	if (data || size == 0) {
		rewind(f);
		if (fread(data, 1, (size_t)size, f) == (size_t)size)
			ret = LLVMFuzzerTestOneInput(data, (size_t)size);
	}
	if (ret)
		fprintf(stderr, "%s: %s\n", path,
			errno ? strerror(errno) : "rejected by the target");
	free(data);
	if (f)
		fclose(f);
	return ret;
}

int main(int argc, char **argv)
{
	int failed = 0;

	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 1; i < argc; i++)
		failed |= replay(argv[i]) != 0;
	printf("replayed %d inputs\n", argc - 1);
	return argc < 2 || failed;
}
