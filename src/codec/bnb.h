/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the bitsandbytes formats share. bnb.c: NF4 and FP4, stored as packed codes and
 * what one scale for each block of elements needs; bnb_int8.c: LLM.int8.
 */
#ifndef OB_CODEC_BNB_H
#define OB_CODEC_BNB_H

#include "codec/codec.h"

/* enc->variant of ob_codec_bnb. */
#define OB_BNB_FP4 1u	 /* else NF4 */
#define OB_BNB_NESTED 2u /* scales are quantized themselves */
/* Codes are stored as bytes under the name of another type (sharded training asks for one type in
 * all tensors): its enum ob_dtype, 0 for U8. */
#define OB_BNB_STORAGE_SHIFT 8
#define OB_BNB_STORAGE(variant) ((enum ob_dtype)((variant) >> OB_BNB_STORAGE_SHIFT))

#define OB_BNB_NESTED_BLOCK 256u /* scales that share a scale */

/* bnb_state.c: the text beside each tensor that says how it is quantized. */
struct ob_bnb_state {
	struct ob_encoding enc; /* all but the storage */
	struct ob_shape shape;
	uint64_t n; /* elements */
	float offset;
};
/* `name` is the tensor's. Errors name it and the text's own name. */
int ob_bnb_state_read(const struct ob_stored *text, const char *name, bool fp4, struct ob_arena *a,
		      struct ob_bnb_state *out, ob_err *e);
#define OB_BNB_STATE_MAX (256u + 22u * OB_MAX_RANK)
/* Writes the text as bitsandbytes does and returns its length. Nested and padded: with spaces
 * behind it, to a length that does not depend on the offset. */
size_t ob_bnb_state_write(char text[OB_BNB_STATE_MAX], const struct ob_encoding *enc,
			  const struct ob_shape *shape, float offset);
/* Length of what it writes. */
size_t ob_bnb_state_len(const struct ob_encoding *enc, const struct ob_shape *shape);
/* nested_offset of a text that was read before; needs no memory. */
float ob_bnb_state_offset(const char *text, size_t len);
/* Does bitsandbytes know blocks of this many elements? */
bool ob_bnb_is_block(uint64_t n);

/* bnb_nested.c: scales in 8 bits. Statistics of the scales of blocks [b0, b1) of a tensor: their sum
 * in two doubles and, for every OB_BNB_NESTED_BLOCK of them, the largest and the smallest. */
extern const float ob_bnb_map[256];
size_t ob_bnb_stats_size(uint64_t b0, uint64_t b1);
/* Adds n scales, of which the first is that of block b; b0: see above. */
void ob_bnb_stats_add(double *stats, uint64_t b0, uint64_t b, const float *absmax, size_t n);
/* Adds the statistics of blocks [b0, b1) to those of the tensor. */
void ob_bnb_stats_fold(double *total, uint64_t b0, uint64_t b1, const double *stats);
float ob_bnb_stats_mean(const double *total, uint64_t n);
/* The scale of the k-th group of scales. */
float ob_bnb_stats_scale(const double *total, uint64_t k, float mean);
uint8_t ob_bnb_nearest(float y);

/* bnb_config.c: the hooks of both codecs. */
extern const char *const ob_bnb_config_keys[];
int ob_bnb_config_block(const struct ob_encoding *enc, struct ob_text *out, ob_err *e);
const char *ob_bnb_config_differs(const struct ob_encoding *enc, const struct ob_jv *config,
				  char *buf, size_t size);
bool ob_bnb_default_target(const struct ob_encoding *enc, const char *name,
			   const struct ob_shape *shape, enum ob_use use,
			   const struct ob_jv *config);
/* config.json says that layers are quantized with bitsandbytes in 4, else in 8 bits. */
bool ob_bnb_config_says(const struct ob_jv *config, bool four);

/* The stored tensor called `name` with `suffix` behind it; NULL when there is none. */
const struct ob_stored *ob_bnb_part(const struct ob_lookup *l, const char *name, size_t len,
				    const char *suffix);

#endif
