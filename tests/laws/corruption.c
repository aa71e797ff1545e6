/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small good files of every format, corrupted exhaustively: cut at every byte, every bit flipped,
 * every number in the text and every four and eight bytes replaced by values that arithmetic on
 * sizes stumbles over. Each time the reader gives an error that names the file, or a result that
 * keeps the promises of its header, in little memory and little time.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>

#include "../container/memfile.h"
#include "../container/zipmaker.h"
#include "../support/check.h"
#include "../support/journal_file.h"
#include "../support/toy.h"
#include "adapter/adapter.h"
#include "codec/bnb.h"
#include "container/zip.h"
#include "model/internal.h"

#define FILE_MAX 8192u
#define MEMORY_MAX (64u << 20)
#define SECONDS_MAX 1.0
#define MAX_PER_FORMAT 8
#define SAMPLES_MIN 3

struct sample {
	char name[64];
	uint8_t data[FILE_MAX];
	size_t n;
};

struct format {
	const char *name;
	size_t (*load)(struct sample *s); /* returns how many */
	/* Before the first corruption of the n-th sample; NULL: nothing to do. */
	void (*begin)(size_t n);
	/* Reads the bytes; returns what breaks a promise, or NULL. */
	const char *(*read)(const uint8_t *data, size_t n, ob_err *e);
};

static struct {
	const struct format *format;
	const struct sample *sample;
	unsigned long cases, accepted;
	double slowest;
} now;

static char dir[256]; /* of the adapters */
static int fd;	      /* of the file that holds a container */

/* ---- the result of one corrupted file ------------------------------------------------------ */

static double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void try(const uint8_t *data, size_t n, const char *how, size_t where)
{
	uint64_t in_use = ob_alloc_stats().in_use;
	double start = cpu_seconds();
	const char *broken;
	ob_err e = { 0 };

	broken = now.format->read(data, n, &e);
	start = cpu_seconds() - start;
	now.slowest = start > now.slowest ? start : now.slowest;
	now.cases++;
	now.accepted += e.code == OB_OK;
	if (!broken && e.code != OB_OK && (ob_exit_status(e.code) != 3 || !e.msg[0]))
		broken = "the error is no sentence about a bad input";
	if (!broken && ob_alloc_stats().in_use != in_use)
		broken = "leak";
	if (!broken && ob_alloc_stats().peak > MEMORY_MAX)
		broken = "too much memory";
	if (!broken && start > SECONDS_MAX)
		broken = "too slow";
	CHECK(!broken, "%s %s, %s %zu: %s (%s)", now.format->name, now.sample->name, how, where,
	      broken, e.msg);
}

/* ---- corruptions --------------------------------------------------------------------------- */

static void truncate_everywhere(const struct sample *s)
{
	for (size_t n = 0; n < s->n; n++)
		try(s->data, n, "cut at", n);
}

static void flip_everywhere(const struct sample *s)
{
	uint8_t data[FILE_MAX];

	memcpy(data, s->data, s->n);
	for (size_t i = 0; i < 8 * s->n; i++) {
		data[i / 8] ^= (uint8_t)(1u << i % 8);
		try(data, s->n, "flipped bit", i);
		data[i / 8] ^= (uint8_t)(1u << i % 8);
	}
}

#define N_NASTY 13

static void nasty_values(uint64_t size, uint64_t *v)
{
	const uint64_t values[N_NASTY] = {
		0,	   1,	       INT32_MAX,  1ull << 31, UINT32_MAX, 1ull << 32, 1ull << 53,
		INT64_MAX, 1ull << 63, UINT64_MAX, size - 1,   size,	   size + 1,
	};

	memcpy(v, values, sizeof(values));
}

/* Every place that could be a field: readers do not tell where theirs are. */
static void replace_fields(const struct sample *s, size_t width)
{
	uint64_t v[N_NASTY];
	uint8_t data[FILE_MAX];

	nasty_values(s->n, v);
	memcpy(data, s->data, s->n);
	for (size_t at = 0; at + width <= s->n; at++) {
		for (size_t i = 0; i < N_NASTY; i++) {
			if (width == 4 && v[i] > UINT32_MAX)
				continue;
			memcpy(data + at, &v[i], width); /* little-endian, as the files */
			try(data, s->n, width == 4 ? "four bytes at" : "eight bytes at", at);
		}
		memcpy(data + at, s->data + at, width);
	}
}

static size_t digits(const struct sample *s, size_t at)
{
	size_t n = 0;

	while (at + n < s->n && s->data[at + n] >= '0' && s->data[at + n] <= '9')
		n++;
	return n;
}

static void replace_numbers(const struct sample *s)
{
	uint8_t data[FILE_MAX + 32];
	uint64_t v[N_NASTY];

	nasty_values(s->n, v);
	memcpy(data, s->data, s->n);
	for (size_t at = 0, n; at < s->n; at += n + 1) {
		n = digits(s, at);
		for (size_t i = 0; n > 0 && i < N_NASTY; i++) {
			size_t put = (size_t)sprintf((char *)data + at, "%llu",
						     (unsigned long long)v[i]);

			memcpy(data + at + put, s->data + at + n, s->n - at - n);
			try(data, s->n - n + put, "number at", at);
		}
		memcpy(data + at, s->data + at, s->n - at);
	}
}

/* ---- containers ---------------------------------------------------------------------------- */

static const char *read_container(const struct ob_container *c, const void *data, size_t n,
				  ob_err *e)
{
	struct ob_arena a = { 0 };
	struct ob_listing l = { 0 };
	const char *broken = NULL;
	struct ob_file *f;

	CHECK(ftruncate(fd, (off_t)n) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n, "%d", fd);
	CHECK(memfile_open_fd(&f, fd, e) == 0, "%s", e->msg);
	if (c->open(f, &a, &l, e) == 0)
		broken = listing_broken(&l);
	else if (!strstr(e->msg, f->path))
		broken = "the error does not name the file";
	ob_file_close(l.unpacked);
	ob_arena_free(&a);
	ob_file_close(f);
	return broken;
}

static size_t load_folder(const char *container, struct sample *s)
{
	const char *top = getenv("top_srcdir");
	char path[1024], file[2048];
	const struct dirent *d;
	size_t n = 0;
	DIR *folder;

	snprintf(path, sizeof(path), "%s/tests/data/container/%s", top ? top : ".", container);
	folder = opendir(path);
	CHECK(folder, "%s", path);
	while ((d = readdir(folder)) && n < MAX_PER_FORMAT) {
		FILE *in;

		if (!ob_has_prefix(d->d_name, "good-"))
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, d->d_name);
		in = fopen(file, "rb");
		CHECK(in, "%s", file);
		snprintf(s[n].name, sizeof(s[n].name), "%.60s", d->d_name);
		s[n].n = fread(s[n].data, 1, FILE_MAX, in);
		CHECK(feof(in), "%s is too long", file);
		fclose(in);
		n++;
	}
	closedir(folder);
	return n;
}

static size_t load_safetensors(struct sample *s)
{
	return load_folder("safetensors", s);
}

static const char *read_safetensors(const uint8_t *data, size_t n, ob_err *e)
{
	return read_container(&ob_container_safetensors, data, n, e);
}

static size_t load_torch(struct sample *s)
{
	return load_folder("torch", s);
}

static const char *read_torch(const uint8_t *data, size_t n, ob_err *e)
{
	return read_container(&ob_container_torch, data, n, e);
}

static size_t load_npz(struct sample *s)
{
	return load_folder("npz", s);
}

static const char *read_npz(const uint8_t *data, size_t n, ob_err *e)
{
	return read_container(&ob_container_npz, data, n, e);
}

/* ---- pickles and arrays: inside an archive, whose checksum would hide every change ---------- */

/* The first member with such a name takes the place of the archive. */
static void take_member(struct sample *s, const char *suffix)
{
	const uint8_t *data = NULL;
	const struct ob_zip_member *m = NULL;
	struct ob_file *f;
	struct ob_zip z;
	void *owned;
	ob_err e = { 0 };

	CHECK(ftruncate(fd, 0) == 0, "%d", fd);
	CHECK(pwrite(fd, s->data, s->n, 0) == (ssize_t)s->n, "%d", fd);
	CHECK(memfile_open_fd(&f, fd, &e) == 0, "%s", e.msg);
	CHECK(ob_zip_open(&z, f, &e) == 0, "%s", e.msg);
	for (size_t k = z.n; k-- > 0;)
		if (ob_has_suffix(z.member[k].name, suffix))
			m = &z.member[k];
	CHECK(m && ob_zip_read(&z, m, FILE_MAX, &data, &owned, &e) == 0, "%s", e.msg);
	s->n = m->size;
	memcpy(s->data, data, m->size);
	ob_free(owned);
	ob_zip_close(&z);
	ob_file_close(f);
}

static size_t load_pickles(struct sample *s)
{
	size_t n = load_folder("torch", s), archives = 0;

	for (size_t i = 0; i < n; i++) {
		if (memcmp(s[i].data, "PK", 2) != 0)
			continue;
		s[archives] = s[i];
		take_member(&s[archives++], "/data.pkl");
	}
	return archives;
}

static size_t load_arrays(struct sample *s)
{
	size_t n = load_folder("npz", s);

	for (size_t i = 0; i < n; i++)
		take_member(&s[i], ".npy");
	return n;
}

static const char *read_array(const uint8_t *data, size_t n, ob_err *e)
{
	const struct zip_spec m[] = {
		{ "stored.npy", data, n, 0 },
		{ "deflated.npy", data, n, 1 },
	};
	size_t zip_size;
	uint8_t *zip = zip_make(m, 2, ZIP_NUMPY, &zip_size);
	const char *broken = read_container(&ob_container_npz, zip, zip_size, e);

	free(zip);
	return broken;
}

static const char *read_pickle(const uint8_t *data, size_t n, ob_err *e)
{
	static const uint8_t storage[256];
	const struct zip_spec m[] = {
		{ "archive/data.pkl", data, n, 0 },
		{ "archive/data/0", storage, 256, 0 },
		{ "archive/data/1", storage, 64, 0 },
		{ "archive/data/2", storage, 32, 0 },
	};
	size_t zip_size;
	uint8_t *zip = zip_make(m, 4, ZIP_PLAIN, &zip_size);
	const char *broken = read_container(&ob_container_torch, zip, zip_size, e);

	free(zip);
	return broken;
}

/* ---- index --------------------------------------------------------------------------------- */

static size_t load_texts(struct sample *s, const char *const *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		snprintf(s[i].name, sizeof(s[i].name), "number %zu", i);
		s[i].n = strlen(text[i]);
		memcpy(s[i].data, text[i], s[i].n);
	}
	return n;
}

static size_t load_index(struct sample *s)
{
	static const char *const text[] = {
		"{\"metadata\": {\"total_size\": 1234}, \"weight_map\": {"
		"\"model.norm.weight\": \"model-00001-of-00002.safetensors\", "
		"\"lm_head.weight\": \"model-00002-of-00002.safetensors\"}}\n",
		"{\n  \"weight_map\": {\n    \"a\\u00e4\\n\": \"x.safetensors\",\n"
		"    \"b\": \"\\u0078.safetensors\"\n  },\n  \"other\": [1, [2.5e3, null], true]\n}",
		"{\"weight_map\":{\"\":\"y\"},\"metadata\":{\"total_parameters\":8030261248,"
		"\"total_size\":\"16060522496\"}}",
	};

	return load_texts(s, text, sizeof(text) / sizeof(text[0]));
}

struct text_source {
	const uint8_t *p;
	size_t left;
};

static long give(void *ctx, char *buf, size_t n, ob_err *e)
{
	struct text_source *t = ctx;

	(void)e;
	n = n < t->left ? n : t->left;
	if (n)
		memcpy(buf, t->p, n);
	t->p += n;
	t->left -= n;
	return (long)n;
}

static int check_entry(void *ctx, const char *tensor, size_t len, const char *shard, ob_err *e)
{
	const char **broken = ctx;

	(void)e;
	if (len > OB_MAX_NAME || tensor[len] != '\0')
		*broken = "tensor name";
	if (!*shard || strlen(shard) > 255 || strchr(shard, '/') || !strcmp(shard, ".") ||
	    !strcmp(shard, ".."))
		*broken = "the name of a shard is no plain one";
	return 0;
}

static const char *read_index(const uint8_t *data, size_t n, ob_err *e)
{
	struct text_source source = { data, n };
	const char *broken = NULL;

	if (ob_index_read(give, &source, "an index", check_entry, &broken, e) != 0 &&
	    !strstr(e->msg, "an index"))
		broken = "the error does not name the file";
	return broken;
}

/* ---- quant_state --------------------------------------------------------------------------- */

static size_t load_states(struct sample *s)
{
	static const char *const text[] = {
		"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", "
		"\"shape\": [4096, 11008]}",
		"{\"quant_type\": \"nf4\", \"blocksize\": 128, \"dtype\": \"float16\", \"shape\": [8], "
		"\"nested_blocksize\": 256, \"nested_dtype\": \"float32\", "
		"\"nested_offset\": 0.04129999876022339}",
		"{\"nested_offset\" : -1e-2, \"nested_dtype\":\"float32\",\n\"nested_blocksize\":256,"
		"\"shape\":[ 1,\t2, 3 ],\"dtype\":\"float32\",\"blocksize\":4096,\"quant_type\":\"nf4\"}",
	};

	return load_texts(s, text, sizeof(text) / sizeof(text[0]));
}

static const char *read_state(const uint8_t *data, size_t n, ob_err *e)
{
	struct ob_file file = { .path = "x", .map = data, .stamp.size = n };
	uint64_t len = n;
	struct ob_stored text = { .name = "w.quant_state.bitsandbytes__nf4",
				  .dtype = OB_U8,
				  .shape = { 1, &len },
				  .file = &file,
				  .len = n };
	struct ob_arena a = { 0 };
	struct ob_bnb_state st;
	struct ob_parts parts;
	ob_err why = { 0 };
	const char *broken = NULL;

	if (ob_bnb_state_read(&text, "tensor_w", false, &a, &st, e) != 0)
		broken = strstr(e->msg, "tensor_w") ? NULL : "the error does not name the tensor";
	else if (ob_codec_bnb.layout(&st.enc, &st.shape, &a, &parts, &why) != 0)
		broken = "what was read cannot be laid out";
	ob_arena_free(&a);
	return broken;
}

/* ---- adapter configurations ---------------------------------------------------------------- */

#define N_ADAPTERS 3

static size_t load_adapters(struct sample *s)
{
	static const char *const text[N_ADAPTERS] = {
		"{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 16, \"use_rslora\": false, "
		"\"bias\": \"none\", \"rank_pattern\": {\"q\": 2}, \"alpha_pattern\": "
		"{\"^x\\\\.(q|k)$\": 4.5}, \"target_modules\": [\"q\", \"k\"]}",
		"{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 1e1, \"fan_in_fan_out\": true,\n"
		"\"trainable_token_indices\": {\"embed\": [0, 2]}, \"modules_to_save\": null}",
		"{\"fine_tune_type\": \"lora\", \"num_layers\": 16, \"lora_parameters\": "
		"{\"rank\": 2, \"scale\": 20.0, \"dropout\": 0.0}}",
	};

	return load_texts(s, text, N_ADAPTERS);
}

static void begin_adapter(size_t n)
{
	static const struct toy_tensor tensors[N_ADAPTERS][4] = {
		{ { "base_model.model.x.q.lora_A.weight", OB_F32, 2, 4 },
		  { "base_model.model.x.q.lora_B.weight", OB_F32, 3, 2 },
		  { "base_model.model.x.k.lora_A.weight", OB_BF16, 2, 4 },
		  { "base_model.model.x.k.lora_B.weight", OB_BF16, 3, 2 } },
		{ { "base_model.model.x.lora_A.weight", OB_F16, 2, 4 },
		  { "base_model.model.x.lora_B.weight", OB_F16, 3, 2 },
		  { "base_model.model.embed.token_adapter.trainable_tokens_delta", OB_F32, 2, 4 },
		  { "base_model.model.y.modules_to_save.weight", OB_F32, 0, 4 } },
		{ { "x.q.lora_a", OB_F32, 4, 2 },
		  { "x.q.lora_b", OB_F32, 2, 3 },
		  { "x.k.lora_a", OB_F32, 4, 2 },
		  { "x.k.lora_b", OB_F32, 2, 3 } },
	};

	toy_safetensors(dir, "adapter_model.safetensors", tensors[n], 4);
}

static const char *check_view(const struct ob_view *v)
{
	uint64_t last;

	if (!v->file)
		return NULL;
	if (!v->rows || !v->cols)
		return "an empty view";
	last = (v->rows - 1) * v->row_stride + (v->cols - 1) * v->col_stride;
	return ob_in_file(v->off, (last + 1) * ob_dtype_bits(v->dtype) / 8, v->file->stamp.size)
		       ? NULL
		       : "a view outside of the file";
}

static const char *read_adapter(const uint8_t *data, size_t n, ob_err *e)
{
	struct ob_adapter_spec spec = { .path = dir, .scale = 1 };
	struct ob_adapter_file *f = NULL;
	struct ob_reader_result r = { 0 };
	struct ob_arena a = { 0 };
	const char *broken = NULL;
	char path[512];
	FILE *out;

	snprintf(path, sizeof(path), "%s/adapter_config.json", dir);
	out = fopen(path, "wb");
	CHECK(out && fwrite(data, 1, n, out) == n && fclose(out) == 0, "%s", path);
	if (ob_adapter_open(&f, &a, &spec, e) == 0 && ob_adapter_read(f, &r, e) == 0)
		for (size_t i = 0; i < r.n_changes && !broken; i++) {
			broken = check_view(&r.change[i].a);
			broken = broken ? broken : check_view(&r.change[i].b);
		}
	else if (!strstr(e->msg, dir))
		broken = "the error does not name the file";
	ob_adapter_close(f);
	ob_arena_free(&a);
	return broken;
}

/* ---- journals ------------------------------------------------------------------------------ */

static struct world world;
static struct ob_plan *plan;

/* Of a finished run, of one that was killed, and of one that left holes. */
static size_t load_journals(struct sample *s)
{
	if (!plan)
		plan = journal_plan(&world);
	for (size_t k = 0; k < SAMPLES_MIN; k++) {
		snprintf(s[k].name, sizeof(s[k].name), "number %zu", k);
		s[k].n = plan->n_tiles * JOURNAL_RECORD;
		CHECK(s[k].n <= FILE_MAX && plan->n_tiles >= 4, "%zu tiles", plan->n_tiles);
		memset(s[k].data, 0, s[k].n);
		for (size_t i = 0; i < plan->n_tiles; i++) {
			uint8_t *record = s[k].data + i * JOURNAL_RECORD;
			uint64_t check;

			if ((k == 1 && i > plan->n_tiles / 2) || (k == 2 && i % 2))
				continue;
			record[0] = (uint8_t)(i + 1);
			check = journal_check(record, i);
			memcpy(record + JOURNAL_RECORD - 8, &check, 8);
		}
	}
	return SAMPLES_MIN;
}

/* A tile counts as done only by a record that nobody touched. */
static const char *read_journal(const uint8_t *data, size_t n, ob_err *e)
{
	const char *broken = NULL;
	struct ob_journal *j;

	CHECK(ftruncate(fd, (off_t)n) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n, "%d", fd);
	if (ob_journal_new(&j, plan, e) != 0)
		return e->msg;
	if (ob_journal_open(j, fd, "a journal", JOURNAL_KEY, 0, e) != 0)
		broken = "a damaged journal is refused";
	for (size_t i = 0; i < plan->n_tiles; i++) {
		const uint8_t *record = now.sample->data + i * JOURNAL_RECORD;
		bool whole = (i + 1) * JOURNAL_RECORD <= n && record[0] &&
			     !memcmp(record, data + i * JOURNAL_RECORD, JOURNAL_RECORD);

		if ((ob_journal_tile(j, i)->state == OB_TILE_KEPT) != whole)
			broken = "a changed record counts, or a good one does not";
	}
	ob_journal_free(j);
	return broken;
}

/* -------------------------------------------------------------------------------------------- */

static const struct format formats[] = {
	{ "safetensors", load_safetensors, NULL, read_safetensors },
	{ "torch", load_torch, NULL, read_torch },
	{ "pickle", load_pickles, NULL, read_pickle },
	{ "npz", load_npz, NULL, read_npz },
	{ "npy", load_arrays, NULL, read_array },
	{ "quant_state", load_states, NULL, read_state },
	{ "index", load_index, NULL, read_index },
	{ "adapter", load_adapters, begin_adapter, read_adapter },
	{ "journal", load_journals, NULL, read_journal },
};
#define N_FORMATS (sizeof(formats) / sizeof(formats[0]))

static void corrupt(const struct format *f)
{
	static struct sample sample[MAX_PER_FORMAT];
	double start = cpu_seconds();
	size_t n = f->load(sample);

	memset(&now, 0, sizeof(now));
	now.format = f;
	CHECK(n >= SAMPLES_MIN, "%s: %zu samples", f->name, n);
	for (size_t i = 0; i < n; i++) {
		unsigned long good = now.accepted;

		now.sample = &sample[i];
		if (f->begin)
			f->begin(i);
		try(sample[i].data, sample[i].n, "as it is", 0);
		CHECK(now.accepted == good + 1, "%s %s is refused", f->name, sample[i].name);
		truncate_everywhere(&sample[i]);
		flip_everywhere(&sample[i]);
		replace_numbers(&sample[i]);
		replace_fields(&sample[i], 4);
		replace_fields(&sample[i], 8);
	}
	printf("%-12s %zu files, %lu corruptions, %lu read all the same; slowest %.1f ms, all %.1f s\n",
	       f->name, n, now.cases - n, now.accepted - n, now.slowest * 1e3,
	       cpu_seconds() - start);
}

int main(void)
{
	toy_dir(dir, sizeof(dir));
	fd = memfile_fd("", 0);
	CHECK(fd >= 0, "no file in memory");
	for (size_t i = 0; i < N_FORMATS; i++)
		corrupt(&formats[i]);
	printf("at most %llu KiB of memory\n", (unsigned long long)ob_alloc_stats().peak >> 10);
	toy_remove(dir);
	close(fd);
	ob_plan_free(plan);
	world_end(&world);
	return 0;
}
