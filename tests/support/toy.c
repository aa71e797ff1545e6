/* SPDX-License-Identifier: Apache-2.0 */
#include "toy.h"

#include <dirent.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "check.h"
#include "kernels/kernels.h"

void toy_dir(char *path, size_t size)
{
	const char *tmp = getenv("TMPDIR");

	if (!tmp)
		tmp = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
	snprintf(path, size, "%s/oocbake-toy-XXXXXX", tmp);
	CHECK(mkdtemp(path), "%s", path);
}

static FILE *create(const char *dir, const char *name)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "wb");
	CHECK(f, "%s", path);
	return f;
}

void toy_text(const char *dir, const char *name, const char *text)
{
	FILE *f = create(dir, name);

	CHECK(fputs(text, f) >= 0 && !fclose(f), "%s", name);
}

static uint64_t elems(const struct toy_tensor *t)
{
	return (t->rows ? t->rows : 1) * t->cols;
}

static size_t header(char *text, size_t size, const struct toy_tensor *t, size_t n)
{
	size_t len = (size_t)snprintf(text, size, "{\"__metadata__\":{\"format\":\"pt\"}");
	uint64_t pos = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t end = pos + elems(&t[i]) * ob_dtype_bits(t[i].dtype) / 8;

		len += (size_t)snprintf(text + len, size - len,
					",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t[i].name,
					ob_dtype_name(t[i].dtype));
		if (t[i].rows)
			len += (size_t)snprintf(text + len, size - len, "%ju,",
						(uintmax_t)t[i].rows);
		len += (size_t)snprintf(text + len, size - len, "%ju],\"data_offsets\":[%ju,%ju]}",
					(uintmax_t)t[i].cols, (uintmax_t)pos, (uintmax_t)end);
		pos = end;
	}
	len += (size_t)snprintf(text + len, size - len, "}");
	CHECK(len < size, "a larger header than expected");
	return len;
}

void toy_safetensors(const char *dir, const char *name, const struct toy_tensor *t, size_t n)
{
	char text[4096];
	uint64_t len = header(text, sizeof(text), t, n), state = ob_hash64(name, strlen(name), 0);
	FILE *f = create(dir, name);

	CHECK(fwrite(&len, sizeof(len), 1, f) == 1 && fwrite(text, len, 1, f) == 1, "%s", name);
	for (size_t i = 0; i < n; i++)
		for (uint64_t k = 0; k < elems(&t[i]); k++) {
			float x;
			uint8_t bytes[4];

			state = state * 6364136223846793005u + 1442695040888963407u;
			x = ((float)(state >> 40) * 0x1p-24f - 0.5f) * 0.1f;
			ob_store_f32(bytes, &x, t[i].dtype, 1);
			CHECK(fwrite(bytes, ob_dtype_bits(t[i].dtype) / 8, 1, f) == 1, "%s", name);
		}
	CHECK(!fclose(f), "%s", name);
}

#define LAYER "model.layers.0."

void toy_model(const char *dir)
{
	static const struct toy_tensor first[] = {
		{ "model.embed_tokens.weight", OB_BF16, 333, 192 },
		{ LAYER "input_layernorm.weight", OB_BF16, 0, 193 },
		{ LAYER "self_attn.q_proj.weight", OB_BF16, 192, 192 },
	};
	static const struct toy_tensor second[] = {
		{ LAYER "mlp.down_proj.weight", OB_BF16, 192, 256 },
		{ LAYER "mlp.up_proj.weight", OB_BF16, 256, 192 },
		{ "model.norm.weight", OB_F32, 0, 192 },
	};
	char folder[4096];

	CHECK(!mkdir(dir, 0700), "%s", dir);
	toy_safetensors(dir, "model-00001-of-00002.safetensors", first, 3);
	toy_safetensors(dir, "model-00002-of-00002.safetensors", second, 3);
	toy_text(dir, "model.safetensors.index.json",
		 "{\"metadata\":{\"total_size\":0},\"weight_map\":{"
		 "\"model.embed_tokens.weight\":\"model-00001-of-00002.safetensors\","
		 "\"" LAYER "input_layernorm.weight\":\"model-00001-of-00002.safetensors\","
		 "\"" LAYER "self_attn.q_proj.weight\":\"model-00001-of-00002.safetensors\","
		 "\"" LAYER "mlp.down_proj.weight\":\"model-00002-of-00002.safetensors\","
		 "\"" LAYER "mlp.up_proj.weight\":\"model-00002-of-00002.safetensors\","
		 "\"model.norm.weight\":\"model-00002-of-00002.safetensors\"}}");
	toy_text(dir, "config.json",
		 "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\",\n"
		 "  \"tie_word_embeddings\": true,\n  \"torch_dtype\": \"bfloat16\"\n}\n");
	toy_text(dir, "tokenizer.json", "{\"version\":\"1.0\"}\n");
	snprintf(folder, sizeof(folder), "%s/extra", dir);
	CHECK(!mkdir(folder, 0700), "%s", folder);
	toy_text(folder, "readme.txt", "more\n");
}

void toy_lora(const char *dir)
{
#define FACTORS(module, rows, cols)                                                 \
	{ "base_model.model." LAYER module ".lora_A.weight", OB_F32, 4, cols },     \
	{                                                                           \
		"base_model.model." LAYER module ".lora_B.weight", OB_BF16, rows, 4 \
	}
	static const struct toy_tensor t[] = {
		FACTORS("self_attn.q_proj", 192, 192),
		FACTORS("mlp.up_proj", 256, 192),
		FACTORS("mlp.down_proj", 192, 256),
	};

	CHECK(!mkdir(dir, 0700), "%s", dir);
	toy_safetensors(dir, "adapter_model.safetensors", t, sizeof(t) / sizeof(*t));
	toy_text(dir, "adapter_config.json",
		 "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, "
		 "\"target_modules\": [\"q_proj\", \"up_proj\", \"down_proj\"]}\n");
}

/* ---- what there is ------------------------------------------------------------------------- */

static uint64_t hash_file(const char *path)
{
	static char buf[1 << 16];
	FILE *f = fopen(path, "rb");
	uint64_t h = 1;
	size_t n;

	CHECK(f, "%s", path);
	while ((n = fread(buf, 1, sizeof(buf), f)) > 0)
		h = ob_hash64(buf, n, h);
	fclose(f);
	return h;
}

uint64_t toy_hash(const char *path)
{
	struct stat st;
	struct dirent *entry;
	uint64_t h = 2;
	DIR *d;

	if (lstat(path, &st))
		return 0;
	if (!S_ISDIR(st.st_mode))
		return hash_file(path);
	d = opendir(path);
	CHECK(d, "%s", path);
	while ((entry = readdir(d))) {
		char inner[4096];

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
		/* A sum: the order of the entries is the file system's. */
		h += ob_hash64(entry->d_name, strlen(entry->d_name), toy_hash(inner));
	}
	closedir(d);
	return h;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *w)
{
	(void)st, (void)flag, (void)w;
	return remove(path);
}

void toy_remove(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
