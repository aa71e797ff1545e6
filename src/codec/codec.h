/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Number formats. A codec turns stored parts (codes, scales, biases...) into float32 and back.
 *
 * A logical tensor is a row-major array of `rows` x `cols` (cols: the last dimension of a quantized
 * tensor; for float tensors the product of all dimensions but the first; a scalar or 1-D tensor is
 * one row). The engine works on tiles: ranges [e0, e1) of its flat elements, which are whole rows,
 * or a piece of one row. Registered in registry.c: a new format is one file, a line there and its
 * name at the end of this header.
 */
#ifndef OB_CODEC_CODEC_H
#define OB_CODEC_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/dtype.h"
#include "base/err.h"
#include "base/json.h"
#include "container/container.h"

#define OB_MAX_PARTS 8	 /* parts of one tensor in any format */
#define OB_MAX_RANGES 10 /* byte ranges of one part in one tile (distant rows packed together) */

/* The engine computes on this much at a time; a format whose granularity is coarser does not accept
 * the tensor. */
#define OB_UNIT_ROWS 256u
#define OB_UNIT_ELEMS (256u * 1024u)

struct ob_codec;

/* How one tensor is encoded. Plain value; a field that a codec does not use is 0. */
struct ob_encoding {
	const struct ob_codec *codec;
	enum ob_dtype dtype; /* float type of values or scales: the carrier; raw: as stored */
	uint16_t bits;
	uint32_t group;	  /* elements that share a scale */
	uint32_t variant; /* the codec's own */
};
bool ob_encoding_equal(const struct ob_encoding *a, const struct ob_encoding *b);

/* One stored part as the codec lays it out. */
struct ob_part {
	/* ".scales" is appended to the module path: the logical name without ".weight" at its end.
	 * NULL: the logical name itself. */
	const char *suffix;
	bool on_name; /* suffix is appended to the logical name as it is */
	enum ob_dtype dtype;
	struct ob_shape shape;
	uint64_t len; /* bytes */
	/* Not cut by tiles (code book, global scale, a state in JSON): its range in every tile
	 * is all of it, every decode sees it, and encode of a tile's first strip fills it, with the
	 * same bytes in every tile. */
	bool whole;
	/* A whole part that is a text whose length depends on values: len is the most it can be,
	 * encode pads it with spaces, and what is stored is the text without them. */
	bool padded;
};
struct ob_parts {
	struct ob_part part[OB_MAX_PARTS];
	unsigned n;
};

struct ob_range {
	uint64_t off, len; /* bytes inside one part */
};

/* Elements [e0, e1) of a logical tensor, e0 < e1. */
struct ob_elems {
	uint64_t e0, e1;
};

/* Bytes of a part that belong to a tile. span[part * OB_MAX_RANGES + range] */
struct ob_span {
	uint8_t *p; /* unaligned */
	uint64_t len;
};

enum ob_decode_mode {
	OB_DECODE_F32,	 /* float32 arithmetic: what edits are added to */
	OB_DECODE_EXACT, /* the format's own dequantization, bit for bit: a tensor without edits */
};

/* A tensor as found in a container set, before anyone knows its format: finds neighbours by
 * name. */
struct ob_lookup {
	const struct ob_stored *(*find)(const struct ob_lookup *l, const char *name);
	const struct ob_jv *config; /* config.json, or NULL */
	struct ob_arena *arena;	    /* for shapes */
};

/* What a tensor is in the architecture, as far as formats treat it differently. */
enum ob_use { OB_USE_OTHER, OB_USE_EMBEDDING, OB_USE_HEAD };

struct ob_recognised {
	const char *name; /* logical name: "model.norm.weight" */
	struct ob_encoding enc;
	struct ob_shape shape;			    /* logical */
	const struct ob_stored *part[OB_MAX_PARTS]; /* in layout order */
};

struct ob_codec {
	const char *name;    /* "float", "mlx" */
	const char *summary; /* one line for `oocbake formats` */
	/* NULL-ended SCHEME spellings for --quant, choices by | and options in []:
	 * "mlx:2|3|4|5|6|8[,group=32|64|128]". */
	const char *const *schemes;

	/* Is s the leading part of a tensor in this format? 1: *r is filled (and its companions
	 * are consumed), 0: no, -1: it is, but parts are missing or contradict each other (*e
	 * names them). What is recognised has, by layout(), exactly the types and shapes of the
	 * parts found. */
	int (*recognise)(const struct ob_stored *s, const struct ob_lookup *l,
			 struct ob_recognised *r, ob_err *e);

	/* --quant SCHEME: 1: it is this codec's and *enc is filled, all but a carrier that the
	 * scheme does not name; 0: the name is of another codec; -1: wrong options (OB_USAGE).
	 * NULL: has no schemes. */
	int (*parse)(struct ob_encoding *enc, const char *scheme, ob_err *e);
	/* "mlx:4,group=64" into buf; returns buf. */
	char *(*describe)(const struct ob_encoding *enc, char *buf, size_t size);
	/* Can encode store this tensor so? (last dimension divides by the group, ...) *why: one
	 * clause, valid until the thread's next call. A copy needs no permission. */
	bool (*accepts)(const struct ob_encoding *enc, const struct ob_shape *shape,
			const char **why);

	/* Parts, sizes and shapes (which may share `shape`'s memory) of a tensor that was
	 * recognised or is accepted. Pure: sizes are known before a byte is read. OB_LIMIT,
	 * OB_NOMEM. */
	int (*layout)(const struct ob_encoding *enc, const struct ob_shape *shape,
		      struct ob_arena *a, struct ob_parts *out, ob_err *e);
	/* Tiles begin at multiples of this many rows, and pieces of a row at multiples of this many
	 * columns (0: rows cannot be split). So do the strips given to decode and encode. */
	void (*granularity)(const struct ob_encoding *enc, const struct ob_shape *shape,
			    uint32_t *rows, uint32_t *cols);
	/* Byte ranges of part `part` that a tile covers; returns how many (<= OB_MAX_RANGES). The
	 * ranges of all tiles make up the part, each byte once (but for a whole one). */
	unsigned (*ranges)(const struct ob_encoding *enc, const struct ob_shape *shape,
			   unsigned part, struct ob_elems tile, struct ob_range *out);

	/*
	 * Elements [at.e0, at.e1) (inside tile, inside one row or whole rows, on the granularity)
	 * of a tile whose parts lie at span. scratch: scratch_floats() floats. Results depend on
	 * values and enc alone. stats: what reduce() left (two-pass formats), else NULL.
	 * decode and encode NULL: copy only.
	 */
	void (*decode)(const struct ob_encoding *enc, const struct ob_shape *shape,
		       const struct ob_span *span, struct ob_elems tile, struct ob_elems at,
		       enum ob_decode_mode mode, float *dst, float *scratch);
	/* src may be changed. Values are rounded to enc->dtype first. */
	void (*encode)(const struct ob_encoding *enc, const struct ob_shape *shape,
		       const struct ob_span *span, struct ob_elems tile, struct ob_elems at,
		       float *src, float *scratch, const double *stats);
	/* Floats of scratch for decode or encode of n elements. */
	size_t (*scratch_floats)(const struct ob_encoding *enc, size_t n);

	/*
	 * Two-pass formats, whose output depends on the whole tensor: doubles of statistics for the
	 * elements `at`, a tile or the tensor; 0: one pass is enough. NULL: always.
	 * The first pass calls measure on every strip into the tile's own copy (zeroed before; src
	 * may be changed; scratch as for encode); reduce folds the tiles' copies in tile order into
	 * that of the tensor (zeroed before).
	 */
	size_t (*n_stats)(const struct ob_encoding *enc, const struct ob_shape *shape,
			  struct ob_elems at);
	void (*measure)(const struct ob_encoding *enc, const struct ob_shape *shape,
			struct ob_elems tile, struct ob_elems at, float *src, float *scratch,
			double *stats);
	void (*reduce)(const struct ob_encoding *enc, const struct ob_shape *shape, double *total,
		       struct ob_elems tile, const double *stats);

	/* Magnitude bits from which on a float32 cannot be stored. NULL: the carrier's. */
	uint32_t (*overflow_bits)(const struct ob_encoding *enc);

	/* Configuration: JSON text of the block that loaders want for a model in this format,
	 * and under which key(s) of config.json (NULL-ended). NULL where a format needs none. */
	const char *const *config_keys;
	int (*config_block)(const struct ob_encoding *enc, struct ob_text *out, ob_err *e);
	/* Entry for one module whose encoding differs from the model's (NULL enc: left in
	 * float, in a format whose loaders need to be told); returns 1 when there is one, 0
	 * when none is needed. */
	int (*config_override)(const struct ob_encoding *model, const struct ob_encoding *enc,
			       struct ob_text *out, ob_err *e);
	/* A member of the block that lists the linear layers left in float, by path; NULL: none. */
	const char *skip_key;
	/* What config.json says where that is not what the tensors are, as one clause in buf; NULL
	 * when they agree. enc NULL: the tensors are all float. The tensors decide. */
	const char *(*config_differs)(const struct ob_encoding *enc, const struct ob_jv *config,
				      char *buf, size_t size);
	/* Is this tensor one that the format's own tools quantize by default? NULL as parse is. */
	bool (*default_target)(const struct ob_encoding *enc, const char *name,
			       const struct ob_shape *shape, enum ob_use use,
			       const struct ob_jv *config);
	/* safetensors "format" value of the tools that read it: "pt" or "mlx"; NULL: any. */
	const char *meta_format;
	bool turns_conv1d; /* its tools transpose transformers' Conv1D before they quantize it */
};

/* NULL-ended, in order of recognition: float and raw come last. */
extern const struct ob_codec *const ob_codecs[];
/* F32, F16 and BF16. F64 is decoded and copied but never encoded. */
extern const struct ob_codec ob_codec_float;
/* Any type; copy only. */
extern const struct ob_codec ob_codec_raw;
extern const struct ob_codec ob_codec_mlx;
extern const struct ob_codec ob_codec_bnb, ob_codec_bnb_int8;

/* --quant SCHEME. OB_USAGE naming the schemes when unknown. */
int ob_encoding_parse(struct ob_encoding *enc, const char *scheme, ob_err *e);
/* What follows `name` in a scheme ("", ":4,group=32", ",group=32"), NULL when that is not its name.
 * Names are case-insensitive. */
const char *ob_scheme_options(const char *scheme, const char *name);
/* Logical row length and number of rows. */
void ob_codec_rows(const struct ob_encoding *enc, const struct ob_shape *shape, uint64_t *rows,
		   uint64_t *cols);
/* n_stats, for any format. */
size_t ob_codec_stats(const struct ob_encoding *enc, const struct ob_shape *shape,
		      struct ob_elems at);
/* overflow_bits, for any format. */
uint32_t ob_codec_overflow_bits(const struct ob_encoding *enc);
/* Sum of the parts' bytes. */
uint64_t ob_parts_bytes(const struct ob_parts *p);

#endif
