/* SPDX-License-Identifier: Apache-2.0 */
/* Printing. Names come from files: what could steer a terminal is shown as \xNN. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "cli/cli.h"

/* The character at s; returns its bytes, 0 when it is no UTF-8. */
static size_t decode(const char *text, uint32_t *cp)
{
	const unsigned char *s = (const unsigned char *)text;
	*cp = s[0];
	if (s[0] < 0x80)
		return 1;
	size_t n = s[0] >= 0xc2 && s[0] < 0xe0	 ? 2
		   : (s[0] & 0xf0) == 0xe0	 ? 3
		   : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
						 : 0;
	if (!n)
		return 0;
	uint32_t c = n == 2 ? s[0] & 31u : n == 3 ? s[0] & 15u : s[0] & 7u;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 63u);
	}
	if ((n == 3 && c < 0x800) || (n == 4 && (c < 0x10000 || c > 0x10ffff)) ||
	    (c >= 0xd800 && c < 0xe000))
		return 0;
	*cp = c;
	return n;
}

/* Controls, marks that change the direction of text or end a line, and what cannot be seen. */
static bool is_harmful(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || (c >= 0x200b && c <= 0x200f) ||
	       (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff;
}

/* At most `columns` characters; what does not fit ends in "...". */
void cli_escape(char *to, size_t size, const char *s, size_t columns)
{
	size_t out = 0, shown = 0;
	while (*s) {
		uint32_t c;
		size_t n = decode(s, &c);
		if (n && is_harmful(c))
			n = 0; /* byte by byte */
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

/* One character inside a string of JSON; returns its bytes. */
static size_t put_json(FILE *to, const char *s)
{
	uint32_t c;
	size_t n = decode(s, &c);
	if (!n)
		c = 0xfffd;
	if (!n || is_harmful(c))
		fprintf(to, "\\u%04x", c);
	else
		fwrite(s, 1, n, to);
	return n ? n : 1;
}

void cli_json_string(FILE *to, const char *s)
{
	fputc('"', to);
	while (*s) {
		if (*s == '"' || *s == '\\')
			fputc('\\', to);
		s += put_json(to, s);
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

static int end_stdout(const char *done)
{
	if (!ferror(stdout) && !fflush(stdout))
		return OOCBAKE_OK;
	fprintf(stderr, "oocbake: %sstandard output cannot be written: %s\n", done,
		strerror(errno));
	return OOCBAKE_FAILED;
}

int cli_print(const char *text)
{
	fputs(text, stdout);
	return end_stdout("");
}

int cli_print_report(const struct cli *c, const char *text, const char *done)
{
	if (!c->json)
		fputs(text, stdout);
	/* The library's JSON has names as they are. */
	while (c->json && *text) {
		if (*text == '\n')
			fputc(*text++, stdout);
		else
			text += put_json(stdout, text);
	}
	return end_stdout(done);
}
