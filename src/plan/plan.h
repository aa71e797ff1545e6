/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan: everything that will be written, decided before a byte of weights is read. Immutable
 * once built. Nothing in it depends on threads, memory or the machine (budget.h holds what does),
 * so the output bytes cannot either.
 */
#ifndef OB_PLAN_PLAN_H
#define OB_PLAN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter/adapter.h"
#include "base/alloc.h"
#include "codec/codec.h"
#include "model/model.h"

#define OB_TILE_BYTES (4u << 20) /* of the larger of input and output */
#define OB_TILE_ELEMS (2u << 20) /* 8 MiB as float32 */
#define OB_SLOT_BYTES \
	(OB_TILE_BYTES + (128u << 10)) /* a tile's input, or its output, with alignment */
#define OB_OWN_SHARD (2ull << 30)      /* a tensor above this gets a shard of its own */

enum ob_layout { OB_LAYOUT_AUTO, OB_LAYOUT_HF, OB_LAYOUT_MLX };
enum ob_nonfinite { OB_NONFINITE_FAIL, OB_NONFINITE_WARN, OB_NONFINITE_KEEP };

/* --tensor-type REGEX=SCHEME and --skip REGEX, in command-line order. */
struct ob_rule {
	struct ob_regex *re;
	const char *text;
	bool skip; /* leave the tensor as it is */
	struct ob_encoding
		enc; /* else: this encoding; codec float with dtype OB_N_DTYPES is "none" */
};

/* What the user asked for; owned by the caller, outlives the plan. */
struct ob_recipe {
	enum ob_layout layout;
	enum ob_dtype dtype; /* OB_N_DTYPES: auto, each tensor keeps its own */
	enum { OB_QUANT_KEEP, OB_QUANT_NONE, OB_QUANT_TO } quant;
	struct ob_encoding to; /* OB_QUANT_TO */
	struct ob_rule *rule;
	size_t n_rules;
	enum ob_nonfinite nonfinite;
	uint64_t max_shard; /* bytes of tensor data */
	const char *out;    /* the output path; ".safetensors": one file */
};

/* How rows of an output tensor map to rows of a source: block-wise transposition of an a x (block/a)
 * grid, then stride. block == 0: identity. Row i reads source row
 * src_row + stride * (i / block * block + (i % block % a) * (block / a) + i % block / a). */
struct ob_rowmap {
	uint32_t block, a, stride;
};

/* A run of rows of one source tensor. Pieces of an output tensor follow each other. */
struct ob_piece {
	uint32_t tensor; /* of the model */
	uint64_t src_row;
	uint64_t n_rows;
	struct ob_rowmap map;
};

struct ob_out {
	const char *name;
	struct ob_shape shape;
	struct ob_encoding enc;
	struct ob_parts part;
	const char *part_name[OB_MAX_PARTS];
	uint32_t part_file[OB_MAX_PARTS]; /* which output file */
	uint64_t part_off[OB_MAX_PARTS];  /* where in it, from its beginning */
	bool copy;			  /* byte for byte; else decode, edit, encode */
	bool two_pass;			  /* measured before it is encoded */
	uint64_t rows, cols;		  /* the matrix that tiles, pieces and edits refer to */
	uint32_t unit_rows, unit_cols;	  /* what is decoded and encoded at a time: see codec.h */
	const struct ob_piece *piece;
	uint32_t n_pieces;
	const struct ob_edit *edit;
	uint32_t n_edits;
	uint32_t first_tile,
		n_tiles; /* measuring tiles, if any, come first and are as many as the others */
	uint64_t in_bytes, out_bytes;
};

/* copy: bytes [e0, e1) of part `part` of the one piece's tensor; else elements [e0, e1) of the output,
 * which lie in one piece. */
struct ob_tile {
	uint32_t out;
	uint32_t piece;
	uint8_t part;
	bool measure; /* first pass of a format with statistics: reads, writes nothing */
	uint64_t e0, e1;
};

struct ob_out_file {
	const char *name; /* "model-00001-of-00002.safetensors"; for a file output its base name */
	uint64_t size;	  /* whole file */
	uint64_t header_size;
	uint64_t data_bytes;
	struct ob_st_entry *entry; /* in file order */
	size_t n_entries;
	size_t n_late; /* entries at the end whose length only the run tells (padded parts) */
};

struct ob_plan {
	const struct ob_model *model;
	const struct ob_edits *edits;
	const struct ob_recipe *recipe;
	bool to_file;	       /* the output is one file */
	enum ob_layout layout; /* decided: HF or MLX */
	struct ob_out *out;    /* in input order */
	size_t n_outs;
	struct ob_tile *tile; /* in the order of reading */
	size_t n_tiles;
	struct ob_out_file *file;
	size_t n_files;
	struct ob_meta_entry *meta; /* of every output file, "format" first */
	size_t n_meta;
	const struct ob_encoding
		*quant; /* the model-level quantized encoding of the output; NULL: none */
	/* config.json describes another format than the tensors have: what it says; NULL. */
	const char *config_says;
	size_t n_late;	      /* output tensors with a part whose length only the run tells */
	uint64_t fingerprint; /* hash over everything that decides the output bytes */
	size_t n_copied, n_edited, n_converted;
	struct ob_left *left; /* tensors that the format asked for could not take */
	const char **note;    /* remarks for the user, one per reason */
	size_t n_notes;
	uint64_t in_bytes, out_bytes; /* tensor data */
	uint64_t read_bytes;	      /* in_bytes plus second passes */
	uint64_t params;
	uint64_t slot_bytes; /* what the largest tile takes, in or out; at most OB_SLOT_BYTES */
	struct ob_arena arena;
};

/* Errors: OB_USAGE, OB_UNSUPPORTED, OB_MISMATCH, OB_LIMIT, OB_NOMEM. */
int ob_plan_build(struct ob_plan **p, const struct ob_model *m, const struct ob_edits *x,
		  const struct ob_recipe *r, ob_err *e);
void ob_plan_free(struct ob_plan *p); /* NULL is fine */

/* The part of a tensor whose length only the run tells (see padded in codec.h), or -1. */
int ob_out_late_part(const struct ob_out *o);
/* Gives such parts, with these lengths (one entry per output tensor), their places at the end of the
 * files: sizes and offsets are final then. */
int ob_plan_finish(struct ob_plan *p, const uint64_t *len, ob_err *e);

/* May a row be decoded and encoded in pieces (at multiples of unit_cols)? */
static inline bool ob_out_splits_rows(const struct ob_out *o)
{
	return o->unit_rows == 1 && o->unit_cols;
}

/* The source row of output row i of a piece (i counts from the piece's first row). */
uint64_t ob_piece_row(const struct ob_piece *p, uint64_t i);

/* What a tile reads: the elements of the source tensor that its bytes decode to (whole rows or a piece
 * of a row, on the source codec's granularity), and their byte ranges per part. */
struct ob_tile_input {
	const struct ob_tensor *tensor; /* NULL: nothing (a tensor that is replaced as a whole) */
	struct ob_elems elems;
	struct ob_range
		range[OB_MAX_PARTS * OB_MAX_RANGES]; /* part * OB_MAX_RANGES + i, inside the part */
	unsigned n_ranges[OB_MAX_PARTS];
};
void ob_tile_input(const struct ob_plan *p, const struct ob_tile *t, struct ob_tile_input *in);

/* About how many bytes a tile reads and writes: its share of its tensor. Rounded down. */
uint64_t ob_tile_in_bytes(const struct ob_plan *p, const struct ob_tile *t);
uint64_t ob_tile_out_bytes(const struct ob_plan *p, const struct ob_tile *t);

#endif
