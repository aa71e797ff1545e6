/* SPDX-License-Identifier: Apache-2.0 */
/* The list of callables. What is not in it is refused. */
#include "container/pickle_allow.h"

#include <string.h>

/* torch's own list for weights_only=True. Protocol 2 calls builtins by their Python 2 name. */
static const struct ob_psymbol symbols[] = {
	{ "collections", "OrderedDict", OB_ROLE_DICT, 0 },
	{ "torch._utils", "_rebuild_tensor", OB_ROLE_TENSOR, 0 },
	{ "torch._utils", "_rebuild_tensor_v2", OB_ROLE_TENSOR_V2, 0 },
	{ "torch._utils", "_rebuild_tensor_v3", OB_ROLE_TENSOR_V3, 0 },
	{ "torch._utils", "_rebuild_parameter", OB_ROLE_SAME, 0 },
	{ "torch._utils", "_rebuild_parameter_with_state", OB_ROLE_SAME, 0 },
	{ "torch._tensor", "_rebuild_from_type_v2", OB_ROLE_FROM_TYPE, 0 },
	{ "torch", "Size", OB_ROLE_SAME, 0 },
	{ "torch", "Tensor", OB_ROLE_CLASS, 0 },
	{ "torch.nn.parameter", "Parameter", OB_ROLE_CLASS, 0 },
	{ "torch", "FloatStorage", OB_ROLE_STORAGE, OB_F32 },
	{ "torch", "DoubleStorage", OB_ROLE_STORAGE, OB_F64 },
	{ "torch", "HalfStorage", OB_ROLE_STORAGE, OB_F16 },
	{ "torch", "BFloat16Storage", OB_ROLE_STORAGE, OB_BF16 },
	{ "torch", "LongStorage", OB_ROLE_STORAGE, OB_I64 },
	{ "torch", "IntStorage", OB_ROLE_STORAGE, OB_I32 },
	{ "torch", "ShortStorage", OB_ROLE_STORAGE, OB_I16 },
	{ "torch", "CharStorage", OB_ROLE_STORAGE, OB_I8 },
	{ "torch", "ByteStorage", OB_ROLE_STORAGE, OB_U8 },
	{ "torch", "BoolStorage", OB_ROLE_STORAGE, OB_BOOL },
	{ "torch", "ComplexFloatStorage", OB_ROLE_STORAGE, OB_C64 },
	{ "torch.storage", "UntypedStorage", OB_ROLE_UNTYPED, 0 },
	{ "torch", "UntypedStorage", OB_ROLE_UNTYPED, 0 },
	{ "torch", "device", OB_ROLE_OTHER, 0 },
	{ "torch.serialization", "_get_layout", OB_ROLE_OTHER, 0 },
	{ "collections", "Counter", OB_ROLE_OTHER, 0 },
	{ "_codecs", "encode", OB_ROLE_OTHER, 0 },
	{ "builtins", "set", OB_ROLE_OTHER, 0 },
	{ "builtins", "bytearray", OB_ROLE_OTHER, 0 },
	{ "builtins", "complex", OB_ROLE_OTHER, 0 },
	{ "__builtin__", "set", OB_ROLE_OTHER, 0 },
	{ "__builtin__", "bytearray", OB_ROLE_OTHER, 0 },
	{ "__builtin__", "complex", OB_ROLE_OTHER, 0 },
	{ "torch", "ComplexDoubleStorage", OB_ROLE_UNSUPPORTED, 0 },
	{ "torch", "QInt8Storage", OB_ROLE_UNSUPPORTED, 0 },
	{ "torch", "QUInt8Storage", OB_ROLE_UNSUPPORTED, 0 },
	{ "torch", "QInt32Storage", OB_ROLE_UNSUPPORTED, 0 },
	{ "torch", "QUInt4x2Storage", OB_ROLE_UNSUPPORTED, 0 },
	{ "torch", "QUInt2x4Storage", OB_ROLE_UNSUPPORTED, 0 },
	{ "torch._utils", "_rebuild_qtensor", OB_ROLE_UNSUPPORTED, 0 },
	{ "torch._utils", "_rebuild_sparse_tensor", OB_ROLE_UNSUPPORTED, 0 },
	{ "torch._utils", "_rebuild_nested_tensor", OB_ROLE_UNSUPPORTED, 0 },
	{ "torch._utils", "_rebuild_wrapper_subclass", OB_ROLE_UNSUPPORTED, 0 },
	{ "torch._utils", "_rebuild_meta_tensor_no_storage", OB_ROLE_UNSUPPORTED, 0 },
	{ "torch._utils", "_rebuild_device_tensor_from_numpy", OB_ROLE_UNSUPPORTED, 0 },
	{ "torch._utils", "_rebuild_device_tensor_from_cpu_tensor", OB_ROLE_UNSUPPORTED, 0 },
};

static bool text_is(const char *text, size_t n, const char *s)
{
	return strlen(s) == n && memcmp(text, s, n) == 0;
}

const struct ob_psymbol *ob_psymbol_find(const char *module, size_t module_len, const char *name,
					 size_t name_len)
{
	for (size_t i = 0; i < sizeof(symbols) / sizeof(*symbols); i++)
		if (text_is(name, name_len, symbols[i].name) &&
		    text_is(module, module_len, symbols[i].module))
			return &symbols[i];
	return NULL;
}

enum ob_dtype ob_psymbol_dtype(const char *module, size_t module_len, const char *name,
			       size_t name_len)
{
	enum ob_dtype t = text_is(module, module_len, "torch") ? 0 : OB_N_DTYPES;
	const char *torch;

	for (; t < OB_N_DTYPES; t++)
		if ((torch = ob_dtype_torch_name(t)) && text_is(name, name_len, torch))
			break;
	return t;
}
