/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target of quant_state: the text beside 4-bit codes whose other parts are all there and fit
 * whatever shape it says. What is read can be laid out, and is written as a text that says the same. */
#include "codec/bnb.h"
#include "fuzz.h"

static void write_again(const struct ob_bnb_state *st, struct ob_arena *a)
{
	char text[OB_BNB_STATE_MAX];
	struct ob_file file = { .path = "again", .map = (const uint8_t *)text };
	uint64_t len = ob_bnb_state_write(text, &st->enc, &st->shape, st->offset);
	struct ob_stored stored = {
		.name = "again", .dtype = OB_U8, .shape = { 1, &len }, .file = &file, .len = len
	};
	struct ob_bnb_state again;
	ob_err e = { 0 };

	fuzz_require(len == ob_bnb_state_len(&st->enc, &st->shape) && len <= sizeof(text));
	fuzz_require(ob_bnb_state_read(&stored, "w", st->enc.variant & OB_BNB_FP4, a, &again, &e) ==
		     0);
	fuzz_require(ob_encoding_equal(&again.enc, &st->enc));
	fuzz_require(ob_shape_equal(&again.shape, &st->shape) && again.offset == st->offset);
}

static void read_text(const struct ob_stored *text, bool fp4)
{
	struct ob_arena a = { 0 };
	struct ob_bnb_state st;
	struct ob_parts parts;
	ob_err e = { 0 };
	int rc;

	fuzz_begin();
	rc = ob_bnb_state_read(text, "w", fp4, &a, &st, &e);
	if (fuzz_end(rc, &e) && rc != 0)
		fuzz_require(ob_exit_status(e.code) == 3 && strstr(e.msg, "w"));
	if (rc == 0) {
		write_again(&st, &a);
		fuzz_require(ob_codec_bnb.layout(&st.enc, &st.shape, &a, &parts, &e) == 0);
	}
	ob_arena_free(&a);
}

static void fuzz_data(const char *data, size_t size)
{
	struct ob_file file = { .path = "x", .map = (const uint8_t *)data };
	uint64_t len = size;
	struct ob_stored text = { .name = "w.quant_state.bitsandbytes__nf4",
				  .dtype = OB_U8,
				  .shape = { 1, &len },
				  .file = &file,
				  .len = size };

	read_text(&text, false);
	read_text(&text, true);
}
