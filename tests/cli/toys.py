# SPDX-License-Identifier: Apache-2.0
"""Models and adapters as files, without any library but Python's own."""
import json
import os
import struct

BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1}


def safetensors(path, tensors, sparse=False):
    """tensors: name -> (dtype, shape, byte that fills it, two of them). sparse: holes, so that a file of
    any size costs nothing."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, _) in tensors.items():
        size = BYTES[dtype]
        for n in shape:
            size *= n
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        if sparse:
            f.truncate(8 + len(text) + at)
            return
        for name, (dtype, shape, fill) in tensors.items():
            begin, end = header[name]["data_offsets"]
            f.write((fill * ((end - begin) // len(fill) + 1))[:end - begin])


def config(folder):
    os.makedirs(folder)
    with open(f"{folder}/config.json", "w") as f:
        json.dump({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, f)


def module(i):
    return f"model.layers.{i}.self_attn.q_proj"


def model(folder, layers, rows, cols, shards=1, dtype="BF16", sparse=False):
    """Layers of one linear each."""
    config(folder)
    names = {}
    for s in range(shards):
        mine = [i for i in range(layers) if i * shards // layers == s]
        file = f"model-{s + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        names.update({module(i) + ".weight": file for i in mine})
        # A pattern whose every 16 or 32 bits are a small number.
        safetensors(f"{folder}/{file}",
                    {module(i) + ".weight": (dtype, [rows, cols], b"\x12\x3d\x34\xbd\x56\x3c\x78\x3b") for i in mine}, sparse)
    if shards > 1:
        with open(f"{folder}/model.safetensors.index.json", "w") as f:
            json.dump({"metadata": {}, "weight_map": names}, f)


def lora(folder, layers, rows, cols, rank):
    os.makedirs(folder)
    with open(f"{folder}/adapter_config.json", "w") as f:
        json.dump({"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj"]}, f)
    tensors = {}
    for i in range(layers):
        prefix = f"base_model.model.{module(i)}"
        tensors[prefix + ".lora_A.weight"] = ("BF16", [rank, cols], b"\x11\x3c\x22\xbb")
        tensors[prefix + ".lora_B.weight"] = ("BF16", [rows, rank], b"\x33\x3b\x44\xbc\x55\x3b")
    safetensors(f"{folder}/adapter_model.safetensors", tensors)
