/* SPDX-License-Identifier: Apache-2.0 */
/* Strings: UTF-8, text for terminals, prefixes, numbers whatever the locale. */
#include "base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t ob_utf8_next(const char *s, size_t n, uint32_t *cp)
{
	const unsigned char *u = (const unsigned char *)s;
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len;

	if (n == 0)
		return 0;
	if (u[0] < 0x80) {
		*cp = u[0];
		return 1;
	}
	len = u[0] >= 0xf0 ? 4 : u[0] >= 0xe0 ? 3 : 2;
	if (u[0] < 0xc0 || u[0] > 0xf7 || n < len)
		return 0;
	*cp = u[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		if ((u[i] & 0xc0) != 0x80)
			return 0;
		*cp = *cp << 6 | (u[i] & 0x3f);
	}
	/* Overlong forms, surrogates and what is beyond Unicode. */
	if (*cp < least[len] || (*cp >= 0xd800 && *cp <= 0xdfff) || *cp > 0x10ffff)
		return 0;
	return len;
}

bool ob_utf8_valid(const char *s, size_t n)
{
	uint32_t cp;

	while (n > 0) {
		size_t len = ob_utf8_next(s, n, &cp);

		if (len == 0)
			return false;
		s += len;
		n -= len;
	}
	return true;
}

/* What could act on a terminal, reorder the text around it, end a line, or not be seen at all. */
static bool is_harmful(uint32_t cp)
{
	return cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || cp == 0x61c ||
	       (cp >= 0x200b && cp <= 0x200f) || (cp >= 0x2028 && cp <= 0x202e) ||
	       (cp >= 0x2060 && cp <= 0x206f) || cp == 0xfeff;
}

char *ob_printable(const char *s, char *buf, size_t size)
{
	size_t left = strlen(s);
	size_t n = 0, cut = 0; /* cut: the longest prefix that leaves room for "..." */

	if (size == 0)
		return buf;
	while (left > 0) {
		char piece[4 * 4 + 1];
		uint32_t cp;
		size_t taken = ob_utf8_next(s, left, &cp);
		size_t width = taken;

		if (taken == 0 || is_harmful(cp)) {
			taken = taken ? taken : 1;
			for (width = 0; width < 4 * taken; width += 4)
				snprintf(piece + width, 5, "\\x%02x", (unsigned char)s[width / 4]);
		} else {
			memcpy(piece, s, taken);
		}
		if (n + width >= size) {
			snprintf(buf + cut, size - cut, "...");
			return buf;
		}
		memcpy(buf + n, piece, width);
		n += width;
		if (n + 3 < size)
			cut = n;
		s += taken;
		left -= taken;
	}
	buf[n] = '\0';
	return buf;
}

bool ob_has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool ob_has_suffix(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);

	return n >= m && memcmp(s + n - m, suffix, m) == 0;
}

size_t ob_trimmed(const void *s, size_t n)
{
	const char *p = s;

	while (n && p[n - 1] == ' ')
		n--;
	return n;
}

locale_t ob_c_locale(void)
{
	return newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

double ob_strtod(const char *s)
{
	return strtod_l(s, NULL, ob_c_locale());
}
