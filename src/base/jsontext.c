/* SPDX-License-Identifier: Apache-2.0 */
/* Growing texts, and changing single members of a JSON text in place. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json_internal.h"
#include "base/num.h"
#include "base/util.h"

/* ---- ob_text ---- */

/* Makes room for n more bytes and the NUL. */
static bool reserve(struct ob_text *t, size_t n)
{
	size_t need;
	char *data;

	if (t->failed)
		return false;
	if (n < t->cap - t->len)
		return true;
	if (!__builtin_add_overflow(t->len, n + 1, &need) && n < SIZE_MAX) {
		need = ob_max_u64(need, ob_max_u64(64, 2 * t->cap));
		data = ob_realloc(t->data, need);
		if (data) {
			t->data = data;
			t->cap = need;
			return true;
		}
	}
	t->failed = true;
	return false;
}

void ob_text_add(struct ob_text *t, const char *s, size_t n)
{
	if (!reserve(t, n))
		return;
	if (n)
		memcpy(t->data + t->len, s, n);
	t->len += n;
	t->data[t->len] = '\0';
}

void ob_text_printf(struct ob_text *t, const char *fmt, ...)
{
	locale_t before = uselocale(ob_c_locale());
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0) {
		t->failed = true;
	} else if (reserve(t, (size_t)n)) {
		va_start(ap, fmt);
		vsnprintf(t->data + t->len, (size_t)n + 1, fmt, ap);
		va_end(ap);
		t->len += (size_t)n;
	}
	uselocale(before);
}

void ob_text_json(struct ob_text *t, const char *s, size_t n)
{
	ob_text_add(t, "\"", 1);
	while (n > 0) {
		uint32_t cp;
		size_t len = ob_utf8_next(s, n, &cp);

		if (len == 0) {
			ob_text_add(t, "\xef\xbf\xbd", 3); /* U+FFFD */
			len = 1;
		} else if (cp == '"' || cp == '\\') {
			ob_text_printf(t, "\\%c", (int)cp);
		} else if (cp == '\n') {
			ob_text_add(t, "\\n", 2);
		} else if (cp < 0x20) {
			ob_text_printf(t, "\\u%04x", (unsigned)cp);
		} else {
			ob_text_add(t, s, len);
		}
		s += len;
		n -= len;
	}
	ob_text_add(t, "\"", 1);
}

void ob_text_free(struct ob_text *t)
{
	ob_free(t->data);
	*t = (struct ob_text){ 0 };
}

/* ---- ob_json_edit ---- */

static const char space[] = " \t\r\n";

/* A member of the object that is edited, as offsets into the text. */
struct member {
	bool found;
	size_t begin, key_end, value, end;
};

struct place {
	bool exists;
	size_t inside, close; /* after the opening brace; at the closing one */
	struct member match;  /* the one with the key */
	struct member last;   /* of all */
};

static bool token_is(const struct ob_jp *jp, const char *s, size_t n)
{
	size_t len;
	const char *text = ob_jp_text(jp, &len);

	return len == n && memcmp(text, s, n) == 0;
}

/* Reads on until it is inside the object that `path` leads to from the one it is in. Returns 1, 0
 * when there is none, or -1. */
static int enter(struct ob_jp *jp, const char *path, ob_err *e)
{
	while (*path) {
		size_t part = strcspn(path, "\x1f");
		enum ob_jp_tok tok;

		while ((tok = ob_jp_next(jp, e)) == OB_JP_KEY && !token_is(jp, path, part))
			if (ob_jp_skip(jp, e) != 0)
				return -1;
		if (tok == OB_JP_KEY)
			tok = ob_jp_next(jp, e);
		if (tok != OB_JP_OBJECT)
			return tok == OB_JP_ERROR ? -1 : 0;
		path += part + (path[part] != '\0');
	}
	return 1;
}

/* Reads the members of the object that it is in. */
static int read_members(struct ob_jp *jp, const struct ob_text *text, const char *key,
			struct place *p, const char *what, ob_err *e)
{
	enum ob_jp_tok tok;

	p->exists = true;
	p->inside = ob_jp_end(jp);
	while ((tok = ob_jp_next(jp, e)) == OB_JP_KEY) {
		struct member m = { .found = token_is(jp, key, strlen(key)),
				    .begin = ob_jp_begin(jp),
				    .key_end = ob_jp_end(jp) };

		m.value = m.key_end + strspn(text->data + m.key_end, " \t\r\n:");
		if (ob_jp_skip(jp, e) != 0)
			return -1;
		m.end = ob_jp_end(jp);
		if (m.found && p->match.found)
			return ob_fail(e, OB_CORRUPT,
				       "%s: the key \"%s\" is there twice in one object", what,
				       key);
		if (m.found)
			p->match = m;
		p->last = m;
		p->last.found = true;
	}
	p->close = ob_jp_begin(jp);
	return tok == OB_JP_ERROR ? -1 : 0;
}

/* Finds the object and its member, and checks the text to its end. */
static int find_place(const struct ob_text *text, const char *path, const char *key,
		      struct place *p, const char *what, ob_err *e)
{
	struct ob_jp_memory source = { .p = text->data, .left = text->len };
	enum ob_jp_tok tok;
	struct ob_jp *jp;
	int rc;

	if (ob_jp_new(&jp, ob_jp_read_memory, &source, text->len, what, e) != 0)
		return -1;
	tok = ob_jp_next(jp, e);
	if (tok == OB_JP_OBJECT)
		rc = enter(jp, path, e);
	else
		rc = ob_fail(e, OB_CORRUPT, "%s: the JSON text is no object", what);
	if (rc == 1)
		rc = read_members(jp, text, key, p, what, e);
	while (rc == 0 && tok != OB_JP_END) {
		tok = ob_jp_next(jp, e);
		rc = tok == OB_JP_ERROR ? -1 : 0;
	}
	ob_jp_free(jp);
	return rc;
}

/* Widens a member that is to vanish by one comma, and by the white space that belonged to it. */
static void with_comma(const char *data, struct member *m)
{
	m->end += strspn(data + m->end, space);
	if (data[m->end] == ',') {
		m->end++;
		m->end += strspn(data + m->end, space);
		return;
	}
	/* The last one: the white space before the closing brace stays, but not in an object that
	 * is empty then. */
	while (strchr(space, data[m->begin - 1]))
		m->begin--;
	if (data[m->begin - 1] == '{')
		return;
	m->begin--;
	while (strchr(space, data[m->end - 1]))
		m->end--;
}

static void add_member(struct ob_text *out, const char *key, const char *separator, size_t n,
		       const char *value)
{
	ob_text_json(out, key, strlen(key));
	ob_text_add(out, separator, n);
	ob_text_add(out, value, strlen(value));
}

/* A new member after the last one, set like it. */
static void add_after(struct ob_text *out, const char *data, const struct member *last,
		      const char *key, const char *value)
{
	const char *colon = data + last->key_end;
	size_t colon_len = last->value - last->key_end;
	size_t indent = last->begin;
	bool only;

	while (strchr(space, data[indent - 1]))
		indent--;
	only = data[indent - 1] == '{';
	ob_text_add(out, ",", 1);
	if (indent < last->begin)
		ob_text_add(out, data + indent, last->begin - indent);
	else if (only && colon_len > 1)
		ob_text_add(out, " ", 1); /* who sets {"a": 1} sets a blank after commas too */
	add_member(out, key, colon, colon_len, value);
}

int ob_json_edit(struct ob_text *text, const char *path, const char *key, const char *value,
		 const char *what, ob_err *e)
{
	const char *data = text->data;
	struct ob_text out = { 0 };
	struct place p = { 0 };
	size_t resume;

	if (find_place(text, path, key, &p, what, e) != 0)
		return -1;
	if (!p.exists || (!value && !p.match.found))
		return 0;
	if (!value) {
		with_comma(data, &p.match);
		ob_text_add(&out, data, p.match.begin);
		resume = p.match.end;
	} else if (p.match.found) {
		ob_text_add(&out, data, p.match.value);
		ob_text_add(&out, value, strlen(value));
		resume = p.match.end;
	} else if (p.last.found) {
		ob_text_add(&out, data, p.last.end);
		add_after(&out, data, &p.last, key, value);
		resume = p.last.end;
	} else {
		ob_text_add(&out, data, p.inside);
		add_member(&out, key, ": ", 2, value);
		resume = p.close;
	}
	ob_text_add(&out, data + resume, text->len - resume);
	if (out.failed) {
		ob_text_free(&out);
		return ob_fail_nomem(e, "JSON text");
	}
	ob_text_free(text);
	*text = out;
	return 0;
}
