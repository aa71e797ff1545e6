/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mkmodel: writes a llama-shaped model of any size, and a LoRA for it, at the speed of the disk.
 *
 *   OUTDIR/model   config.json, generation_config.json, tokenizer files, safetensors shards, index
 *   OUTDIR/lora    adapter_config.json, adapter_model.safetensors (with --lora)
 *
 * Layers have the real shapes; the size is met by their number, and the vocabulary keeps its share
 * of the whole. Sizes below two layers halve the width. Weights are normal, sigma 0.02; every 4 MiB
 * depend on the seed and their place alone, so the same command gives the same bytes on any number
 * of threads. Stands alone: a defect of the library cannot hide in its own test data.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK (4u << 20) /* bytes made and written at once */
#define MAX_THREADS 16
#define TABLE 65536 /* quantiles of the normal distribution: one for each 16 random bits */

struct shape {
	const char *name;
	uint64_t hidden, ffn, head_dim, kv_heads, vocab, layers;
	double rope_theta;
};

static const struct shape shapes[] = {
	{ "llama2-7b", 4096, 11008, 128, 32, 32000, 32, 10000 },
	{ "llama3-8b", 4096, 14336, 128, 8, 128256, 32, 500000 },
	{ "llama3-70b", 8192, 28672, 128, 8, 128256, 80, 500000 },
	{ "tinyllama-1.1b", 2048, 5632, 64, 4, 32000, 22, 10000 },
};

struct tensor {
	char name[112];
	uint64_t rows, cols; /* cols 0: one dimension */
	uint64_t elems, bytes;
	uint64_t off;	/* in its file, header included */
	uint64_t first; /* number of its first chunk */
	bool is_norm;
	unsigned shard;
};

struct shard {
	char path[4096];
	int fd;
	uint64_t size;
};

/* A folder of tensors to write: the model, or the adapter. */
struct set {
	struct tensor *tensor;
	size_t n, cap;
	struct shard *shard;
	unsigned n_shards;
	uint64_t n_chunks, bytes;
	bool f32;
	uint64_t seed;
	_Atomic uint64_t next; /* chunk */
};

static const char *const linears[] = { "q_proj",    "k_proj",  "v_proj",   "o_proj",
				       "gate_proj", "up_proj", "down_proj" };

/* Normal values, mean 0 for weights [0] and 1 for norms [1]. float32 adds two of `half`, which
 * gives it 2^32 values instead of 2^16. */
static uint16_t table_bf16[2][TABLE];
static float table_half[2][TABLE];

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	va_list ap;

	fputs("mkmodel: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static void *need(void *p)
{
	if (!p)
		die("out of memory");
	return p;
}

static uint64_t mix(uint64_t z)
{
	/* splitmix64 */
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static uint16_t to_bf16(float x)
{
	uint32_t u;

	memcpy(&u, &x, sizeof(u));
	return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

static void tables_init(void)
{
	const double sigma = 0.02;
	double x = -4.2;

	for (unsigned i = 0; i < TABLE; i++) {
		double p = (i + 0.5) / TABLE;

		/* Newton from the quantile before. */
		for (int k = 0; k < 4; k++)
			x -= (0.5 * erfc(-x * M_SQRT1_2) - p) /
			     (exp(-0.5 * x * x) / sqrt(2 * M_PI));
		for (int norm = 0; norm < 2; norm++) {
			table_bf16[norm][i] = to_bf16((float)(norm + sigma * x));
			table_half[norm][i] = (float)(0.5 * norm + M_SQRT1_2 * sigma * x);
		}
	}
}

/* Fills buf with n bytes of chunk `number`: a multiple of 8, rounded up by the caller. */
static void fill(void *buf, size_t n, uint64_t seed, uint64_t number, bool f32, bool is_norm)
{
	uint64_t state = mix(seed + mix(number + 1));
	const uint16_t *b = table_bf16[is_norm];
	const float *h = table_half[is_norm];

	for (size_t i = 0; i < n / 8; i++) {
		uint64_t r = mix(state += 0x9e3779b97f4a7c15u);
		unsigned r0 = r & 0xffff, r1 = (r >> 16) & 0xffff;
		unsigned r2 = (r >> 32) & 0xffff, r3 = (unsigned)(r >> 48);

		if (f32) {
			((float *)buf)[2 * i] = h[r0] + h[r1];
			((float *)buf)[2 * i + 1] = h[r2] + h[r3];
		} else {
			((uint64_t *)buf)[i] = (uint64_t)b[r0] | (uint64_t)b[r1] << 16 |
					       (uint64_t)b[r2] << 32 | (uint64_t)b[r3] << 48;
		}
	}
}

/* ---- what is written ----------------------------------------------------------------------- */

static void __attribute__((format(printf, 5, 6)))
add(struct set *s, uint64_t rows, uint64_t cols, bool is_norm, const char *fmt, ...)
{
	struct tensor *t;
	va_list ap;

	if (s->n == s->cap) {
		s->cap = s->cap ? 2 * s->cap : 256;
		s->tensor = need(realloc(s->tensor, s->cap * sizeof(*s->tensor)));
	}
	t = &s->tensor[s->n++];
	*t = (struct tensor){ .rows = rows, .cols = cols, .is_norm = is_norm };
	t->elems = rows * (cols ? cols : 1);
	t->bytes = t->elems * (s->f32 ? 4 : 2);
	s->bytes += t->bytes;
	va_start(ap, fmt);
	vsnprintf(t->name, sizeof(t->name), fmt, ap);
	va_end(ap);
}

static uint64_t layer_elems(const struct shape *m)
{
	uint64_t kv = m->kv_heads * m->head_dim;

	return 2 * m->hidden * m->hidden + 2 * kv * m->hidden + 3 * m->ffn * m->hidden +
	       2 * m->hidden;
}

/* Scales the shape to about `elems` weights. */
static void fit(struct shape *m, uint64_t elems)
{
	uint64_t vocab = m->vocab, layers = m->layers, layer, both;

	while (elems < 2 * layer_elems(m) && m->hidden > 2 * m->head_dim && m->kv_heads) {
		m->hidden /= 2;
		m->ffn /= 2;
		if (m->kv_heads > 1)
			m->kv_heads /= 2;
	}
	/* A layer together with its share of the embeddings and the head. */
	layer = layer_elems(m);
	both = layer + 2 * m->hidden * vocab / layers;
	m->layers = (elems + both / 2) / both;
	if (m->layers < 1)
		m->layers = 1;
	m->vocab = vocab * m->layers / layers / 64 * 64;
	if (m->vocab > vocab)
		m->vocab = vocab;
	if (m->vocab < 256)
		m->vocab = 256;
}

/* Rows and columns of the i-th of `linears`. */
static void linear_shape(const struct shape *m, size_t i, uint64_t *rows, uint64_t *cols)
{
	uint64_t kv = m->kv_heads * m->head_dim;

	*rows = i == 1 || i == 2 ? kv : i == 4 || i == 5 ? m->ffn : m->hidden;
	*cols = i == 6 ? m->ffn : m->hidden;
}

static const char *block(size_t i)
{
	return i < 4 ? "self_attn" : "mlp";
}

static void add_model(struct set *s, const struct shape *m)
{
	uint64_t rows, cols;

	add(s, m->vocab, m->hidden, false, "model.embed_tokens.weight");
	for (unsigned l = 0; l < m->layers; l++) {
		add(s, m->hidden, 0, true, "model.layers.%u.input_layernorm.weight", l);
		add(s, m->hidden, 0, true, "model.layers.%u.post_attention_layernorm.weight", l);
		for (size_t i = 0; i < 7; i++) {
			linear_shape(m, i, &rows, &cols);
			add(s, rows, cols, false, "model.layers.%u.%s.%s.weight", l, block(i),
			    linears[i]);
		}
	}
	add(s, m->hidden, 0, true, "model.norm.weight");
	add(s, m->vocab, m->hidden, false, "lm_head.weight");
}

static void add_pair(struct set *s, unsigned layer, size_t i, uint64_t rows, uint64_t cols,
		     uint64_t rank)
{
#define FACTOR "base_model.model.model.layers.%u.%s.%s.lora_%c.weight"
	add(s, rank, cols, false, FACTOR, layer, block(i), linears[i], 'A');
	add(s, rows, rank, false, FACTOR, layer, block(i), linears[i], 'B');
}

static void add_lora(struct set *s, const struct shape *m, uint64_t rank)
{
	uint64_t rows, cols;

	for (unsigned l = 0; l < m->layers; l++)
		for (size_t i = 0; i < 7; i++) {
			linear_shape(m, i, &rows, &cols);
			add_pair(s, l, i, rows, cols, rank);
		}
}

/* ---- files --------------------------------------------------------------------------------- */

static FILE *create(const char *dir, const char *name)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	if (!f)
		die("%s: %s", path, strerror(errno));
	return f;
}

static void finish(FILE *f, const char *name)
{
	if (ferror(f) | fclose(f))
		die("%s: %s", name, strerror(errno));
}

/* Writes `text` with every ' as ", which keeps the JSON below readable. */
static void put_text(const char *dir, const char *name, const char *text)
{
	FILE *f = create(dir, name);

	for (; *text; text++)
		fputc(*text == '\'' ? '"' : *text, f);
	finish(f, name);
}

static void put_companions(const char *dir, const struct shape *m, bool f32)
{
	char *text;
	FILE *f;

	if (asprintf(
		    &text,
		    "{\n  'architectures': [\n    'LlamaForCausalLM'\n  ],\n  'bos_token_id': 1,\n"
		    "  'eos_token_id': 2,\n  'head_dim': %ju,\n  'hidden_act': 'silu',\n  'hidden_size': %ju,\n"
		    "  'initializer_range': 0.02,\n  'intermediate_size': %ju,\n"
		    "  'max_position_embeddings': 4096,\n  'model_type': 'llama',\n"
		    "  'num_attention_heads': %ju,\n  'num_hidden_layers': %ju,\n"
		    "  'num_key_value_heads': %ju,\n  'rms_norm_eps': 1e-05,\n  'rope_theta': %.1f,\n"
		    "  'tie_word_embeddings': false,\n  'torch_dtype': '%s',\n  'use_cache': true,\n"
		    "  'vocab_size': %ju\n}\n",
		    (uintmax_t)m->head_dim, (uintmax_t)m->hidden, (uintmax_t)m->ffn,
		    (uintmax_t)(m->hidden / m->head_dim), (uintmax_t)m->layers,
		    (uintmax_t)m->kv_heads, m->rope_theta, f32 ? "float32" : "bfloat16",
		    (uintmax_t)m->vocab) < 0)
		die("out of memory");
	put_text(dir, "config.json", text);
	free(text);
	put_text(dir, "generation_config.json",
		 "{\n  'bos_token_id': 1,\n  'eos_token_id': 2,\n  'max_length': 4096\n}\n");
	put_text(dir, "tokenizer_config.json",
		 "{\n  'bos_token': '<s>',\n  'eos_token': '</s>',\n  'model_max_length': 4096,\n"
		 "  'tokenizer_class': 'LlamaTokenizer'\n}\n");

	/* Of real size whatever the vocabulary was cut to: it is there to be copied. */
	f = create(dir, "tokenizer.json");
	fputs("{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{", f);
	for (unsigned i = 0; i < m->vocab || i < 100000; i++)
		fprintf(f, "%s\"token%06u\":%u", i ? "," : "", i, i);
	fputs("},\"merges\":[]}}\n", f);
	finish(f, "tokenizer.json");
}

static void put_adapter_config(const char *dir, uint64_t rank)
{
	char *text;

	if (asprintf(
		    &text,
		    "{\n  'base_model_name_or_path': '../model',\n  'bias': 'none',\n"
		    "  'fan_in_fan_out': false,\n  'lora_alpha': %ju,\n  'lora_dropout': 0.0,\n"
		    "  'modules_to_save': null,\n  'peft_type': 'LORA',\n  'r': %ju,\n"
		    "  'target_modules': ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', "
		    "'up_proj', 'down_proj'],\n  'task_type': 'CAUSAL_LM',\n  'use_rslora': false\n}\n",
		    (uintmax_t)(2 * rank), (uintmax_t)rank) < 0)
		die("out of memory");
	put_text(dir, "adapter_config.json", text);
	free(text);
}

/* The header of one shard. Offsets are those that set_layout gave, `base` being the first. */
static char *header_text(const struct set *s, unsigned shard, size_t *len)
{
	uint64_t pos = 0;
	char *text = NULL;
	FILE *f = need(open_memstream(&text, len));

	fputs("{\"__metadata__\":{\"format\":\"pt\"}", f);
	for (size_t i = 0; i < s->n; i++) {
		const struct tensor *t = &s->tensor[i];

		if (t->shard != shard)
			continue;
		fprintf(f, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%ju", t->name,
			s->f32 ? "F32" : "BF16", (uintmax_t)t->rows);
		if (t->cols)
			fprintf(f, ",%ju", (uintmax_t)t->cols);
		fprintf(f, "],\"data_offsets\":[%ju,%ju]}", (uintmax_t)pos,
			(uintmax_t)(pos + t->bytes));
		pos += t->bytes;
	}
	fputc('}', f);
	while (ftell(f) % 8)
		fputc(' ', f);
	if (fclose(f))
		die("out of memory");
	return text;
}

/* Deals the tensors out to shards in order, opens the files and writes their headers. */
static void set_layout(struct set *s, const char *dir, const char *stem, uint64_t shard_size)
{
	uint64_t fill_bytes = 0;

	s->n_shards = 1;
	for (size_t i = 0; i < s->n; i++) {
		struct tensor *t = &s->tensor[i];

		if (fill_bytes && fill_bytes + t->bytes > shard_size) {
			s->n_shards++;
			fill_bytes = 0;
		}
		t->shard = s->n_shards - 1;
		fill_bytes += t->bytes;
		t->first = s->n_chunks;
		s->n_chunks += (t->bytes + CHUNK - 1) / CHUNK;
	}
	s->shard = need(calloc(s->n_shards, sizeof(*s->shard)));
	for (unsigned k = 0; k < s->n_shards; k++) {
		struct shard *sh = &s->shard[k];
		size_t len;
		char *text = header_text(s, k, &len);
		uint64_t word = len;

		if (s->n_shards == 1)
			snprintf(sh->path, sizeof(sh->path), "%s/%s.safetensors", dir, stem);
		else
			snprintf(sh->path, sizeof(sh->path), "%s/%s-%05u-of-%05u.safetensors", dir,
				 stem, k + 1, s->n_shards);
		sh->fd = open(sh->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		sh->size = 8 + len;
		for (size_t i = 0; i < s->n; i++)
			if (s->tensor[i].shard == k) {
				s->tensor[i].off = sh->size;
				sh->size += s->tensor[i].bytes;
			}
		if (sh->fd < 0 || posix_fallocate(sh->fd, 0, (off_t)sh->size) != 0 ||
		    pwrite(sh->fd, &word, 8, 0) != 8 ||
		    pwrite(sh->fd, text, len, 8) != (ssize_t)len)
			die("%s: cannot create a file of %ju bytes: %s", sh->path,
			    (uintmax_t)sh->size, strerror(errno));
		free(text);
	}
}

static void put_index(const struct set *s, const char *dir, const char *stem)
{
	char name[64];
	FILE *f;

	snprintf(name, sizeof(name), "%s.safetensors.index.json", stem);
	f = create(dir, name);
	fprintf(f, "{\n  \"metadata\": {\n    \"total_size\": %ju\n  },\n  \"weight_map\": {",
		(uintmax_t)s->bytes);
	for (size_t i = 0; i < s->n; i++)
		fprintf(f, "%s\n    \"%s\": \"%s\"", i ? "," : "", s->tensor[i].name,
			strrchr(s->shard[s->tensor[i].shard].path, '/') + 1);
	fputs("\n  }\n}\n", f);
	finish(f, name);
}

/* ---- data ---------------------------------------------------------------------------------- */

static const struct tensor *tensor_of(const struct set *s, uint64_t chunk)
{
	size_t lo = 0, hi = s->n;

	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->tensor[mid].first <= chunk)
			lo = mid;
		else
			hi = mid;
	}
	return &s->tensor[lo];
}

/* One thread: chunks until none is left. What it wrote one round ago is waited for and dropped from
 * the page cache, so that a large model does not push everything else out. */
static void *writer(void *arg)
{
	struct set *s = arg;
	char *buf = need(aligned_alloc(4096, CHUNK));
	uint64_t chunk;
	off_t old_off = 0, old_len = 0;
	int old_fd = -1;

	while ((chunk = atomic_fetch_add(&s->next, 1)) < s->n_chunks) {
		const struct tensor *t = tensor_of(s, chunk);
		const struct shard *sh = &s->shard[t->shard];
		uint64_t at = (chunk - t->first) * CHUNK;
		size_t n = t->bytes - at < CHUNK ? t->bytes - at : CHUNK;
		off_t off = (off_t)(t->off + at);

		fill(buf, (n + 7) / 8 * 8, s->seed, chunk, s->f32, t->is_norm);
		for (size_t done = 0; done < n;) {
			ssize_t k = pwrite(sh->fd, buf + done, n - done, off + (off_t)done);

			if (k < 0 && errno != EINTR)
				die("%s: %s", sh->path, strerror(errno));
			done += k < 0 ? 0 : (size_t)k;
		}
		sync_file_range(sh->fd, off, (off_t)n, SYNC_FILE_RANGE_WRITE);
		if (old_fd >= 0) {
			sync_file_range(old_fd, old_off, old_len,
					SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
						SYNC_FILE_RANGE_WAIT_AFTER);
			posix_fadvise(old_fd, old_off, old_len, POSIX_FADV_DONTNEED);
		}
		old_fd = sh->fd;
		old_off = off;
		old_len = (off_t)n;
	}
	free(buf);
	return NULL;
}

static void write_set(struct set *s, const char *dir, const char *stem, uint64_t shard_size)
{
	pthread_t thread[MAX_THREADS];
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int n_threads = cpus < 2 ? 2 : cpus > MAX_THREADS ? MAX_THREADS : (int)cpus;

	set_layout(s, dir, stem, shard_size);
	for (int i = 0; i < n_threads; i++)
		if (pthread_create(&thread[i], NULL, writer, s))
			die("cannot start a thread");
	for (int i = 0; i < n_threads; i++)
		pthread_join(thread[i], NULL);
	if (s->n_shards > 1)
		put_index(s, dir, stem);
	for (unsigned k = 0; k < s->n_shards; k++) {
		if (fsync(s->shard[k].fd))
			die("%s: %s", s->shard[k].path, strerror(errno));
		posix_fadvise(s->shard[k].fd, 0, 0, POSIX_FADV_DONTNEED);
		close(s->shard[k].fd);
	}
	free(s->shard);
	free(s->tensor);
}

/* ---- command line -------------------------------------------------------------------------- */

static uint64_t parse_size(const char *text)
{
	static const struct {
		const char *suffix;
		double factor;
	} units[] = {
		{ "", 1 }, { "MB", 1e6 }, { "GB", 1e9 }, { "MiB", 1 << 20 }, { "GiB", 1 << 30 }
	};
	char *end;
	double x = strtod(text, &end);

	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
		if (end != text && x * units[i].factor >= 1 && x * units[i].factor < 1e15 &&
		    strcmp(end, units[i].suffix) == 0)
			return (uint64_t)(x * units[i].factor);
	die("%s is no size such as 600MB, 4GB or 1GiB", text);
}

static char *subdir(const char *dir, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		die("out of memory");
	if ((mkdir(dir, 0777) && errno != EEXIST) || (mkdir(path, 0777) && errno != EEXIST))
		die("%s: %s", path, strerror(errno));
	return path;
}

static void usage(int status)
{
	fputs("usage: mkmodel [options] OUTDIR\n"
	      "  --size SIZE         bytes of weights (default 4GB)\n"
	      "  --one-tensor SIZE   the model is one tensor of this size\n"
	      "  --shape NAME        llama2-7b (default), llama3-8b, llama3-70b, tinyllama-1.1b\n"
	      "  --dtype bf16|f32    of the weights (default bf16)\n"
	      "  --lora RANK         also a LoRA of that rank on all linears\n"
	      "  --lora-dtype bf16|f32\n"
	      "  --shard-size SIZE   (default 5GB)\n"
	      "  --seed N            (default 1)\n",
	      status ? stderr : stdout);
	exit(status);
}

static bool parse_f32(const char *text)
{
	if (strcmp(text, "f32") != 0 && strcmp(text, "bf16") != 0)
		die("the type %s is neither bf16 nor f32", text);
	return text[0] == 'f';
}

static struct shape parse_shape(const char *text)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
		if (strcmp(text, shapes[i].name) == 0)
			return shapes[i];
	die("the shape %s is unknown", text);
}

struct request {
	struct shape shape;
	uint64_t size, one_tensor, shard_size; /* bytes; one_tensor 0: a whole model */
	uint64_t rank, seed;		       /* rank 0: no LoRA */
	bool f32, lora_f32;
};

static void set_option(struct request *o, int c)
{
	switch (c) {
	case 's':
		o->size = parse_size(optarg);
		break;
	case 'o':
		o->one_tensor = parse_size(optarg);
		break;
	case 'm':
		o->shape = parse_shape(optarg);
		break;
	case 'd':
		o->f32 = parse_f32(optarg);
		break;
	case 'l':
		o->rank = strtoul(optarg, NULL, 10);
		break;
	case 'L':
		o->lora_f32 = parse_f32(optarg);
		break;
	case 'S':
		o->shard_size = parse_size(optarg);
		break;
	case 'r':
		o->seed = strtoul(optarg, NULL, 10);
		break;
	default:
		usage(c != 'h');
	}
}

static void write_all(const char *where, const struct request *o)
{
	struct set model = { .seed = o->seed, .f32 = o->f32 };
	struct set lora = { .seed = mix(o->seed), .f32 = o->lora_f32 };
	struct shape m = o->shape;
	char *dir;

	if (o->one_tensor) {
		m.layers = 1;
		m.ffn = o->one_tensor / (o->f32 ? 4 : 2) / m.hidden;
		add(&model, m.ffn, m.hidden, false, "model.layers.0.mlp.up_proj.weight");
		if (o->rank)
			add_pair(&lora, 0, 5, m.ffn, m.hidden, o->rank);
	} else {
		fit(&m, o->size / (o->f32 ? 4 : 2));
		add_model(&model, &m);
		if (o->rank)
			add_lora(&lora, &m, o->rank);
	}
	dir = subdir(where, "model");
	put_companions(dir, &m, o->f32);
	write_set(&model, dir, "model", o->shard_size);
	printf("%s: %ju bytes of weights, %ju layers\n", dir, (uintmax_t)model.bytes,
	       (uintmax_t)m.layers);
	free(dir);
	if (o->rank) {
		dir = subdir(where, "lora");
		put_adapter_config(dir, o->rank);
		write_set(&lora, dir, "adapter_model", UINT64_MAX);
		printf("%s: rank %ju, %ju bytes\n", dir, (uintmax_t)o->rank, (uintmax_t)lora.bytes);
		free(dir);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "size", 1, NULL, 's' },	{ "one-tensor", 1, NULL, 'o' },
		{ "shape", 1, NULL, 'm' },	{ "dtype", 1, NULL, 'd' },
		{ "lora", 1, NULL, 'l' },	{ "lora-dtype", 1, NULL, 'L' },
		{ "shard-size", 1, NULL, 'S' }, { "seed", 1, NULL, 'r' },
		{ "help", 0, NULL, 'h' },	{ NULL, 0, NULL, 0 },
	};
	struct request o = {
		.shape = shapes[0], .size = 4000000000, .shard_size = 5000000000, .seed = 1
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		set_option(&o, c);
	if (optind != argc - 1)
		usage(1);
	tables_init();
	write_all(argv[optind], &o);
	return 0;
}
