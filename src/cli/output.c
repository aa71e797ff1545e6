/* SPDX-License-Identifier: Apache-2.0 */
/* Printing. Names come from files: what could steer a terminal is shown as \xNN. */
#include <stdint.h>
#include <string.h>

#include "cli/cli.h"

/* Length of the UTF-8 sequence at s that is safe to show, 0 when its first byte is to be escaped. */
static size_t safe_length(const unsigned char *s)
{
	if (s[0] >= 0x20 && s[0] < 0x7f)
		return 1;
	size_t n = s[0] >= 0xc2 && s[0] < 0xe0	 ? 2
		   : (s[0] & 0xf0) == 0xe0	 ? 3
		   : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
						 : 0;
	uint32_t c = n == 2 ? s[0] & 31u : n == 3 ? s[0] & 15u : s[0] & 7u;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 63u);
	}
	/* C1 controls, marks that change the direction of text, separators, surrogates, overlong forms. */
	if (c < 0xa0 || (n == 3 && c < 0x800) || (n == 4 && (c < 0x10000 || c > 0x10ffff)) ||
	    (c >= 0xd800 && c < 0xe000) || c == 0x61c || (c >= 0x200b && c <= 0x200f) ||
	    (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff)
		return 0;
	return n;
}

/* At most `columns` characters; what does not fit ends in "...". */
void cli_escape(char *to, size_t size, const char *s, size_t columns)
{
	size_t out = 0, shown = 0;
	while (*s) {
		size_t n = safe_length((const unsigned char *)s);
		size_t need = n ? n : 4, width = n ? 1 : 4;
		if (out + need + 4 > size || shown + width + 3 > columns) {
			if (strlen(s) + shown > columns || out + need + 4 > size) {
				memcpy(to + out, "...", 3);
				out += 3;
				break;
			}
		}
		if (n) {
			memcpy(to + out, s, n);
			s += n;
		} else {
			snprintf(to + out, 5, "\\x%02x", (unsigned char)*s++);
		}
		out += need;
		shown += width;
	}
	to[out] = '\0';
}

void cli_json_string(FILE *to, const char *s)
{
	fputc('"', to);
	while (*s) {
		unsigned char c = (unsigned char)*s;
		size_t n = safe_length((const unsigned char *)s);
		if (c == '"' || c == '\\')
			fprintf(to, "\\%c", c);
		else if (n)
			fwrite(s, 1, n, to);
		else
			fprintf(to, "\\u%04x", c < 0x80 ? c : 0xfffd);
		s += n ? n : 1;
	}
	fputc('"', to);
}

void cli_error(const struct cli *c, const char *kind, const char *sentence)
{
	char text[4 * 1024];
	cli_escape(text, sizeof(text), sentence, sizeof(text));
	fprintf(stderr, "oocbake: %s\n", text);
	if (!c->json)
		return;
	fputs("{\"error\": {\"kind\": ", stdout);
	cli_json_string(stdout, kind);
	fputs(", \"message\": ", stdout);
	cli_json_string(stdout, sentence);
	fputs("}}\n", stdout);
	fflush(stdout);
}

void cli_notes(const struct cli *c)
{
	char text[4 * 1024];
	const char *note;
	for (unsigned i = 0; (note = oocbake_note(c->job, i)); i++) {
		cli_escape(text, sizeof(text), note, sizeof(text));
		fprintf(stderr, "oocbake: note: %s\n", text);
	}
}

int cli_print(const char *text)
{
	if (fputs(text, stdout) < 0 || fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "oocbake: standard output cannot be written\n");
		return OOCBAKE_FAILED;
	}
	return OOCBAKE_OK;
}
