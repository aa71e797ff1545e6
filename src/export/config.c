/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json: the model's own text with single members changed, and only where what is written
 * differs from what the text says. A run that keeps types and formats keeps every byte.
 */
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "export/internal.h"

static const char what[] = "config.json";

/* Objects that describe a part of the model as the root describes all of it; "" is the root. */
static const char *const sections[] = {
	"",
	"text_config",
	"llm_config",
	"language_config",
	"vision_config",
	"audio_config",
	"thinker_config",
	"thinker_config\x1ftext_config",
	NULL,
};

/* Where formats say how weights are quantized. */
static const char *const format_keys[] = {
	"quantization_config",
	"quantization",
	"compression_config",
	NULL,
};

static bool is_quantized(const struct ob_encoding *enc)
{
	return enc->codec != &ob_codec_float && enc->codec != &ob_codec_raw;
}

static bool same_scheme(const struct ob_encoding *a, const struct ob_encoding *b)
{
	return a->codec == b->codec && a->bits == b->bits && a->group == b->group &&
	       a->variant == b->variant;
}

/* The tensor of the model that an output tensor is called like; NULL for an untied head. */
static const struct ob_tensor *original(const struct ob_plan *p, const struct ob_out *o)
{
	long at = ob_model_find(p->model, o->name);

	return at < 0 ? NULL : &p->model->tensor[at];
}

bool ob_export_requantizes(const struct ob_plan *p)
{
	for (size_t i = 0; i < p->n_outs; i++) {
		const struct ob_out *o = &p->out[i];
		const struct ob_tensor *t = original(p, o);

		if (!t && p->quant)
			return true;
		if (t && is_quantized(&t->enc) != is_quantized(&o->enc))
			return true;
		if (t && is_quantized(&t->enc) && !same_scheme(&t->enc, &o->enc))
			return true;
	}
	return false;
}

static const struct ob_jv *section(const struct ob_jv *v, const char *path)
{
	char key[64];

	while (v && *path) {
		size_t n = strcspn(path, "\x1f");

		memcpy(key, path, n);
		key[n] = '\0';
		v = ob_json_get(v, key);
		path += n + (path[n] != '\0');
	}
	return v;
}

/* ---- float type ---- */

/* The float type that dequantized weights have: that of the most elements; OB_N_DTYPES without. */
static enum ob_dtype dequantized_type(const struct ob_plan *p)
{
	uint64_t elems[OB_N_DTYPES] = { 0 }, most = 0;
	enum ob_dtype best = OB_N_DTYPES;

	for (size_t i = 0; i < p->n_outs; i++) {
		const struct ob_out *o = &p->out[i];
		const struct ob_tensor *t = original(p, o);

		if (!t || !is_quantized(&t->enc) || is_quantized(&o->enc))
			continue;
		elems[o->enc.dtype] += o->rows * o->cols;
		if (elems[o->enc.dtype] > most) {
			most = elems[o->enc.dtype];
			best = o->enc.dtype;
		}
	}
	return best;
}

/* transformers 4.56 began to call torch_dtype dtype; readers take both. */
static int set_dtype(const struct ob_plan *p, struct ob_text *out, ob_err *e)
{
	static const char *const keys[] = { "torch_dtype", "dtype" };
	const struct ob_jv *root = p->model->config;
	bool asked = p->recipe->dtype != OB_N_DTYPES, found = false;
	enum ob_dtype type = asked ? p->recipe->dtype : dequantized_type(p);
	char value[32];

	if (type == OB_N_DTYPES)
		return 0;
	snprintf(value, sizeof(value), "\"%s\"", ob_dtype_torch_name(type));
	for (size_t i = 0; sections[i]; i++) {
		for (size_t k = 0; k < 2; k++) {
			const struct ob_jv *v = ob_json_get(section(root, sections[i]), keys[k]);
			const char *now = ob_json_str(v);

			if (!v)
				continue;
			found = true;
			if (now && strcmp(now, ob_dtype_torch_name(type)) == 0)
				continue;
			if (ob_json_edit(out, sections[i], keys[k], value, what, e) != 0)
				return -1;
		}
	}
	/* diffusers' configurations name no type. */
	if (asked && !found && !ob_json_get(root, "_class_name"))
		return ob_json_edit(out, "", "torch_dtype", value, what, e);
	return 0;
}

/* ---- number format ---- */

/* Opens the block for one more member. */
static void begin_member(struct ob_text *block, const char *name)
{
	size_t n = strlen(name) - (ob_has_suffix(name, ".weight") ? strlen(".weight") : 0);

	block->len--; /* the closing brace */
	ob_text_printf(block, ",\n    ");
	ob_text_json(block, name, n);
	ob_text_add(block, ": ", 2);
}

static int check_one_format(const struct ob_plan *p, ob_err *e)
{
	char shown[160];

	for (size_t i = 0; i < p->n_outs; i++) {
		const struct ob_out *o = &p->out[i];

		if (is_quantized(&o->enc) && o->enc.codec != p->quant->codec)
			return ob_fail(e, OB_UNSUPPORTED,
				       "tensor %s would be in format %s and others in "
				       "%s, which no config.json can say; use one format",
				       ob_printable(o->name, shown, sizeof(shown)),
				       o->enc.codec->name, p->quant->codec->name);
	}
	return 0;
}

/* Adds an entry where a module is not as the block says. */
static int add_override(const struct ob_plan *p, const struct ob_out *o, struct ob_text *block,
			ob_err *e)
{
	const struct ob_encoding *enc = is_quantized(&o->enc) ? &o->enc : NULL;
	struct ob_text entry = { 0 };
	int rc;

	if (enc ? same_scheme(enc, p->quant) : o->shape.rank < 2)
		return 0;
	rc = p->quant->codec->config_override(p->quant, enc, &entry, e);
	if (rc > 0) {
		begin_member(block, o->name);
		ob_text_add(block, entry.data, entry.len);
		ob_text_add(block, "}", 1);
	}
	ob_text_free(&entry);
	if (rc >= 0 && block->failed)
		rc = ob_fail_nomem(e, what);
	return rc < 0 ? -1 : 0;
}

static void add_skipped(struct ob_text *list, const char *weight)
{
	if (list->len > 1)
		ob_text_add(list, ", ", 2);
	ob_text_json(list, weight, strlen(weight) - strlen(".weight"));
}

/* The linear layers that stay in float, by full path: loaders replace all others. A tied head has no
 * tensor of its own, but is a layer all the same. */
static int set_skip_list(const struct ob_plan *p, struct ob_text *block, ob_err *e)
{
	struct ob_text list = { 0 };
	const char *embedding, *head;
	bool has_head = false;
	int rc;

	ob_family_embeddings(p->model, &embedding, &head);
	ob_text_add(&list, "[", 1);
	for (size_t i = 0; i < p->n_outs; i++) {
		const struct ob_out *o = &p->out[i];

		has_head |= head && strcmp(o->name, head) == 0;
		if (!is_quantized(&o->enc) && o->shape.rank == 2 &&
		    ob_has_suffix(o->name, ".weight") &&
		    !(embedding && strcmp(o->name, embedding) == 0))
			add_skipped(&list, o->name);
	}
	if (head && !has_head)
		add_skipped(&list, head);
	ob_text_add(&list, "]", 1);
	rc = list.failed ? ob_fail_nomem(e, what)
			 : ob_json_edit(block, "", p->quant->codec->skip_key, list.data, what, e);
	ob_text_free(&list);
	return rc;
}

static int make_block(const struct ob_plan *p, struct ob_text *block, ob_err *e)
{
	const struct ob_codec *c = p->quant->codec;

	if (check_one_format(p, e) != 0 || c->config_block(p->quant, block, e) != 0)
		return -1;
	for (size_t i = 0; i < p->n_outs && c->config_override; i++)
		if (add_override(p, &p->out[i], block, e) != 0)
			return -1;
	return c->skip_key ? set_skip_list(p, block, e) : 0;
}

static bool is_in(const char *const *list, const char *s)
{
	while (list && *list && strcmp(*list, s) != 0)
		list++;
	return list && *list;
}

/* Removes what is said of the model's format, and says what is true of the output's. */
static int set_format(const struct ob_plan *p, struct ob_text *out, ob_err *e)
{
	const char *const *keys = p->quant ? p->quant->codec->config_keys : NULL;
	struct ob_text block = { 0 };
	int rc = 0;

	for (size_t i = 0; sections[i]; i++) {
		for (size_t k = 0; format_keys[k] && rc == 0; k++) {
			bool stays = i == 0 && is_in(keys, format_keys[k]);

			if (!stays)
				rc = ob_json_edit(out, sections[i], format_keys[k], NULL, what, e);
		}
	}
	if (rc == 0 && keys)
		rc = make_block(p, &block, e);
	for (size_t k = 0; keys && keys[k] && rc == 0; k++)
		rc = ob_json_edit(out, "", keys[k], block.data, what, e);
	ob_text_free(&block);
	return rc;
}

int ob_export_config(const struct ob_plan *p, struct ob_text *out, ob_err *e)
{
	const struct ob_config_change *c = p->edits->config;

	bool changes = ob_export_requantizes(p) || p->config_says;

	if (set_dtype(p, out, e) != 0 || (changes && set_format(p, out, e) != 0))
		return -1;
	for (size_t i = 0; i < p->edits->n_config; i++)
		if (ob_json_edit(out, c[i].path, c[i].key, c[i].value, what, e) != 0)
			return -1;
	return 0;
}
