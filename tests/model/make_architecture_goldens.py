#!/usr/bin/env python3
"""Writes tests/data/architectures: a tiny seeded GGUF of each architecture that model/ knows, and what a forward pass
must make of it. Needs PyPI `numpy` and `gguf`; deterministic.

usage: make_architecture_goldens.py FOLDER

The engine below is the mathematics of the Hugging Face models in float64: heads in half-split order with rotate_half()
for every architecture, whole matrices, no cache. Files get what their converter would write: rows of Q and K of "llama" permuted into
pairs, Llama 3.1's scaling as a tensor of factors. So the product is compared with an engine that knows neither pairs
nor factors. A second pass of it rounds to bf16 where docs/numerics.md says; how far that takes the logits from the
exact ones ("rounding") is the unit of the limits in architecture_test.cc."""
import json
import math
import pathlib
import sys

import gguf
import numpy as np

PROMPT_TOKENS, GREEDY_TOKENS, SPECIAL = 90, 48, 3
MERGES = ["h e", "i n", "Ġ t", "a n"]
CHAT_TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
                 "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

MODELS = {
    # Odd hidden and feed-forward sizes: no product's depth is even.
    "llama3": dict(arch="llama", seed=6, hidden=45, layers=2, heads=4, kv_heads=1, head_dim=16, ff=51, theta=10000.0,
                   tied=False, llama3=dict(factor=8.0, low=1.0, high=4.0, original=32)),
    "llama_linear": dict(arch="llama", seed=6, hidden=48, layers=2, heads=3, kv_heads=3, head_dim=16, ff=56,
                         theta=10000.0, tied=True, linear=4.0),
    "qwen2": dict(arch="qwen2", seed=18, hidden=48, layers=2, heads=3, kv_heads=1, head_dim=16, ff=56, theta=1000000.0,
                  tied=True, bias=True),
    "qwen3": dict(arch="qwen3", seed=8, hidden=40, layers=2, heads=4, kv_heads=2, head_dim=32, ff=56, theta=1000000.0,
                  tied=True, qk_norm=True),
}


def bf16(values):
    """Rounded to bfloat16, to nearest even."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)


def draw(model):
    """Weights in Hugging Face order: matrices hold bf16 values, vectors f32 ones."""
    random = np.random.Generator(np.random.PCG64(model["seed"]))
    hidden, ff = model["hidden"], model["ff"]
    q, kv = model["heads"] * model["head_dim"], model["kv_heads"] * model["head_dim"]

    def matrix(rows, cols, gain):  # products of unit inputs have a deviation of `gain`
        return bf16((random.random((rows, cols)) - 0.5) * math.sqrt(12 / cols) * gain)

    def vector(size, low, high):
        return (low + (high - low) * random.random(size)).astype(np.float32).astype(np.float64)

    weights = {"embed": bf16((random.random((model["vocab"], hidden)) - 0.5) * math.sqrt(12) * 0.06),
               "norm": vector(hidden, 0.7, 1.3), "layers": []}
    for _ in range(model["layers"]):
        layer = {"attn_norm": vector(hidden, 0.7, 1.3), "ffn_norm": vector(hidden, 0.7, 1.3),
                 "q": matrix(q, hidden, 1.5), "k": matrix(kv, hidden, 1.5), "v": matrix(kv, hidden, 1.0),
                 "o": matrix(hidden, q, 2.0), "gate": matrix(ff, hidden, 1.0), "up": matrix(ff, hidden, 1.0),
                 "down": matrix(hidden, ff, 0.5)}
        if model.get("bias"):
            layer |= {"q_bias": vector(q, -1.5, 1.5), "k_bias": vector(kv, -1.5, 1.5), "v_bias": vector(kv, -0.4, 0.4)}
        if model.get("qk_norm"):
            layer |= {"q_norm": vector(model["head_dim"], 0.2, 2.2), "k_norm": vector(model["head_dim"], 0.2, 2.2)}
        weights["layers"].append(layer)
    weights["head"] = weights["embed"] if model["tied"] else matrix(model["vocab"], hidden, 1.0)
    return weights


def inverse_frequencies(model):
    """Hugging Face modeling_rope_utils.py: default, linear and llama3."""
    frequencies = model["theta"] ** (-np.arange(0, model["head_dim"], 2) / model["head_dim"])
    if "linear" in model:
        return frequencies / model["linear"]
    if "llama3" not in model:
        return frequencies
    scaling = model["llama3"]
    lengths = 2 * math.pi / frequencies
    smooth = (scaling["original"] / lengths - scaling["low"]) / (scaling["high"] - scaling["low"])
    between = (1 - smooth) * frequencies / scaling["factor"] + smooth * frequencies
    return np.where(lengths < scaling["original"] / scaling["high"], frequencies,
                    np.where(lengths > scaling["original"] / scaling["low"], frequencies / scaling["factor"], between))


def forward(model, weights, tokens, rounded):
    """Logits [tokens, vocab]."""
    at = bf16 if rounded else lambda values: values
    heads, dim = model["heads"], model["head_dim"]

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + model["eps"]) * weight

    angles = np.arange(len(tokens))[:, None] * inverse_frequencies(model)[None, :]
    cos, sin = (np.concatenate([table, table], -1)[:, None, :] for table in (np.cos(angles), np.sin(angles)))

    def rotate(x):  # [tokens, heads, dim]
        return x * cos + np.concatenate([-x[..., dim // 2:], x[..., :dim // 2]], -1) * sin

    causal = np.triu(np.full((len(tokens), len(tokens)), -np.inf), 1)
    x = weights["embed"][tokens]
    for layer in weights["layers"]:
        y = at(norm(x, layer["attn_norm"]))
        q, k, v = ((y @ layer[name].T + layer.get(name + "_bias", 0.0)).reshape(len(tokens), -1, dim) for name in "qkv")
        if model.get("qk_norm"):
            q, k = norm(q, layer["q_norm"]), norm(k, layer["k_norm"])
        q, k, v = at(rotate(q)), at(rotate(k)), at(v)
        k, v = (np.repeat(part, heads // model["kv_heads"], axis=1) for part in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(dim) + causal
        p = np.exp(scores - scores.max(-1, keepdims=True))
        attended = np.einsum("hqk,khd->qhd", p / p.sum(-1, keepdims=True), v).reshape(len(tokens), -1)
        x = x + at(attended) @ layer["o"].T
        y = at(norm(x, layer["ffn_norm"]))
        gate = y @ layer["gate"].T
        x = x + at(gate / (1 + np.exp(-gate)) * (y @ layer["up"].T)) @ layer["down"].T
    return at(norm(x, weights["norm"])) @ weights["head"].T


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in itself else chr(next(others)) for byte in range(256)]


def vocabulary():
    return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *byte_alphabet(),
            *(merge.replace(" ", "") for merge in MERGES)]


def to_pairs(rows, heads):
    """Half-split rows of each head in pairs, as convert_hf_to_gguf.py permutes Q and K of "llama"."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write_gguf(path, model, weights):
    writer = gguf.GGUFWriter(path, model["arch"])
    writer.add_block_count(model["layers"])
    writer.add_context_length(model["context"])
    writer.add_embedding_length(model["hidden"])
    writer.add_feed_forward_length(model["ff"])
    writer.add_head_count(model["heads"])
    writer.add_head_count_kv(model["kv_heads"])
    if model["hidden"] != model["heads"] * model["head_dim"]:
        writer.add_key_length(model["head_dim"])
        writer.add_value_length(model["head_dim"])
    writer.add_layer_norm_rms_eps(model["eps"])
    writer.add_rope_freq_base(model["theta"])
    if "linear" in model:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(model["linear"])
    tokens = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * SPECIAL + [1] * (len(tokens) - SPECIAL))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)

    def matrix(name, values):
        bits = (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        writer.add_tensor(name, bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)

    def vector(name, values):
        writer.add_tensor(name, np.ascontiguousarray(values, np.float32))

    pairs = to_pairs if model["arch"] == "llama" else lambda rows, _: rows
    if "llama3" in model:
        plain = {name: value for name, value in model.items() if name != "llama3"}
        vector("rope_freqs.weight", inverse_frequencies(plain) / inverse_frequencies(model))
    matrix("token_embd.weight", weights["embed"])
    vector("output_norm.weight", weights["norm"])
    if not model["tied"]:
        matrix("output.weight", weights["head"])
    for index, layer in enumerate(weights["layers"]):
        block = f"blk.{index}."
        for name, key in (("attn_norm", "attn_norm"), ("ffn_norm", "ffn_norm"), ("attn_q_norm", "q_norm"),
                          ("attn_k_norm", "k_norm")):
            if key in layer:
                vector(f"{block}{name}.weight", layer[key])
        for part, heads in (("q", model["heads"]), ("k", model["kv_heads"]), ("v", None)):
            place = (lambda rows: rows) if heads is None else (lambda rows: pairs(rows, heads))
            matrix(f"{block}attn_{part}.weight", place(layer[part]))
            if f"{part}_bias" in layer:
                vector(f"{block}attn_{part}.bias", place(layer[f"{part}_bias"]))
        for name, key in (("attn_output", "o"), ("ffn_gate", "gate"), ("ffn_up", "up"), ("ffn_down", "down")):
            matrix(f"{block}{name}.weight", layer[key])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def golden(model, weights):
    random = np.random.Generator(np.random.PCG64(100 + model["seed"]))
    prompt = [int(token) for token in random.integers(SPECIAL, model["vocab"], PROMPT_TOKENS)]
    tokens = list(prompt)
    for _ in range(GREEDY_TOKENS):
        tokens.append(int(forward(model, weights, tokens, False)[-1].argmax()))
    exact, rounded = (forward(model, weights, tokens, choice) for choice in (False, True))
    off = np.abs(rounded - exact) / exact.std()
    ordered = np.sort(exact[PROMPT_TOKENS - 1:-1], axis=-1)
    shown = [0, 1, 31, 63, 64, PROMPT_TOKENS - 1]
    return {"prompt_ids": prompt, "greedy_ids": tokens[PROMPT_TOKENS:],
            "greedy_margins": [float(f"{value:.6g}") for value in ordered[:, -1] - ordered[:, -2]],
            "deviation": float(f"{exact.std():.6g}"),
            "rounding": {"mean": float(f"{off.mean():.6g}"), "largest": float(f"{off.max():.6g}")},
            "positions": shown,
            "logits": [[float(f"{value:.7g}") for value in exact[position]] for position in shown]}


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, facts in MODELS.items():
        model = facts | {"vocab": len(vocabulary()), "eps": 1e-6 if facts["arch"] != "llama" else 1e-5, "context": 512}
        weights = draw(model)
        write_gguf(folder / f"{name}.gguf", model, weights)
        expected = golden(model, weights)
        lines = [f'"{key}": {json.dumps(value)}' for key, value in expected.items()]
        (folder / f"{name}.json").write_text("{" + ",\n".join(lines) + "}\n")
        print(f"{name:<13} {(folder / (name + '.gguf')).stat().st_size:7} bytes, rounding "
              f"{expected['rounding']}, smallest margin {min(expected['greedy_margins'])}")


if __name__ == "__main__":
    main()
