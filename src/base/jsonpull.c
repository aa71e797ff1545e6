/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON grammar (RFC 8259, nothing more), read token by token in constant memory. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json_internal.h"
#include "base/num.h"
#include "base/util.h"

#define INPUT_SIZE (64u << 10)
#define TEXT_START 256u
#define NUMBER_MAX 4096u /* characters; no writer spells a number longer */

enum state {
	BEFORE_VALUE,
	BEFORE_FIRST_ITEM, /* a value or the end of the array */
	BEFORE_FIRST_KEY,  /* a key or the end of the object */
	BEFORE_KEY,
	AFTER_KEY,
	AFTER_VALUE,
};

struct ob_jp {
	ob_jp_read read;
	void *ctx;
	const char *what;
	size_t max_string;
	bool nonfinite;

	enum state state;
	enum ob_jp_tok last;
	unsigned depth;
	bool in_object[OB_JSON_DEPTH_MAX]; /* for each open level: object or array? */

	char *text; /* of the last token, NUL-terminated */
	size_t len, cap;
	uint64_t begin; /* offset of the last token */

	ob_err err;    /* once filled, every call fails with it */
	uint64_t base; /* offset of in[0] */
	size_t pos, n; /* in[pos .. n) is still to be read */
	char in[INPUT_SIZE];
};

int ob_jp_new(struct ob_jp **out, ob_jp_read read, void *ctx, size_t max_string, const char *what,
	      ob_err *e)
{
	struct ob_jp *jp = ob_alloc(sizeof(*jp));

	*out = NULL;
	if (!jp)
		return ob_fail_nomem(e, "JSON reader");
	*jp = (struct ob_jp){
		.read = read, .ctx = ctx, .what = what, .max_string = max_string, .cap = TEXT_START
	};
	jp->text = ob_alloc(jp->cap);
	if (!jp->text) {
		ob_free(jp);
		return ob_fail_nomem(e, "JSON reader");
	}
	*out = jp;
	return 0;
}

void ob_jp_free(struct ob_jp *jp)
{
	if (!jp)
		return;
	ob_free(jp->text);
	ob_free(jp);
}

void ob_jp_allow_nonfinite(struct ob_jp *jp)
{
	jp->nonfinite = true;
}

uint64_t ob_jp_end(const struct ob_jp *jp)
{
	return jp->base + jp->pos;
}

uint64_t ob_jp_begin(const struct ob_jp *jp)
{
	return jp->begin;
}

long ob_jp_read_memory(void *ctx, char *buf, size_t n, ob_err *e)
{
	struct ob_jp_memory *m = ctx;

	(void)e;
	n = ob_min_u64(n, m->left);
	if (n) {
		memcpy(buf, m->p, n);
		m->p += n;
		m->left -= n;
	}
	return (long)n;
}

/* The next byte, or -1 at the end and after a failure to read. */
static int peek(struct ob_jp *jp)
{
	if (jp->pos == jp->n) {
		long got = 0;

		if (jp->err.code == OB_OK)
			got = jp->read(jp->ctx, jp->in, sizeof(jp->in), &jp->err);
		if (got < 0)
			ob_fail(&jp->err, OB_IO, "%s: reading failed", jp->what);
		jp->base += jp->n;
		jp->pos = 0;
		jp->n = got > 0 ? (size_t)got : 0;
		if (jp->n == 0)
			return -1;
	}
	return (unsigned char)jp->in[jp->pos];
}

/* Fails: the next byte is not what the grammar wants. Returns -1. */
static int unexpected(struct ob_jp *jp, const char *wanted)
{
	int c = peek(jp);
	char found[16] = "the end";

	if (c > ' ' && c < 0x7f)
		snprintf(found, sizeof(found), "'%c'", c);
	else if (c >= 0)
		snprintf(found, sizeof(found), "byte 0x%02x", (unsigned)c);
	return ob_fail(&jp->err, OB_CORRUPT, "%s: no valid JSON: %s at byte %llu, expected %s",
		       jp->what, found, (unsigned long long)ob_jp_end(jp), wanted);
}

/* Appends to the text of the token, which may have up to `limit` bytes. */
static int append(struct ob_jp *jp, const char *s, size_t n, size_t limit)
{
	if (n > limit - jp->len)
		return ob_fail(&jp->err, OB_LIMIT,
			       "%s: the text at byte %llu is longer than %zu bytes", jp->what,
			       (unsigned long long)jp->begin, limit);
	if (n >= jp->cap - jp->len) {
		size_t cap = ob_max_u64(2 * jp->cap, jp->len + n + 1);
		char *text = ob_realloc(jp->text, cap);

		if (!text)
			return ob_fail_nomem(&jp->err, "JSON text");
		jp->text = text;
		jp->cap = cap;
	}
	memcpy(jp->text + jp->len, s, n);
	jp->len += n;
	jp->text[jp->len] = '\0';
	return 0;
}

/* ---- strings ---- */

static int hex4(struct ob_jp *jp, uint32_t *unit)
{
	*unit = 0;
	for (int i = 0; i < 4; i++) {
		int c = peek(jp);
		uint32_t digit;

		if (c >= '0' && c <= '9')
			digit = (uint32_t)(c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			digit = (uint32_t)((c | 0x20) - 'a' + 10);
		else
			return unexpected(jp, "four hexadecimal digits");
		*unit = *unit << 4 | digit;
		jp->pos++;
	}
	return 0;
}

static int expect_byte(struct ob_jp *jp, char c, const char *wanted)
{
	if (peek(jp) != c)
		return unexpected(jp, wanted);
	jp->pos++;
	return 0;
}

/* After "\u". */
static int unicode_escape(struct ob_jp *jp)
{
	static const char pair[] = "the second half of a surrogate pair";
	uint32_t cp, low;
	char s[4];
	size_t n = 0;

	if (hex4(jp, &cp) != 0)
		return -1;
	if (cp >= 0xdc00 && cp <= 0xdfff)
		return unexpected(jp, "no lone surrogate before it");
	if (cp >= 0xd800 && cp <= 0xdbff) {
		if (expect_byte(jp, '\\', pair) != 0 || expect_byte(jp, 'u', pair) != 0 ||
		    hex4(jp, &low) != 0)
			return -1;
		if (low < 0xdc00 || low > 0xdfff)
			return unexpected(jp, "no lone surrogate before it");
		cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
	}
	if (cp < 0x80) {
		s[n++] = (char)cp;
	} else if (cp < 0x800) {
		s[n++] = (char)(0xc0 | cp >> 6);
	} else if (cp < 0x10000) {
		s[n++] = (char)(0xe0 | cp >> 12);
		s[n++] = (char)(0x80 | (cp >> 6 & 0x3f));
	} else {
		s[n++] = (char)(0xf0 | cp >> 18);
		s[n++] = (char)(0x80 | (cp >> 12 & 0x3f));
		s[n++] = (char)(0x80 | (cp >> 6 & 0x3f));
	}
	if (cp >= 0x80)
		s[n++] = (char)(0x80 | (cp & 0x3f));
	return append(jp, s, n, jp->max_string);
}

/* After the backslash. */
static int escape(struct ob_jp *jp)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	int c = peek(jp);
	const char *p = c > 0 ? strchr(from, c) : NULL;

	if (c != 'u' && !p)
		return unexpected(jp, "an escape of JSON after the backslash");
	jp->pos++;
	return p ? append(jp, to + (p - from), 1, jp->max_string) : unicode_escape(jp);
}

/* Bytes from here that stand for themselves, as far as they are in the buffer. */
static size_t plain_run(const struct ob_jp *jp)
{
	size_t i = jp->pos;

	while (i < jp->n && (unsigned char)jp->in[i] >= 0x20 && jp->in[i] != '"' &&
	       jp->in[i] != '\\')
		i++;
	return i - jp->pos;
}

/* At the opening quote. */
static int string(struct ob_jp *jp)
{
	jp->pos++;
	for (;;) {
		int c = peek(jp);
		size_t run = plain_run(jp);

		if (run > 0) {
			if (append(jp, jp->in + jp->pos, run, jp->max_string) != 0)
				return -1;
			jp->pos += run;
		} else if (c == '\\') {
			jp->pos++;
			if (escape(jp) != 0)
				return -1;
		} else if (c == '"') {
			break;
		} else {
			return unexpected(jp, "a character or the end of the string");
		}
	}
	jp->pos++;
	/* Escapes give whole characters, so checking the result checks what was written. */
	if (!ob_utf8_valid(jp->text, jp->len))
		return ob_fail(&jp->err, OB_CORRUPT,
			       "%s: no valid JSON: the string at byte %llu is not UTF-8", jp->what,
			       (unsigned long long)jp->begin);
	return 0;
}

/* ---- numbers and words ---- */

static int take(struct ob_jp *jp)
{
	if (append(jp, jp->in + jp->pos, 1, NUMBER_MAX) != 0)
		return -1;
	jp->pos++;
	return 0;
}

static bool at_digit(struct ob_jp *jp)
{
	int c = peek(jp);

	return c >= '0' && c <= '9';
}

static int digits(struct ob_jp *jp)
{
	if (!at_digit(jp))
		return unexpected(jp, "a digit");
	do {
		if (take(jp) != 0)
			return -1;
	} while (at_digit(jp));
	return 0;
}

static int word(struct ob_jp *jp, const char *w)
{
	for (; *w; w++) {
		if (peek(jp) != *w)
			return unexpected(jp, "a value");
		if (take(jp) != 0)
			return -1;
	}
	return 0;
}

static int number(struct ob_jp *jp)
{
	if (peek(jp) == '-' && take(jp) != 0)
		return -1;
	if (jp->nonfinite && peek(jp) == 'I')
		return word(jp, "Infinity");
	/* A zero stands alone. */
	if (peek(jp) == '0' ? take(jp) : digits(jp))
		return -1;
	if (peek(jp) == '.' && (take(jp) != 0 || digits(jp) != 0))
		return -1;
	if (peek(jp) != 'e' && peek(jp) != 'E')
		return 0;
	if (take(jp) != 0)
		return -1;
	if ((peek(jp) == '+' || peek(jp) == '-') && take(jp) != 0)
		return -1;
	return digits(jp);
}

/* ---- structure ---- */

static enum ob_jp_tok open_level(struct ob_jp *jp, bool object)
{
	if (jp->depth == OB_JSON_DEPTH_MAX) {
		ob_fail(&jp->err, OB_LIMIT, "%s: byte %llu is nested deeper than %d levels",
			jp->what, (unsigned long long)jp->begin, OB_JSON_DEPTH_MAX);
		return OB_JP_ERROR;
	}
	jp->pos++;
	jp->in_object[jp->depth++] = object;
	jp->state = object ? BEFORE_FIRST_KEY : BEFORE_FIRST_ITEM;
	return object ? OB_JP_OBJECT : OB_JP_ARRAY;
}

static enum ob_jp_tok close_level(struct ob_jp *jp)
{
	jp->pos++;
	jp->depth--;
	jp->state = AFTER_VALUE;
	return jp->in_object[jp->depth] ? OB_JP_END_OBJECT : OB_JP_END_ARRAY;
}

static enum ob_jp_tok value(struct ob_jp *jp)
{
	int c = peek(jp);

	if (c == '{' || c == '[')
		return open_level(jp, c == '{');
	jp->state = AFTER_VALUE;
	if (c == '"')
		return string(jp) == 0 ? OB_JP_STRING : OB_JP_ERROR;
	if (c == '-' || (c >= '0' && c <= '9') || (jp->nonfinite && c == 'I'))
		return number(jp) == 0 ? OB_JP_NUMBER : OB_JP_ERROR;
	if (c == 'N' && jp->nonfinite)
		return word(jp, "NaN") == 0 ? OB_JP_NUMBER : OB_JP_ERROR;
	if (c == 't')
		return word(jp, "true") == 0 ? OB_JP_TRUE : OB_JP_ERROR;
	if (c == 'f')
		return word(jp, "false") == 0 ? OB_JP_FALSE : OB_JP_ERROR;
	if (c == 'n')
		return word(jp, "null") == 0 ? OB_JP_NULL : OB_JP_ERROR;
	unexpected(jp, "a value");
	return OB_JP_ERROR;
}

/* Skips white space; returns the byte after it. */
static int skip_space(struct ob_jp *jp)
{
	int c;

	while ((c = peek(jp)) == ' ' || c == '\t' || c == '\n' || c == '\r')
		jp->pos++;
	return c;
}

static enum ob_jp_tok key(struct ob_jp *jp)
{
	if (peek(jp) != '"')
		unexpected(jp, "a key");
	else if (string(jp) == 0)
		jp->state = AFTER_KEY;
	return jp->state == AFTER_KEY ? OB_JP_KEY : OB_JP_ERROR;
}

/* Takes the comma or colon that must come now, if any. */
static int separator(struct ob_jp *jp)
{
	int c = skip_space(jp);
	bool object = jp->depth > 0 && jp->in_object[jp->depth - 1];

	if (jp->state == AFTER_KEY) {
		jp->state = BEFORE_VALUE;
		return expect_byte(jp, ':', "a colon after the key");
	}
	if (jp->state != AFTER_VALUE)
		return 0;
	if (jp->depth == 0)
		return c < 0 ? 0 : unexpected(jp, "nothing after the value");
	if (c == (object ? '}' : ']'))
		return 0;
	jp->state = object ? BEFORE_KEY : BEFORE_VALUE;
	return expect_byte(jp, ',', object ? "a comma or '}'" : "a comma or ']'");
}

static enum ob_jp_tok next(struct ob_jp *jp)
{
	int c;

	if (separator(jp) != 0)
		return OB_JP_ERROR;
	c = skip_space(jp);
	jp->begin = ob_jp_end(jp);
	switch (jp->state) {
	case BEFORE_FIRST_KEY:
		return c == '}' ? close_level(jp) : key(jp);
	case BEFORE_KEY:
		return key(jp);
	case BEFORE_FIRST_ITEM:
		return c == ']' ? close_level(jp) : value(jp);
	case AFTER_VALUE:
		return jp->depth ? close_level(jp) : OB_JP_END;
	default:
		return value(jp);
	}
}

enum ob_jp_tok ob_jp_next(struct ob_jp *jp, ob_err *e)
{
	jp->len = 0;
	jp->text[0] = '\0';
	jp->last = jp->err.code == OB_OK ? next(jp) : OB_JP_ERROR;
	/* Reading may have failed behind what looked like the end. */
	if (jp->err.code != OB_OK)
		jp->last = OB_JP_ERROR;
	if (jp->last == OB_JP_ERROR && e && e->code == OB_OK)
		*e = jp->err;
	return jp->last;
}

const char *ob_jp_text(const struct ob_jp *jp, size_t *len)
{
	*len = jp->len;
	return jp->text;
}

bool ob_jp_u64(const struct ob_jp *jp, uint64_t *n)
{
	uint64_t x = 0;

	if (jp->last != OB_JP_NUMBER)
		return false;
	for (size_t i = 0; i < jp->len; i++) {
		char c = jp->text[i];

		if (c < '0' || c > '9' || !ob_mul_u64(x, 10, &x) ||
		    !ob_add_u64(x, (uint64_t)(c - '0'), &x))
			return false;
	}
	*n = x;
	return true;
}

int ob_jp_skip(struct ob_jp *jp, ob_err *e)
{
	unsigned depth = jp->depth;

	do {
		if (ob_jp_next(jp, e) == OB_JP_ERROR)
			return -1;
	} while (jp->depth > depth);
	return 0;
}
