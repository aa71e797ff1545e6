/* SPDX-License-Identifier: Apache-2.0 */
/* The table of number formats, and what is the same for all of them. */
#include <string.h>
#include <strings.h>

#include "codec/codec.h"
#include "kernels/kernels.h"

const struct ob_codec *const ob_codecs[] = {
	&ob_codec_mlx, &ob_codec_bnb, &ob_codec_bnb_int8, &ob_codec_float, &ob_codec_raw, NULL,
};

bool ob_encoding_equal(const struct ob_encoding *a, const struct ob_encoding *b)
{
	return a->codec == b->codec && a->dtype == b->dtype && a->bits == b->bits &&
	       a->group == b->group && a->variant == b->variant;
}

const char *ob_scheme_options(const char *scheme, const char *name)
{
	size_t n = strlen(name);

	if (strncasecmp(scheme, name, n) != 0)
		return NULL;
	return scheme[n] == '\0' || scheme[n] == ':' || scheme[n] == ',' ? scheme + n : NULL;
}

static int unknown_scheme(const char *scheme, ob_err *e)
{
	struct ob_text known = { 0 };

	for (size_t i = 0; ob_codecs[i]; i++)
		for (size_t k = 0; ob_codecs[i]->schemes[k]; k++)
			ob_text_printf(&known, " %s", ob_codecs[i]->schemes[k]);
	if (known.failed)
		ob_fail_nomem(e, "list of number formats");
	else
		ob_fail(e, OB_USAGE, "number format '%s' is not known; choose one of%s", scheme,
			known.data);
	ob_text_free(&known);
	return -1;
}

int ob_encoding_parse(struct ob_encoding *enc, const char *scheme, ob_err *e)
{
	for (size_t i = 0; ob_codecs[i]; i++) {
		int got = ob_codecs[i]->parse ? ob_codecs[i]->parse(enc, scheme, e) : 0;

		if (got)
			return got < 0 ? -1 : 0;
	}
	return unknown_scheme(scheme, e);
}

void ob_codec_rows(const struct ob_encoding *enc, const struct ob_shape *shape, uint64_t *rows,
		   uint64_t *cols)
{
	bool plain = enc->codec == &ob_codec_float || enc->codec == &ob_codec_raw;
	uint64_t n;

	/* By division: of a tensor without elements the other dimensions may have any product. */
	*rows = 0;
	*cols = 0;
	if (!ob_shape_elems(shape, &n) || n == 0)
		return;
	if (shape->rank < 2)
		*rows = 1;
	else
		*rows = plain ? shape->dim[0] : n / shape->dim[shape->rank - 1];
	*cols = n / *rows;
}

size_t ob_codec_stats(const struct ob_encoding *enc, const struct ob_shape *shape,
		      struct ob_elems at)
{
	return enc->codec->n_stats ? enc->codec->n_stats(enc, shape, at) : 0;
}

uint32_t ob_codec_overflow_bits(const struct ob_encoding *enc)
{
	return enc->codec->overflow_bits ? enc->codec->overflow_bits(enc)
					 : ob_overflow_bits(enc->dtype);
}

uint64_t ob_parts_bytes(const struct ob_parts *p)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < p->n; i++)
		sum += p->part[i].len;
	return sum;
}
