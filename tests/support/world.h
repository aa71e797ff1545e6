/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model, edits, a recipe and plans made by hand, so that a test can have any shape, and layouts
 * of pieces that no file format leads to yet. Before world_commit nothing has bytes: enough to plan
 * tensors of terabytes. After it the inputs are files, and what an engine makes of a plan can be
 * compared with a computation that knows neither tiles nor threads.
 */
#ifndef OB_TESTS_SUPPORT_WORLD_H
#define OB_TESTS_SUPPORT_WORLD_H

#include "adapter/adapter.h"
#include "engine/engine.h"
#include "model/model.h"
#include "plan/budget.h"
#include "plan/plan.h"

#define WORLD_TENSORS 64
#define WORLD_EDITS 16u
#define WORLD_FACTORS 64 /* matrices in the adapter file */
#define WORLD_TARGETS 16

enum { WORLD_MODEL_A, WORLD_MODEL_B, WORLD_ADAPTER, WORLD_FILES };

struct world {
	char dir[64];	/* of the files, "" without */
	unsigned place; /* file that the next tensor goes to */
	uint64_t pad;	/* bytes left out before each part: moves it off the blocks */
	struct ob_file file[WORLD_FILES], *opened[WORLD_FILES], *model_files[2];
	uint64_t size[WORLD_FILES];
	struct ob_view factor[WORLD_FACTORS];
	size_t n_factors;
	struct ob_tensor tensor[WORLD_TENSORS];
	struct ob_tensor_edits of[WORLD_TENSORS];
	struct ob_arena arena;
	struct ob_model model;
	struct ob_edits edits;
	struct ob_recipe recipe;		/* keep, auto, shards of 5 GB, into a folder */
	struct ob_target target[WORLD_TARGETS]; /* of the last run */
	struct ob_handle handle[WORLD_TARGETS];
};

void world_begin(struct world *w);
void world_end(struct world *w);

struct ob_encoding world_float(enum ob_dtype t);
struct ob_encoding world_mlx(unsigned bits, unsigned group, enum ob_dtype carrier);

/* Adds a tensor of the model; returns its index. */
uint32_t world_tensor(struct world *w, const char *name, struct ob_encoding enc, uint32_t rank,
		      const uint64_t *dim);
/* The same for a matrix; rows 0: one dimension. */
uint32_t world_matrix(struct world *w, const char *name, struct ob_encoding enc, uint64_t rows,
		      uint64_t cols);
/* A matrix of the adapter file; turned: stored with its columns contiguous. */
struct ob_view world_factor(struct world *w, enum ob_dtype t, uint64_t rows, uint64_t cols,
			    bool turned);
/* Appends an edit; a window of no rows becomes the whole tensor. */
void world_edit(struct world *w, uint32_t tensor, struct ob_edit edit);
void world_lowrank(struct world *w, uint32_t tensor, uint64_t rank, float coeff);
/* Writes the input files with made-up values and opens them. */
void world_commit(struct world *w);

/* ob_plan_build; ends the process when it fails. */
struct ob_plan *world_plan(struct world *w);
/* A plan by hand: begin, then outputs and their pieces, then ob_layout_files and ob_make_tiles. */
struct ob_plan *world_plan_begin(struct world *w);
struct ob_out *world_out(struct world *w, struct ob_plan *p, const char *name,
			 struct ob_encoding enc, uint64_t rows, uint64_t cols);
void world_piece(struct world *w, struct ob_out *o, uint32_t tensor, uint64_t src_row,
		 uint64_t n_rows, struct ob_rowmap map);

/* Source row of row i of a piece, as plan.h defines it. */
uint64_t world_source_row(const struct ob_piece *p, uint64_t i);

/* The parts of an output, by decoding, editing and encoding the tensor as a whole. */
struct world_bytes {
	uint8_t *part[OB_MAX_PARTS];
};
struct world_bytes *world_expect(const struct world *w, const struct ob_plan *p);
void world_bytes_free(const struct ob_plan *p, struct world_bytes *b);

/* Runs the plan into files of the world's folder; run holds the options. */
int world_run(struct world *w, const struct ob_plan *p, struct ob_run *run, unsigned workers,
	      unsigned slots, ob_err *e);
/* The same into the last run's files as they are. */
int world_run_again(struct world *w, const struct ob_plan *p, struct ob_run *run, unsigned workers,
		    unsigned slots, ob_err *e);
/* Runs it with the last run's files as the references. */
int world_verify(struct world *w, const struct ob_plan *p, struct ob_run *run, unsigned workers,
		 unsigned slots, ob_err *e);
/* Ends the process unless the last run's files have the bytes of `want`. */
void world_compare(const struct world *w, const struct ob_plan *p, const struct world_bytes *want,
		   const char *what);

#endif
