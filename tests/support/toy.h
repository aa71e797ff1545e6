/* SPDX-License-Identifier: Apache-2.0 */
/* Toy models and adapters as folders of files, and what a folder holds. */
#ifndef OB_TESTS_SUPPORT_TOY_H
#define OB_TESTS_SUPPORT_TOY_H

#include <stdint.h>

#include "base/dtype.h"

struct toy_tensor {
	const char *name;
	enum ob_dtype dtype; /* float */
	uint64_t rows, cols; /* rows 0: one dimension */
};

/* A new folder under TMPDIR; unless that is set in memory, where syncing takes no time. */
void toy_dir(char *path, size_t size);
void toy_text(const char *dir, const char *name, const char *text);
void toy_safetensors(const char *dir, const char *name, const struct toy_tensor *t, size_t n);
/* A llama of one layer in bf16: two shards and an index, config.json, a tokenizer, and a folder of
 * other files. One tensor is large enough for direct transfers and begins off the blocks. */
void toy_model(const char *dir);
/* PEFT LoRA of rank 4 on three of its linears. */
void toy_lora(const char *dir);

/* A hash over names and bytes of everything below path; 0 when there is nothing of that name. */
uint64_t toy_hash(const char *path);
void toy_remove(const char *path);

#endif
