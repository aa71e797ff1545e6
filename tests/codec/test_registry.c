/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "codec/codec.h"

static struct ob_encoding parsed(const char *scheme)
{
	struct ob_encoding enc;
	ob_err e = { 0 };

	cr_assert_eq(ob_encoding_parse(&enc, scheme, &e), 0, "%s: %s", scheme, e.msg);
	return enc;
}

static void refused(const char *scheme, const char *says)
{
	struct ob_encoding enc;
	ob_err e = { 0 };

	cr_assert_eq(ob_encoding_parse(&enc, scheme, &e), -1, "%s", scheme);
	cr_assert_eq(e.code, OB_USAGE);
	cr_assert_not_null(strstr(e.msg, scheme), "%s", e.msg);
	cr_assert_not_null(strstr(e.msg, says), "%s", e.msg);
}

Test(registry, float_and_raw_come_last)
{
	size_t n = 0;

	while (ob_codecs[n])
		n++;
	cr_assert_eq(ob_codecs[n - 2], &ob_codec_float);
	cr_assert_eq(ob_codecs[n - 1], &ob_codec_raw);
}

Test(registry, schemes)
{
	struct ob_encoding enc = parsed("mlx");

	cr_assert_eq(enc.codec, &ob_codec_mlx);
	cr_assert_eq(enc.bits, 4);
	cr_assert_eq(enc.group, 64);
	enc = parsed("MLX:8");
	cr_assert_eq(enc.bits, 8);
	cr_assert_eq(enc.group, 64);
	enc = parsed("Mlx:3,group=128");
	cr_assert_eq(enc.bits, 3);
	cr_assert_eq(enc.group, 128);
	enc = parsed("mlx,group=32");
	cr_assert_eq(enc.bits, 4);
	cr_assert_eq(enc.group, 32);
	enc = parsed("BF16");
	cr_assert_eq(enc.codec, &ob_codec_float);
	cr_assert_eq(enc.dtype, OB_BF16);
}

Test(registry, wrong_options_are_answered_with_the_legal_ones)
{
	static const char *const wrong[] = {
		"mlx:7",	"mlx:",		  "mlx:4x",	     "mlx:4,",
		"mlx:4,group=", "mlx:4,group=48", "mlx:4,group=0",   "mlx:4444",
		"mlx:-4",	"mlx: 4",	  "mlx:4,group=64,", "mlx:4,Group=64",
		"mlx:4,bits",	"mlx,64",	  "mlx:+4",	     "mlx:4,group=64000",
		"mlx:65540",	"mlx:4:4",	  "mlx:1e0"
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		refused(wrong[i], "bits are 2, 3, 4, 5, 6 or 8, groups 32, 64 or 128");
	refused("f16:4", "takes no options");
}

Test(registry, unknown_names_are_answered_with_the_known_ones)
{
	static const char *const unknown[] = { "",    "ml",  "mlxx",  "mlx4",
					       "f64", "raw", "float", "Q4_K" };

	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		refused(unknown[i], "mlx:2|3|4|5|6|8[,group=32|64|128]");
		refused(unknown[i], "bf16");
	}
}

Test(registry, scheme_options)
{
	cr_assert_str_eq(ob_scheme_options("mlx", "mlx"), "");
	cr_assert_str_eq(ob_scheme_options("MLX:4,group=32", "mlx"), ":4,group=32");
	cr_assert_str_eq(ob_scheme_options("mlx,group=32", "mlx"), ",group=32");
	cr_assert_null(ob_scheme_options("mlx-mxfp4", "mlx"));
	cr_assert_null(ob_scheme_options("ml", "mlx"));
}

Test(registry, every_field_counts_in_equality)
{
	struct ob_encoding a = parsed("mlx:4"), b;

	b = a;
	cr_assert(ob_encoding_equal(&a, &b));
	b.codec = &ob_codec_raw;
	cr_assert_not(ob_encoding_equal(&a, &b));
	b = a, b.dtype = OB_F16;
	cr_assert_not(ob_encoding_equal(&a, &b));
	b = a, b.bits++;
	cr_assert_not(ob_encoding_equal(&a, &b));
	b = a, b.group++;
	cr_assert_not(ob_encoding_equal(&a, &b));
	b = a, b.variant++;
	cr_assert_not(ob_encoding_equal(&a, &b));
}

static void rows_are(const struct ob_codec *codec, uint32_t rank, const uint64_t *dim,
		     uint64_t want_rows, uint64_t want_cols)
{
	struct ob_encoding enc = { .codec = codec };
	struct ob_shape shape = { rank, dim };
	uint64_t rows, cols;

	ob_codec_rows(&enc, &shape, &rows, &cols);
	cr_assert_eq(rows, want_rows, "%s rank %u: %lu rows", codec->name, rank, rows);
	cr_assert_eq(cols, want_cols, "%s rank %u: %lu cols", codec->name, rank, cols);
}

Test(registry, rows_and_columns)
{
	static const uint64_t dim[] = { 3, 5, 7 }, none[] = { 0, 1ull << 40, 1ull << 40 };

	for (size_t i = 0; ob_codecs[i]; i++) {
		rows_are(ob_codecs[i], 0, NULL, 1, 1);
		rows_are(ob_codecs[i], 1, dim, 1, 3);
		rows_are(ob_codecs[i], 2, dim, 3, 5);
		rows_are(ob_codecs[i], 3, none, 0, 0);
	}
	rows_are(&ob_codec_float, 3, dim, 3, 35);
	rows_are(&ob_codec_raw, 3, dim, 3, 35);
	rows_are(&ob_codec_mlx, 3, dim, 15, 7);
}

Test(registry, bytes_of_all_parts)
{
	struct ob_parts p = { .part = { { .len = 5 }, { .len = 7 }, { .len = 100 } }, .n = 2 };

	cr_assert_eq(ob_parts_bytes(&p), 12);
}
