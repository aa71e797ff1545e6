/* SPDX-License-Identifier: Apache-2.0 */
/* The pickle machine: protocols 2 to 5 as far as torch.save uses them. No function calls another on
 * behalf of the data, so depth of nesting costs nothing. */
#include "container/pickle.h"

#include <endian.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/util.h"
#include "container/pickle_allow.h"

#define STACK_MAX 100000u /* a batch of 1000 dict members is the most that pickle piles up */

struct machine {
	const uint8_t *start, *p, *end;
	const char *what;
	struct ob_arena *arena;
	uint64_t left; /* of the memory that this pickle may use */
	struct ob_pval *stack;
	size_t n, cap;
	struct ob_pval *memo;
	size_t n_memo, cap_memo;
	const struct ob_pstorage *storages;
};

/* ---- errors and memory ---- */

/* Fails with: WHAT: its pickle FMT... (byte N). Returns -1. */
__attribute__((format(printf, 4, 5))) static int bad(const struct machine *m, ob_err *e,
						     enum ob_code code, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return ob_fail(e, code, "%s: its pickle %s (before byte %zu)", m->what, text,
		       (size_t)(m->p - m->start));
}
#ifdef OB_ANALYZE /* as in base/err.h */
#define bad(...) (bad(__VA_ARGS__), -1)
#endif

static void *take_memory(struct machine *m, size_t n, ob_err *e)
{
	n = ob_round_up(n, 16); /* as the arena does */
	if (n > m->left) {
		bad(m, e, OB_LIMIT, "takes too much memory for its size");
		return NULL;
	}
	m->left -= n;
	return ob_arena_alloc(m->arena, n, e);
}

/* ---- stack, memo, operands ---- */

static int push(struct machine *m, struct ob_pval v, ob_err *e)
{
	if (m->n == STACK_MAX)
		return bad(m, e, OB_LIMIT, "piles up more than %u values", STACK_MAX);
	if (ob_grow(&m->stack, &m->cap, m->n, sizeof(*m->stack), e) != 0)
		return -1;
	m->stack[m->n++] = v;
	return 0;
}

static int push_kind(struct machine *m, enum ob_pkind kind, ob_err *e)
{
	return push(m, (struct ob_pval){ .kind = kind }, e);
}

/* The value on top, which stays there. */
static struct ob_pval *top(struct machine *m, ob_err *e)
{
	if (m->n == 0 || m->stack[m->n - 1].kind == OB_P_MARK) {
		bad(m, e, OB_CORRUPT, "takes a value from an empty stack");
		return NULL;
	}
	return &m->stack[m->n - 1];
}

static int pop(struct machine *m, struct ob_pval *v, ob_err *e)
{
	const struct ob_pval *t = top(m, e);

	if (!t)
		return -1;
	*v = *t;
	m->n--;
	return 0;
}

/* Takes away all above the last mark, and the mark; the values are readable until the next push. */
static int pop_to_mark(struct machine *m, const struct ob_pval **v, uint32_t *n, ob_err *e)
{
	size_t i = m->n;

	while (i > 0 && m->stack[i - 1].kind != OB_P_MARK)
		i--;
	if (i == 0)
		return bad(m, e, OB_CORRUPT, "looks for a mark that is not there");
	*v = &m->stack[i];
	*n = (uint32_t)(m->n - i);
	m->n = i - 1;
	return 0;
}

/* Pickle numbers its memos from 0, so the next one is the only new number. */
static int put(struct machine *m, uint64_t i, ob_err *e)
{
	const struct ob_pval *v = top(m, e);

	if (!v)
		return -1;
	if (i > m->n_memo)
		return bad(m, e, OB_CORRUPT, "skips to memo %" PRIu64, i);
	if (i == m->n_memo) {
		if (m->left < sizeof(*v))
			return bad(m, e, OB_LIMIT, "takes too much memory for its size");
		if (ob_grow(&m->memo, &m->cap_memo, m->n_memo, sizeof(*v), e) != 0)
			return -1;
		m->left -= sizeof(*v);
		m->n_memo++;
	}
	m->memo[i] = *v;
	return 0;
}

static int get(struct machine *m, uint64_t i, ob_err *e)
{
	if (i >= m->n_memo)
		return bad(m, e, OB_CORRUPT, "reads memo %" PRIu64 ", which is not set", i);
	return push(m, m->memo[i], e);
}

/* The next n bytes. */
static const uint8_t *take(struct machine *m, uint64_t n, ob_err *e)
{
	const uint8_t *p = m->p;

	if (n > (uint64_t)(m->end - p)) {
		bad(m, e, OB_CORRUPT, "ends in the middle of an operation");
		return NULL;
	}
	m->p += n;
	return p;
}

/* A little-endian number of n bytes. */
static int take_number(struct machine *m, unsigned n, uint64_t *x, ob_err *e)
{
	const uint8_t *p = take(m, n, e);

	if (!p)
		return -1;
	*x = 0;
	memcpy(x, p, n);
	*x = le64toh(*x);
	return 0;
}

/* ---- operations: plain values ---- */

static int op_string(struct machine *m, unsigned len_bytes, enum ob_pkind kind, ob_err *e)
{
	struct ob_pval v = { .kind = kind };
	uint64_t len;

	if (take_number(m, len_bytes, &len, e) != 0)
		return -1;
	v.str = (const char *)take(m, len, e);
	if (!v.str)
		return -1;
	v.n = (uint32_t)len; /* len_bytes is 1 or 4 */
	return push(m, v, e);
}

static int op_int(struct machine *m, unsigned bytes, bool is_signed, ob_err *e)
{
	uint64_t x;

	if (take_number(m, bytes, &x, e) != 0)
		return -1;
	if (is_signed && bytes == 4)
		x = (uint64_t)(int32_t)x;
	return push(m, (struct ob_pval){ .kind = OB_P_INT, .i = (int64_t)x }, e);
}

/* Two's complement of any length. */
static int op_long(struct machine *m, ob_err *e)
{
	struct ob_pval v = { .kind = OB_P_INT };
	uint64_t n, x = 0;
	const uint8_t *p;

	if (take_number(m, 1, &n, e) != 0)
		return -1;
	p = take(m, n, e);
	if (!p)
		return -1;
	if (n > 8)
		return push_kind(m, OB_P_OTHER, e);
	for (uint64_t i = n; i > 0; i--)
		x = x << 8 | p[i - 1];
	if (n > 0 && n < 8 && (p[n - 1] & 0x80))
		x |= ~UINT64_C(0) << (8 * n);
	v.i = (int64_t)x;
	return push(m, v, e);
}

static int push_tuple(struct machine *m, const struct ob_pval *item, uint32_t n, ob_err *e)
{
	struct ob_pval *copy = NULL;

	if (n > 0) {
		copy = take_memory(m, n * sizeof(*item), e);
		if (!copy)
			return -1;
		memcpy(copy, item, n * sizeof(*item));
	}
	return push(m, (struct ob_pval){ .kind = OB_P_TUPLE, .n = n, .item = copy }, e);
}

static int op_tuple(struct machine *m, ob_err *e)
{
	const struct ob_pval *item;
	uint32_t n;

	if (pop_to_mark(m, &item, &n, e) != 0)
		return -1;
	return push_tuple(m, item, n, e);
}

static int op_small_tuple(struct machine *m, uint32_t n, ob_err *e)
{
	struct ob_pval item[3];

	for (uint32_t i = n; i > 0; i--)
		if (pop(m, &item[i - 1], e) != 0)
			return -1;
	return push_tuple(m, item, n, e);
}

/* ---- operations: lists and dicts ---- */

static int push_dict(struct machine *m, ob_err *e)
{
	struct ob_pval v = { .kind = OB_P_DICT };

	v.dict = take_memory(m, sizeof(*v.dict), e);
	return v.dict ? push(m, v, e) : -1;
}

static int add_member(struct machine *m, struct ob_pdict *d, struct ob_pval key,
		      struct ob_pval value, ob_err *e)
{
	struct ob_pentry *entry = take_memory(m, sizeof(*entry), e);

	if (!entry)
		return -1;
	*entry = (struct ob_pentry){ .key = key, .value = value };
	if (d->last)
		d->last->next = entry;
	else
		d->first = entry;
	d->last = entry;
	return 0;
}

/* Puts the strings among n values into the list on top. A list in the memo stays as it was. */
static int append_all(struct machine *m, const struct ob_pval *v, uint32_t n, ob_err *e)
{
	struct ob_pval *list = top(m, e);

	if (!list)
		return -1;
	if (list->kind != OB_P_LIST)
		return bad(m, e, OB_CORRUPT, "appends to what is no list");
	for (uint32_t i = 0; i < n; i++) {
		if (v[i].kind != OB_P_STR)
			continue;
		if (!list->dict)
			list->dict = take_memory(m, sizeof(*list->dict), e);
		if (!list->dict || add_member(m, list->dict, (struct ob_pval){ 0 }, v[i], e) != 0)
			return -1;
	}
	return 0;
}

static int op_append(struct machine *m, ob_err *e)
{
	struct ob_pval v;

	return pop(m, &v, e) != 0 ? -1 : append_all(m, &v, 1, e);
}

static int op_appends(struct machine *m, ob_err *e)
{
	const struct ob_pval *v;
	uint32_t n;

	return pop_to_mark(m, &v, &n, e) != 0 ? -1 : append_all(m, v, n, e);
}

/* Sets n / 2 members of the dict on top; kv: keys and values in turn. */
static int set_items(struct machine *m, const struct ob_pval *kv, uint32_t n, ob_err *e)
{
	const struct ob_pval *v = top(m, e);

	if (!v)
		return -1;
	if (v->kind != OB_P_DICT || n % 2 != 0)
		return bad(m, e, OB_CORRUPT, "sets members of what is no dict");
	for (uint32_t i = 0; i < n; i += 2) {
		enum ob_pkind kind = kv[i + 1].kind;

		if ((kind == OB_P_TENSOR || kind == OB_P_DICT || kind == OB_P_BOOL) &&
		    add_member(m, v->dict, kv[i], kv[i + 1], e) != 0)
			return -1;
	}
	return 0;
}

static int op_set_item(struct machine *m, ob_err *e)
{
	struct ob_pval kv[2];

	if (pop(m, &kv[1], e) != 0 || pop(m, &kv[0], e) != 0)
		return -1;
	return set_items(m, kv, 2, e);
}

static int op_set_items(struct machine *m, ob_err *e)
{
	const struct ob_pval *kv;
	uint32_t n;

	if (pop_to_mark(m, &kv, &n, e) != 0)
		return -1;
	return set_items(m, kv, n, e);
}

/* ---- operations: symbols and calls ---- */

static int refuse_symbol(struct machine *m, const char *module, size_t module_len, const char *name,
			 size_t name_len, enum ob_code code, ob_err *e)
{
	char full[128], shown[256];

	snprintf(full, sizeof(full), "%.*s.%.*s", (int)ob_min_u64(module_len, 60), module,
		 (int)ob_min_u64(name_len, 60), name);
	ob_printable(full, shown, sizeof(shown));
	if (code == OB_UNSUPPORTED)
		return ob_fail(e, code, "%s is a pickle with %s, a kind of tensor that is not read",
			       m->what, shown);
	return ob_fail(e, code,
		       "%s is a pickle that calls %s; nothing was executed; only what state "
		       "dicts of tensors need is allowed, so get the weights as .safetensors",
		       m->what, shown);
}

static int push_symbol(struct machine *m, const char *module, size_t module_len, const char *name,
		       size_t name_len, ob_err *e)
{
	const struct ob_psymbol *s = ob_psymbol_find(module, module_len, name, name_len);
	enum ob_dtype dtype = ob_psymbol_dtype(module, module_len, name, name_len);

	if (dtype != OB_N_DTYPES)
		return push(m, (struct ob_pval){ .kind = OB_P_DTYPE, .dtype = dtype }, e);
	if (!s || s->role == OB_ROLE_UNSUPPORTED)
		return refuse_symbol(m, module, module_len, name, name_len,
				     s ? OB_UNSUPPORTED : OB_UNSAFE, e);
	return push(m, (struct ob_pval){ .kind = OB_P_SYMBOL, .symbol = s }, e);
}

/* The rest of a line. */
static const char *take_line(struct machine *m, size_t *n, ob_err *e)
{
	const char *line = (const char *)m->p;
	const char *stop = memchr(line, '\n', (size_t)(m->end - m->p));

	if (!stop) {
		bad(m, e, OB_CORRUPT, "ends in the middle of a name");
		return NULL;
	}
	*n = (size_t)(stop - line);
	m->p += *n + 1;
	return line;
}

static int op_global(struct machine *m, ob_err *e)
{
	size_t module_len, name_len;
	const char *module = take_line(m, &module_len, e);
	const char *name = module ? take_line(m, &name_len, e) : NULL;

	return name ? push_symbol(m, module, module_len, name, name_len, e) : -1;
}

static int op_stack_global(struct machine *m, ob_err *e)
{
	struct ob_pval module, name;

	if (pop(m, &name, e) != 0 || pop(m, &module, e) != 0)
		return -1;
	if (module.kind != OB_P_STR || name.kind != OB_P_STR)
		return bad(m, e, OB_CORRUPT, "names a function by what is no string");
	return push_symbol(m, module.str, module.n, name.str, name.n, e);
}

/* Of old files: None, or (key, first element, number of elements) of a part of the storage. */
static bool read_view(const struct ob_pval *v, struct ob_pstorage *s)
{
	const struct ob_pval *item = v->item;

	if (v->kind == OB_P_OTHER)
		return true;
	if (v->kind != OB_P_TUPLE || v->n != 3 || item[1].kind != OB_P_INT || item[1].i < 0 ||
	    item[2].kind != OB_P_INT || item[2].i < 0)
		return false;
	s->first = (uint64_t)item[1].i;
	s->n = (uint64_t)item[2].i;
	return true;
}

/* ('storage', class, key, location, number of elements[, view]) */
static int op_persistent_id(struct machine *m, ob_err *e)
{
	struct ob_pstorage *s;
	struct ob_pval id;
	const struct ob_pval *v;

	if (pop(m, &id, e) != 0)
		return -1;
	v = id.item;
	if (id.kind != OB_P_TUPLE || (id.n != 5 && id.n != 6) || v[0].kind != OB_P_STR ||
	    v[0].n != 7 || memcmp(v[0].str, "storage", 7) != 0 || v[1].kind != OB_P_SYMBOL ||
	    (v[1].symbol->role != OB_ROLE_STORAGE && v[1].symbol->role != OB_ROLE_UNTYPED) ||
	    v[2].kind != OB_P_STR || v[4].kind != OB_P_INT || v[4].i < 0)
		return bad(m, e, OB_CORRUPT, "has an object outside the pickle that is no storage");
	s = take_memory(m, sizeof(*s), e);
	if (!s)
		return -1;
	*s = (struct ob_pstorage){
		.untyped = v[1].symbol->role == OB_ROLE_UNTYPED,
		.dtype = v[1].symbol->dtype,
		.key = v[2],
		.n = (uint64_t)v[4].i,
		.next = m->storages,
	};
	if (id.n == 6 && !read_view(&v[5], s))
		return bad(m, e, OB_CORRUPT, "has a view of a storage that is none");
	m->storages = s;
	return push(m, (struct ob_pval){ .kind = OB_P_STORAGE, .storage = s }, e);
}

static bool is_dims(const struct ob_pval *v)
{
	bool ok = v->kind == OB_P_TUPLE && v->n <= OB_MAX_RANK;

	for (uint32_t i = 0; ok && i < v->n; i++)
		ok = v->item[i].kind == OB_P_INT && v->item[i].i >= 0;
	return ok;
}

static int make_tensor(struct machine *m, enum ob_role role, const struct ob_pval *args, ob_err *e)
{
	const struct ob_pval *v = args->item;
	uint32_t arity = role == OB_ROLE_TENSOR ? 4 : role == OB_ROLE_TENSOR_V2 ? 6 : 7;
	struct ob_ptensor *t;

	if (args->n < arity || args->n > arity + 1 || v[0].kind != OB_P_STORAGE ||
	    v[0].storage->untyped != (role == OB_ROLE_TENSOR_V3) || v[1].kind != OB_P_INT ||
	    v[1].i < 0 || !is_dims(&v[2]) || !is_dims(&v[3]) || v[2].n != v[3].n ||
	    (role == OB_ROLE_TENSOR_V3 && v[6].kind != OB_P_DTYPE))
		return bad(m, e, OB_CORRUPT, "builds a tensor from the wrong things");
	if (args->n > arity)
		return bad(m, e, OB_UNSUPPORTED,
			   "has a conjugated or negated view of a tensor, which is not read");
	t = take_memory(m, sizeof(*t), e);
	if (!t)
		return -1;
	*t = (struct ob_ptensor){
		.storage = v[0].storage,
		.dtype = role == OB_ROLE_TENSOR_V3 ? v[6].dtype : v[0].storage->dtype,
		.offset = (uint64_t)v[1].i,
		.size = v[2],
		.stride = v[3],
	};
	return push(m, (struct ob_pval){ .kind = OB_P_TENSOR, .tensor = t }, e);
}

static int call(struct machine *m, const struct ob_psymbol *f, const struct ob_pval *args,
		ob_err *e)
{
	const struct ob_pval *v = args->item;

	/* Only what rebuilds a tensor may be called through FROM_TYPE: no recursion. */
	if (f->role == OB_ROLE_FROM_TYPE) {
		if (args->n != 4 || v[0].kind != OB_P_SYMBOL ||
		    v[0].symbol->role < OB_ROLE_TENSOR || v[0].symbol->role > OB_ROLE_TENSOR_V3 ||
		    v[1].kind != OB_P_SYMBOL || v[1].symbol->role != OB_ROLE_CLASS ||
		    v[2].kind != OB_P_TUPLE)
			return bad(m, e, OB_CORRUPT, "builds a tensor from the wrong things");
		f = v[0].symbol;
		args = &v[2];
	}
	switch (f->role) {
	case OB_ROLE_DICT:
		if (args->n != 0)
			return bad(m, e, OB_UNSUPPORTED, "makes an OrderedDict from a list");
		return push_dict(m, e);
	case OB_ROLE_TENSOR:
	case OB_ROLE_TENSOR_V2:
	case OB_ROLE_TENSOR_V3:
		return make_tensor(m, f->role, args, e);
	case OB_ROLE_SAME:
		if (args->n == 0 || (v[0].kind != OB_P_TENSOR && v[0].kind != OB_P_TUPLE))
			return bad(m, e, OB_CORRUPT, "calls %s with the wrong things", f->name);
		return push(m, v[0], e);
	case OB_ROLE_OTHER:
		return push_kind(m, OB_P_OTHER, e);
	default:
		return refuse_symbol(m, f->module, strlen(f->module), f->name, strlen(f->name),
				     OB_UNSAFE, e);
	}
}

static int op_reduce(struct machine *m, ob_err *e)
{
	struct ob_pval args, f;

	if (pop(m, &args, e) != 0 || pop(m, &f, e) != 0)
		return -1;
	if (f.kind != OB_P_SYMBOL || args.kind != OB_P_TUPLE)
		return bad(m, e, OB_UNSAFE, "calls something that is no function");
	return call(m, f.symbol, &args, e);
}

/* Attributes: an OrderedDict's _metadata, a tensor's notes. Of no interest. */
static int op_build(struct machine *m, ob_err *e)
{
	const struct ob_pval *v;
	struct ob_pval state;

	if (pop(m, &state, e) != 0)
		return -1;
	v = top(m, e);
	if (!v)
		return -1;
	if (v->kind != OB_P_DICT && v->kind != OB_P_TENSOR && v->kind != OB_P_OTHER)
		return bad(m, e, OB_UNSAFE, "changes an object that has no attributes");
	return 0;
}

static int op_proto(struct machine *m, ob_err *e)
{
	uint64_t version;

	if (take_number(m, 1, &version, e) != 0)
		return -1;
	if (version < 2 || version > 5)
		return bad(m, e, OB_UNSUPPORTED, "is of protocol %" PRIu64 "; 2 to 5 are read",
			   version);
	return 0;
}

/* ---- the loop ---- */

static int op_memo(struct machine *m, uint8_t op, ob_err *e)
{
	uint64_t i = m->n_memo;

	if ((op == 'q' || op == 'h') && take_number(m, 1, &i, e) != 0)
		return -1;
	if ((op == 'r' || op == 'j') && take_number(m, 4, &i, e) != 0)
		return -1;
	return op == 'h' || op == 'j' ? get(m, i, e) : put(m, i, e);
}

static int step(struct machine *m, uint8_t op, ob_err *e)
{
	switch (op) {
	case 0x80: /* PROTO */
		return op_proto(m, e);
	case 0x95: /* FRAME: only a hint for reading ahead */
		return take(m, 8, e) ? 0 : -1;
	case 'N': /* NONE */
		return push_kind(m, OB_P_OTHER, e);
	case 0x88: /* NEWTRUE */
	case 0x89: /* NEWFALSE */
		return push(m, (struct ob_pval){ .kind = OB_P_BOOL, .i = op == 0x88 }, e);
	case 'J': /* BININT */
		return op_int(m, 4, true, e);
	case 'K': /* BININT1 */
		return op_int(m, 1, false, e);
	case 'M': /* BININT2 */
		return op_int(m, 2, false, e);
	case 0x8a: /* LONG1 */
		return op_long(m, e);
	case 'G': /* BINFLOAT */
		return take(m, 8, e) ? push_kind(m, OB_P_OTHER, e) : -1;
	case 'X': /* BINUNICODE */
		return op_string(m, 4, OB_P_STR, e);
	case 0x8c: /* SHORT_BINUNICODE */
	case 'U':  /* SHORT_BINSTRING */
		return op_string(m, 1, OB_P_STR, e);
	case 'B': /* BINBYTES */
		return op_string(m, 4, OB_P_OTHER, e);
	case 'C': /* SHORT_BINBYTES */
		return op_string(m, 1, OB_P_OTHER, e);
	case '(': /* MARK */
		return push_kind(m, OB_P_MARK, e);
	case ')': /* EMPTY_TUPLE */
		return push_tuple(m, NULL, 0, e);
	case 't': /* TUPLE */
		return op_tuple(m, e);
	case 0x85: /* TUPLE1 */
	case 0x86: /* TUPLE2 */
	case 0x87: /* TUPLE3 */
		return op_small_tuple(m, op - 0x84u, e);
	case ']':  /* EMPTY_LIST */
	case 0x8f: /* EMPTY_SET */
		return push_kind(m, OB_P_LIST, e);
	case 'a': /* APPEND */
		return op_append(m, e);
	case 'e':  /* APPENDS */
	case 0x90: /* ADDITEMS */
		return op_appends(m, e);
	case '}': /* EMPTY_DICT */
		return push_dict(m, e);
	case 's': /* SETITEM */
		return op_set_item(m, e);
	case 'u': /* SETITEMS */
		return op_set_items(m, e);
	case 'q':  /* BINPUT */
	case 'r':  /* LONG_BINPUT */
	case 0x94: /* MEMOIZE */
	case 'h':  /* BINGET */
	case 'j':  /* LONG_BINGET */
		return op_memo(m, op, e);
	case 'c': /* GLOBAL */
		return op_global(m, e);
	case 0x93: /* STACK_GLOBAL */
		return op_stack_global(m, e);
	case 'Q': /* BINPERSID */
		return op_persistent_id(m, e);
	case 'R': /* REDUCE */
		return op_reduce(m, e);
	case 'b': /* BUILD */
		return op_build(m, e);
	default:
		return bad(m, e, OB_UNSAFE,
			   "uses operation 0x%02x, which state dicts do not need; "
			   "nothing was executed",
			   op);
	}
}

static int run(struct machine *m, struct ob_pval *root, ob_err *e)
{
	for (;;) {
		const uint8_t *op = take(m, 1, e);

		if (!op)
			return -1;
		if (*op == '.') /* STOP */
			return pop(m, root, e);
		if (step(m, *op, e) != 0)
			return -1;
	}
}

int ob_pickle_read_one(const uint8_t *data, size_t n, struct ob_arena *a, const char *what,
		       struct ob_pval *root, size_t *used, const struct ob_pstorage **storages,
		       ob_err *e)
{
	struct machine m = {
		.start = data,
		.p = data,
		.end = data + n,
		.what = what,
		.arena = a,
		.left = OB_PICKLE_MEMORY(n),
	};
	int rc = run(&m, root, e);

	*used = (size_t)(m.p - data);
	*storages = m.storages;
	ob_free(m.stack);
	ob_free(m.memo);
	return rc;
}

int ob_pickle_read(const uint8_t *data, size_t n, struct ob_arena *a, const char *what,
		   struct ob_pval *root, ob_err *e)
{
	const struct ob_pstorage *storages;
	size_t used;

	return ob_pickle_read_one(data, n, a, what, root, &used, &storages, e);
}
