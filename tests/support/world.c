/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "check.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"

static void *need(void *p)
{
	CHECK(p, "out of memory");
	return p;
}

static void *take(struct world *w, size_t n)
{
	return need(ob_arena_alloc(&w->arena, n, NULL));
}

void world_begin(struct world *w)
{
	static const char *const names[] = { "model-a", "model-b", "adapter" };

	*w = (struct world){
		.model = { .path = "model", .weights_prefix = "model" },
		.recipe = { .dtype = OB_N_DTYPES, .max_shard = 5000000000u, .out = "out" },
	};
	for (unsigned i = 0; i < WORLD_FILES; i++) {
		w->file[i] = (struct ob_file){ .path = names[i] };
		w->size[i] = 1000; /* no offset is round by chance */
	}
	w->model_files[0] = &w->file[WORLD_MODEL_A];
	w->model_files[1] = &w->file[WORLD_MODEL_B];
	w->model.file = w->model_files;
	w->model.n_files = 2;
	w->model.tensor = w->tensor;
	w->edits.of = w->of;
}

static const char *path_of(const struct world *w, const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", w->dir, name);
	return path;
}

static void close_targets(struct world *w)
{
	char name[16];

	for (unsigned i = 0; i < WORLD_TARGETS; i++) {
		if (!w->target[i].handle)
			continue;
		ob_handle_drop(&w->handle[i]);
		ob_handle_close(&w->handle[i]);
		w->target[i].handle = NULL;
		snprintf(name, sizeof(name), "out%u", i);
		unlink(path_of(w, name));
	}
}

void world_end(struct world *w)
{
	close_targets(w);
	for (unsigned i = 0; i < WORLD_FILES; i++) {
		if (w->opened[i])
			unlink(w->opened[i]->path);
		ob_file_close(w->opened[i]);
	}
	if (w->dir[0])
		rmdir(w->dir);
	ob_arena_free(&w->arena);
}

/* ---- inputs -------------------------------------------------------------------------------- */

struct ob_encoding world_float(enum ob_dtype t)
{
	return (struct ob_encoding){ .codec = &ob_codec_float, .dtype = t };
}

struct ob_encoding world_mlx(unsigned bits, unsigned group, enum ob_dtype carrier)
{
	return (struct ob_encoding){
		.codec = &ob_codec_mlx, .dtype = carrier, .bits = (uint16_t)bits, .group = group
	};
}

static struct ob_shape shape_of(struct world *w, uint32_t rank, const uint64_t *dim)
{
	uint64_t *own = take(w, rank * sizeof(*own));

	if (rank)
		memcpy(own, dim, rank * sizeof(*own));
	return (struct ob_shape){ rank, own };
}

static const char *name_of(struct world *w, const char *name, const char *suffix)
{
	size_t n = strlen(name);

	if (suffix && n > 7 && !strcmp(name + n - 7, ".weight"))
		n -= 7;
	return need(ob_arena_printf(&w->arena, NULL, "%.*s%s", (int)n, name, suffix ? suffix : ""));
}

uint32_t world_tensor(struct world *w, const char *name, struct ob_encoding enc, uint32_t rank,
		      const uint64_t *dim)
{
	struct ob_tensor *t = &w->tensor[w->model.n_tensors];
	struct ob_parts parts;
	uint64_t elems;

	CHECK(w->model.n_tensors < WORLD_TENSORS, "too many tensors");
	*t = (struct ob_tensor){ .name = name, .shape = shape_of(w, rank, dim), .enc = enc };
	CHECK(!enc.codec->layout(&enc, &t->shape, &w->arena, &parts, NULL), "%s", name);
	CHECK(ob_shape_elems(&t->shape, &elems), "%s", name);
	for (unsigned k = 0; k < parts.n; k++) {
		struct ob_stored *s = take(w, sizeof(*s));

		w->size[w->place] += w->pad;
		*s = (struct ob_stored){
			.name = name_of(w, name, parts.part[k].suffix),
			.dtype = parts.part[k].dtype,
			.shape = parts.part[k].shape,
			.file = &w->file[w->place],
			.off = w->size[w->place],
			.len = parts.part[k].len,
		};
		w->size[w->place] += s->len;
		w->model.bytes += s->len;
		t->part[t->n_parts++] = s;
	}
	w->model.params += elems;
	w->edits.n_tensors = w->model.n_tensors + 1;
	return (uint32_t)w->model.n_tensors++;
}

uint32_t world_matrix(struct world *w, const char *name, struct ob_encoding enc, uint64_t rows,
		      uint64_t cols)
{
	const uint64_t dim[] = { rows, cols };

	return world_tensor(w, name, enc, rows ? 2 : 1, rows ? dim : dim + 1);
}

struct ob_view world_factor(struct world *w, enum ob_dtype t, uint64_t rows, uint64_t cols,
			    bool turned)
{
	struct ob_view v = {
		.file = &w->file[WORLD_ADAPTER],
		.off = w->size[WORLD_ADAPTER],
		.dtype = t,
		.rows = rows,
		.cols = cols,
		.row_stride = turned ? 1 : cols,
		.col_stride = turned ? rows : 1,
	};

	CHECK(w->n_factors < WORLD_FACTORS, "too many factors");
	w->size[WORLD_ADAPTER] += rows * cols * ob_dtype_bits(t) / 8;
	w->factor[w->n_factors++] = v;
	return v;
}

void world_edit(struct world *w, uint32_t tensor, struct ob_edit edit)
{
	struct ob_tensor_edits *of = &w->of[tensor];
	const struct ob_tensor *t = &w->tensor[tensor];

	if (!of->n) {
		of->edit = take(w, WORLD_EDITS * sizeof(*of->edit));
		of->shape = t->shape;
		ob_codec_rows(&t->enc, &t->shape, &of->rows, &of->cols);
		w->edits.n_edited++;
	}
	CHECK(of->n < WORLD_EDITS, "too many edits");
	if (!edit.n_rows) {
		edit.n_rows = of->rows;
		edit.n_cols = of->cols;
	}
	of->edit[of->n++] = edit;
}

void world_lowrank(struct world *w, uint32_t tensor, uint64_t rank, float coeff)
{
	const struct ob_tensor *t = &w->tensor[tensor];
	uint64_t rows, cols;

	ob_codec_rows(&t->enc, &t->shape, &rows, &cols);
	world_edit(w, tensor,
		   (struct ob_edit){
			   .kind = OB_EDIT_LOWRANK,
			   .coeff = coeff,
			   .b = world_factor(w, OB_BF16, rows, rank, false),
			   .a = world_factor(w, OB_F32, rank, cols, false),
		   });
}

/* Values about as large as weights are; the sequence depends on the seed alone. */
static void make_up(float *x, uint64_t n, uint64_t seed)
{
	uint64_t s = seed * 0x9e3779b97f4a7c15u + 1;

	for (uint64_t i = 0; i < n; i++) {
		s = s * 6364136223846793005u + 1442695040888963407u;
		x[i] = ((float)(s >> 40) * 0x1p-24f - 0.5f) * 0.1f;
	}
}

static void whole_spans(const struct ob_encoding *enc, const struct ob_shape *shape, uint64_t n,
			unsigned n_parts, uint8_t *const *part, struct ob_span *span)
{
	for (unsigned k = 0; k < n_parts; k++) {
		struct ob_range r[OB_MAX_RANGES];
		unsigned m = enc->codec->ranges(enc, shape, k, (struct ob_elems){ 0, n }, r);

		for (unsigned i = 0; i < m; i++)
			span[k * OB_MAX_RANGES + i] =
				(struct ob_span){ part[k] + r[i].off, r[i].len };
	}
}

/* Encodes a tensor in one call. x may be changed. */
static void encode_whole(const struct ob_encoding *enc, const struct ob_shape *shape, float *x,
			 uint64_t n, unsigned n_parts, uint8_t *const *part)
{
	struct ob_span span[OB_MAX_PARTS * OB_MAX_RANGES] = { 0 };
	float *scratch = need(calloc(enc->codec->scratch_floats(enc, n) + 1, sizeof(float)));
	struct ob_elems all = { 0, n };
	size_t n_stats = ob_codec_stats(enc, shape, all);
	double *stats = need(calloc(n_stats + 1, sizeof(*stats)));
	double *total = need(calloc(n_stats + 1, sizeof(*total)));

	if (n_stats) {
		enc->codec->measure(enc, shape, all, all, x, scratch, stats);
		enc->codec->reduce(enc, shape, total, all, stats);
	}
	whole_spans(enc, shape, n, n_parts, part, span);
	enc->codec->encode(enc, shape, span, all, all, x, scratch, n_stats ? total : NULL);
	free(stats);
	free(total);
	free(scratch);
}

static float *decode_whole(const struct ob_tensor *t, enum ob_decode_mode mode)
{
	struct ob_span span[OB_MAX_PARTS * OB_MAX_RANGES] = { 0 };
	uint8_t *part[OB_MAX_PARTS];
	float *x, *scratch;
	uint64_t n;

	ob_shape_elems(&t->shape, &n);
	x = need(malloc(n * sizeof(*x)));
	scratch = need(calloc(t->enc.codec->scratch_floats(&t->enc, n) + 1, sizeof(float)));
	for (unsigned k = 0; k < t->n_parts; k++)
		part[k] = (uint8_t *)(uintptr_t)t->part[k]->file->map + t->part[k]->off;
	whole_spans(&t->enc, &t->shape, n, t->n_parts, part, span);
	t->enc.codec->decode(&t->enc, &t->shape, span, (struct ob_elems){ 0, n },
			     (struct ob_elems){ 0, n }, mode, x, scratch);
	free(scratch);
	return x;
}

static void make_up_tensor(const struct world *w, uint32_t i, uint8_t *const *bytes)
{
	const struct ob_tensor *t = &w->tensor[i];
	uint8_t *part[OB_MAX_PARTS];
	uint64_t n;
	float *x;

	ob_shape_elems(&t->shape, &n);
	for (unsigned k = 0; k < t->n_parts; k++)
		part[k] = bytes[t->part[k]->file - w->file] + t->part[k]->off;
	if (!t->enc.codec->encode || !ob_dtype_is_float(t->enc.dtype)) {
		for (uint64_t b = 0; b < t->part[0]->len; b++)
			part[0][b] = (uint8_t)(b * b * 7 + b + i);
		return;
	}
	x = need(malloc(n * sizeof(*x)));
	make_up(x, n, i + 1);
	encode_whole(&t->enc, &t->shape, x, n, t->n_parts, part);
	free(x);
}

static void open_input(struct world *w, unsigned i, const uint8_t *bytes)
{
	static const char *const names[] = { "model-a", "model-b", "adapter" };
	ob_err e = { 0 };
	const char *path = path_of(w, names[i]);
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

	CHECK(fd >= 0, "%s", path);
	for (uint64_t done = 0; done < w->size[i];) {
		ssize_t n = write(fd, bytes + done, w->size[i] - done);

		CHECK(n > 0, "%s", path);
		done += (uint64_t)n;
	}
	/* Clean pages can be dropped: a test may want reads from the disk. */
	fdatasync(fd);
	close(fd);
	CHECK(!ob_file_open(&w->opened[i], path, &e), "%s", e.msg);
	ob_file_enable_direct(w->opened[i]);
	w->file[i] = *w->opened[i];
}

void world_commit(struct world *w)
{
	const char *tmp = getenv("TMPDIR");
	uint8_t *bytes[WORLD_FILES];

	snprintf(w->dir, sizeof(w->dir), "%s/oocbake-world-XXXXXX", tmp ? tmp : "/tmp");
	CHECK(mkdtemp(w->dir), "%s", w->dir);
	for (unsigned i = 0; i < WORLD_FILES; i++) {
		bytes[i] = need(malloc(w->size[i]));
		memset(bytes[i], 0xa5, w->size[i]);
	}
	for (uint32_t i = 0; i < w->model.n_tensors; i++)
		make_up_tensor(w, i, bytes);
	for (size_t i = 0; i < w->n_factors; i++) {
		const struct ob_view *v = &w->factor[i];
		float *x = need(malloc(v->rows * v->cols * sizeof(*x)));

		make_up(x, v->rows * v->cols, 1000 + i);
		ob_store_f32(bytes[WORLD_ADAPTER] + v->off, x, v->dtype, v->rows * v->cols);
		free(x);
	}
	for (unsigned i = 0; i < WORLD_FILES; i++) {
		open_input(w, i, bytes[i]);
		free(bytes[i]);
	}
}

/* ---- plans --------------------------------------------------------------------------------- */

struct ob_plan *world_plan(struct world *w)
{
	struct ob_plan *p = NULL;
	ob_err e = { 0 };

	CHECK(!ob_plan_build(&p, &w->model, &w->edits, &w->recipe, &e), "%s", e.msg);
	return p;
}

struct ob_plan *world_plan_begin(struct world *w)
{
	struct ob_plan *p = need(ob_alloc(sizeof(*p)));

	p->model = &w->model;
	p->edits = &w->edits;
	p->recipe = &w->recipe;
	p->layout = OB_LAYOUT_HF;
	p->out = need(ob_arena_alloc(&p->arena, WORLD_TENSORS * sizeof(*p->out), NULL));
	return p;
}

struct ob_out *world_out(struct world *w, struct ob_plan *p, const char *name,
			 struct ob_encoding enc, uint64_t rows, uint64_t cols)
{
	const uint64_t dim[] = { rows, cols };
	struct ob_out *o = &p->out[p->n_outs++];

	CHECK(p->n_outs <= WORLD_TENSORS, "too many outputs");
	*o = (struct ob_out){
		.name = name, .shape = shape_of(w, 2, dim), .enc = enc, .rows = rows, .cols = cols
	};
	CHECK(!enc.codec->layout(&enc, &o->shape, &w->arena, &o->part, NULL), "%s", name);
	for (unsigned k = 0; k < o->part.n; k++)
		o->part_name[k] = name_of(w, name, o->part.part[k].suffix);
	o->out_bytes = ob_parts_bytes(&o->part);
	o->two_pass = ob_codec_stats(&enc, &o->shape, (struct ob_elems){ 0, rows * cols }) > 0;
	return o;
}

void world_piece(struct world *w, struct ob_out *o, uint32_t tensor, uint64_t src_row,
		 uint64_t n_rows, struct ob_rowmap map)
{
	const struct ob_tensor *t = &w->tensor[tensor];
	struct ob_piece *more = take(w, (o->n_pieces + 1) * sizeof(*more));
	uint64_t rows, cols, bytes = 0;

	if (o->n_pieces)
		memcpy(more, o->piece, o->n_pieces * sizeof(*more));
	more[o->n_pieces++] = (struct ob_piece){ tensor, src_row, n_rows, map };
	o->piece = more;
	ob_codec_rows(&t->enc, &t->shape, &rows, &cols);
	for (unsigned k = 0; k < t->n_parts; k++)
		bytes += t->part[k]->len;
	/* What is read: a stride reads what it leaves out, too. */
	o->in_bytes += bytes * n_rows * (map.block ? map.stride : 1) / rows;
}

/* ---- the naive computation ----------------------------------------------------------------- */

uint64_t world_source_row(const struct ob_piece *p, uint64_t i)
{
	uint64_t block = p->map.block, a = p->map.a;

	if (!block)
		return p->src_row + i;
	return p->src_row +
	       p->map.stride * (i / block * block + (i % block % a) * (block / a) + i % block / a);
}

/* The matrix as float32, row-major. */
static float *load_view(const struct ob_view *v)
{
	float *x = need(malloc(v->rows * v->cols * sizeof(*x)));
	uint64_t size = ob_dtype_bits(v->dtype) / 8;

	for (uint64_t r = 0; r < v->rows; r++)
		for (uint64_t c = 0; c < v->cols; c++)
			ob_load_f32(&x[r * v->cols + c],
				    v->file->map + v->off +
					    (r * v->row_stride + c * v->col_stride) * size,
				    v->dtype, 1, 1);
	return x;
}

/* One additive edit into the sums: products as chains of fused multiply-adds in ascending k, 256
 * at a time. */
static void add_edit(const struct ob_edit *x, float *sum, uint64_t cols)
{
	float *b = load_view(&x->b), *a = x->kind == OB_EDIT_LOWRANK ? load_view(&x->a) : NULL;

	for (uint64_t r = 0; r < x->n_rows; r++)
		for (uint64_t c = 0; c < x->n_cols; c++) {
			float *s = &sum[(x->row0 + r) * cols + x->col0 + c];

			if (!a) {
				*s += b[r * x->b.cols + c] * x->coeff;
				continue;
			}
			for (uint64_t k0 = 0; k0 < x->b.cols; k0 += 256) {
				float chain = 0;

				for (uint64_t k = k0; k < x->b.cols && k < k0 + 256; k++) {
					float up = b[r * x->b.cols + k] * x->coeff;
					float down = a[k * x->a.cols + c];

					/* Without FMA kernels each step rounds twice. */
					chain = ob_gemm_is_fma() ? fmaf(up, down, chain)
								 : chain + up * down;
				}
				*s += chain;
			}
		}
	free(b);
	free(a);
}

static void apply_edits(const struct ob_out *o, float *x)
{
	uint64_t n = o->rows * o->cols;
	float *sum = need(malloc(n * sizeof(*sum)));
	bool pending = false;

	for (uint32_t i = 0; i <= o->n_edits; i++) {
		const struct ob_edit *e = &o->edit[i];
		bool additive = i < o->n_edits &&
				(e->kind == OB_EDIT_LOWRANK || e->kind == OB_EDIT_ADD);

		for (uint64_t k = 0; k < n && additive != pending; k++) {
			if (pending)
				x[k] += sum[k];
			sum[k] = -0.0f;
		}
		pending = additive;
		if (i == o->n_edits)
			break;
		if (additive) {
			add_edit(e, sum, o->cols);
			continue;
		}
		float *b = load_view(&e->b);

		for (uint64_t r = 0; r < e->n_rows; r++)
			memcpy(x + (e->kind == OB_EDIT_REPLACE ? r : e->index[r]) * o->cols,
			       b + r * o->cols, o->cols * sizeof(*x));
		free(b);
	}
	free(sum);
}

static float *assemble(const struct world *w, const struct ob_out *o)
{
	float *x = need(calloc(o->rows * o->cols, sizeof(*x)));
	uint64_t row = 0;

	for (uint32_t i = 0; i < o->n_pieces; i++) {
		const struct ob_piece *pc = &o->piece[i];
		float *src = decode_whole(&w->tensor[pc->tensor],
					  o->n_edits ? OB_DECODE_F32 : OB_DECODE_EXACT);

		for (uint64_t r = 0; r < pc->n_rows; r++)
			memcpy(x + (row + r) * o->cols, src + world_source_row(pc, r) * o->cols,
			       o->cols * sizeof(*x));
		row += pc->n_rows;
		free(src);
	}
	return x;
}

static void expect(const struct world *w, const struct ob_out *o, struct world_bytes *b)
{
	for (unsigned k = 0; k < o->part.n; k++)
		b->part[k] = need(calloc(o->part.part[k].len + 1, 1));
	if (o->copy) {
		const struct ob_tensor *t = &w->tensor[o->piece[0].tensor];

		for (unsigned k = 0; k < o->part.n; k++)
			memcpy(b->part[k], t->part[k]->file->map + t->part[k]->off,
			       o->part.part[k].len);
	} else if (o->rows > 0) {
		float *x = assemble(w, o);

		if (o->n_edits)
			apply_edits(o, x);
		encode_whole(&o->enc, &o->shape, x, o->rows * o->cols, o->part.n, b->part);
		free(x);
	}
}

struct world_bytes *world_expect(const struct world *w, const struct ob_plan *p)
{
	struct world_bytes *b = need(calloc(p->n_outs, sizeof(*b)));

	for (size_t i = 0; i < p->n_outs; i++)
		expect(w, &p->out[i], &b[i]);
	return b;
}

void world_bytes_free(const struct ob_plan *p, struct world_bytes *b)
{
	for (size_t i = 0; i < p->n_outs; i++)
		for (unsigned k = 0; k < OB_MAX_PARTS; k++)
			free(b[i].part[k]);
	free(b);
}

/* ---- runs ---------------------------------------------------------------------------------- */

static int engine(const struct ob_plan *p, struct ob_run *run, unsigned workers, unsigned slots,
		  const struct ob_target *target, ob_err *e)
{
	struct ob_budget budget = { .workers = workers, .slots = slots };
	int rc;

	run->plan = p;
	run->budget = &budget;
	run->target = target;
	rc = ob_engine_run(run, e);
	run->budget = NULL;
	run->target = NULL;
	return rc;
}

static const char *output_path(const struct world *w, size_t i)
{
	char name[16];

	snprintf(name, sizeof(name), "out%zu", i);
	return path_of(w, name);
}

static int open_output(struct ob_handle *h, int flags, ob_err *e)
{
	const struct world *w = h->owner;
	int fd = open(output_path(w, (size_t)(h - w->handle)), O_RDWR | O_CREAT | flags, 0600);

	return fd < 0 ? ob_fail(e, OB_IO, "cannot open %s", h->path) : fd;
}

static bool works(int fd)
{
	return fd >= 0;
}

int world_run(struct world *w, const struct ob_plan *p, struct ob_run *run, unsigned workers,
	      unsigned slots, ob_err *e)
{
	CHECK(p->n_files <= WORLD_TARGETS, "too many files");
	close_targets(w);
	for (size_t i = 0; i < p->n_files; i++) {
		struct ob_handle *h = &w->handle[i];

		ob_handle_init(h, p->file[i].name, open_output, w);
		/* Until the next run, so that tests can look into them. */
		CHECK(!ob_handle_hold(h, e) && !posix_fallocate(h->fd, 0, (off_t)p->file[i].size),
		      "%s", h->path);
		ob_handle_enable_direct(h, works);
		w->target[i] = (struct ob_target){ .handle = h };
	}
	return engine(p, run, workers, slots, w->target, e);
}

int world_run_again(struct world *w, const struct ob_plan *p, struct ob_run *run, unsigned workers,
		    unsigned slots, ob_err *e)
{
	return engine(p, run, workers, slots, w->target, e);
}

int world_verify(struct world *w, const struct ob_plan *p, struct ob_run *run, unsigned workers,
		 unsigned slots, ob_err *e)
{
	struct ob_target target[WORLD_TARGETS];
	struct ob_file *f[WORLD_TARGETS];
	int rc;

	for (size_t i = 0; i < p->n_files; i++) {
		CHECK(!ob_file_open(&f[i], output_path(w, i), e), "%s", e->msg);
		ob_file_enable_direct(f[i]);
		target[i] = (struct ob_target){ .reference = f[i] };
	}
	run->verify = true;
	rc = engine(p, run, workers, slots, target, e);
	for (unsigned i = 0; i < p->n_files; i++)
		ob_file_close(f[i]);
	return rc;
}

static void compare_part(const struct world *w, const struct ob_out *o, unsigned k,
			 const uint8_t *want, const char *what)
{
	uint64_t len = o->part.part[k].len, at = 0;
	uint8_t *have = need(malloc(len + 1));
	int fd = w->target[o->part_file[k]].handle->fd;

	CHECK(pread(fd, have, len, (off_t)o->part_off[k]) == (ssize_t)len, "%s", what);
	while (at < len && have[at] == want[at])
		at++;
	CHECK(at == len, "%s: %s differs at byte %llu of %llu: %02x instead of %02x", what,
	      o->part_name[k], (unsigned long long)at, (unsigned long long)len, have[at], want[at]);
	free(have);
}

void world_compare(const struct world *w, const struct ob_plan *p, const struct world_bytes *want,
		   const char *what)
{
	for (size_t i = 0; i < p->n_outs; i++)
		for (unsigned k = 0; k < p->out[i].part.n; k++)
			compare_part(w, &p->out[i], k, want[i].part[k], what);
}
