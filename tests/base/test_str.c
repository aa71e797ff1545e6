/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "base/util.h"

static bool valid(const char *s)
{
	return ob_utf8_valid(s, strlen(s));
}

Test(utf8, valid)
{
	cr_assert(valid(""));
	cr_assert(valid("plain"));
	cr_assert(valid("\xc2\x80 \xdf\xbf"));
	cr_assert(valid("\xe0\xa0\x80 \xed\x9f\xbf \xee\x80\x80 \xef\xbf\xbf"));
	cr_assert(valid("\xf0\x90\x80\x80 \xf4\x8f\xbf\xbf"));
	cr_assert(ob_utf8_valid("a\0b", 3));
}

Test(utf8, invalid)
{
	static const char *const cases[] = {
		"\x80",
		"\xbf",
		"\xc0\x80",
		"\xc1\xbf",
		"\xc2",
		"\xc2 ",
		"\xe0\x9f\xbf",
		"\xe0\xa0",
		"\xed\xa0\x80",
		"\xed\xbf\xbf",
		"\xf0\x8f\xbf\xbf",
		"\xf0\x90\x80",
		"\xf4\x90\x80\x80",
		"\xf5\x80\x80\x80",
		"\xf8\x88\x80\x80\x80",
		"\xff",
		"a\xc3",
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		cr_assert_not(valid(cases[i]), "case %zu", i);
	/* Does not read past n. */
	cr_assert_not(ob_utf8_valid("\xc3\xa4", 1));
}

Test(utf8, every_character_decodes)
{
	for (uint32_t c = 0; c <= 0x10ffff; c++) {
		char s[4];
		size_t n = 0;
		uint32_t back;

		if (c >= 0xd800 && c <= 0xdfff)
			continue;
		if (c < 0x80)
			s[n++] = (char)c;
		for (unsigned shift = c < 0x800	    ? 6
				      : c < 0x10000 ? 12
						    : 18;
		     c >= 0x80; shift -= 6) {
			unsigned lead = c < 0x800 ? 0xc0 : c < 0x10000 ? 0xe0 : 0xf0;

			s[n] = (char)((n ? 0x80u : lead) | (c >> shift & (n ? 0x3fu : 0xffu)));
			n++;
			if (shift == 0)
				break;
		}
		cr_assert_eq(ob_utf8_next(s, n, &back), n);
		cr_assert_eq(back, c);
		cr_assert_eq(ob_utf8_next(s, n - 1, &back), 0);
	}
}

Test(printable, replaces_what_acts_on_terminals)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "", "" },
		{ "model.safetensors", "model.safetensors" },
		{ "\xc3\xa4\xe4\xb8\xad\xf0\x9f\x98\x80", "\xc3\xa4\xe4\xb8\xad\xf0\x9f\x98\x80" },
		{ "a\x1b[31m\n\x7f", "a\\x1b[31m\\x0a\\x7f" },
		{ "\xff\xc3", "\\xff\\xc3" },
		{ "\xc2\x9b", "\\xc2\\x9b" },
		{ "\xe2\x80\xae", "\\xe2\\x80\\xae" },
		{ "\xe2\x81\xa6\xd8\x9c", "\\xe2\\x81\\xa6\\xd8\\x9c" },
		{ "\u2028\ufeff", "\\xe2\\x80\\xa8\\xef\\xbb\\xbf" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char buf[64];

		cr_assert_str_eq(ob_printable(cases[i].in, buf, sizeof(buf)), cases[i].out);
	}
}

Test(printable, is_cut_between_characters)
{
	/* By size of the buffer. */
	static const char *const want[] = {
		"!",	"",	".",	      "..",	     "...",
		"a...", "a...", "a\u00e4...", "a\u00e4b...", "a\u00e4b\\x0a",
	};
	char buf[16];

	for (size_t size = 0; size < 10; size++) {
		memset(buf, '!', sizeof(buf));
		buf[1] = '\0';
		ob_printable("a\u00e4b\n", buf, size);
		cr_assert_str_eq(buf, want[size]);
		cr_assert_eq(buf[size > 1 ? size : 2], '!', "wrote past %zu", size);
	}
}

Test(str, prefix_and_suffix)
{
	cr_assert(ob_has_suffix("a.gguf", ".gguf"));
	cr_assert(ob_has_suffix("a", ""));
	cr_assert_not(ob_has_suffix("guf", ".gguf"));
	cr_assert_not(ob_has_suffix("a.gguf2", ".gguf"));
	cr_assert(ob_has_prefix("lora_A", "lora_"));
	cr_assert(ob_has_prefix("a", ""));
	cr_assert_not(ob_has_prefix("lor", "lora"));
}

Test(str, numbers)
{
	cr_assert_eq(ob_strtod("1.5e3"), 1500);
	cr_assert_eq(ob_strtod("-0.25"), -0.25);
	cr_assert(ob_strtod("NaN") != ob_strtod("NaN"));
	cr_assert(ob_strtod("-Infinity") < -1e308);
}
