#!/usr/bin/env python3
"""Writes tests/data/gguf_types.gguf: blocks of every supported tensor type and, as F32, what they are worth, in a file
with the metadata of a Llama 3 model. Writer and dequantiser are those of PyPI `gguf` 0.19.0 (numpy), which share no
code with ours; the same seed gives the same bytes.

    python3 -m venv VENV && VENV/bin/pip install gguf==0.19.0 && VENV/bin/python tests/formats/make_types_fixture.py
"""
import pathlib

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type

OUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "gguf_types.gguf"
ROWS, COLS = 3, 512
HALVES = {  # byte offsets of the f16 fields of a block
    Type.Q8_0: [0], Type.Q4_0: [0], Type.Q5_0: [0], Type.Q4_1: [0, 2], Type.Q5_1: [0, 2],
    Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
}
SCALES = [0x2E66, 0x7BFF, 0x0001, 0xFBFF, 0x83FF, 0x0400, 0xB555, 0x8000, 0x0000, 0x3C00, 0x5001]


def block_rows(random, kind):
    """Blocks of random bits, of ones and of zeros, with scales ordinary, negative, denormal, the largest, zero, drawn."""
    values, size = GGML_QUANT_SIZES[kind]
    count = ROWS * COLS // values
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    for index, block in enumerate(blocks):
        if index % 6 == 1:
            block[:] = 0xFF
        if index % 6 == 3:
            block[:] = 0
        for field, offset in enumerate(HALVES[kind]):
            bits = SCALES[(index + 4 * field) % len(SCALES)]
            if index % 6 >= 4:
                bits = int(random.integers(0, 0x7C00)) | int(random.integers(0, 2)) << 15
            block[offset:offset + 2] = [bits & 255, bits >> 8]
    return blocks.reshape(ROWS, -1)


def plain_rows(random, kind):
    """Values of 16 bits: every kind of number, no NaN."""
    bits = random.integers(0, 1 << 16, (ROWS, COLS), dtype=np.uint16)
    highest = 0x7C00 if kind is Type.F16 else 0x7F80
    bits[(bits & 0x7FFF) > highest] &= 0x83FF
    bits[0, :8] = [0, 0x8000, 1, 0x8001, 0x03FF, 0x0400, highest - 1, highest]
    return bits.view(np.uint8).reshape(ROWS, -1)


def add_metadata(writer):
    writer.add_name("Types")
    writer.add_tags(["text-generation", "llama-3"])
    writer.add_languages(["en", "de"])
    writer.add_file_type(15)  # MOSTLY_Q4_K_M
    writer.add_quantization_version(2)
    writer.add_context_length(131072)
    writer.add_rope_freq_base(500000.0)
    writer.add_vocab_size(4)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(["a", "b", "\u00e9", "<|eot_id|>"])
    writer.add_token_scores([0.0, -1.5, -2.0, 0.0])
    writer.add_token_types([1, 1, 1, 3])
    writer.add_token_merges(["a b"])
    writer.add_add_bos_token(True)
    writer.add_int32("quantize.imatrix.entries_count", 224)


def main():
    random = np.random.default_rng(20261128)
    writer = gguf.GGUFWriter(OUT, "llama")
    add_metadata(writer)
    freqs = np.where(np.arange(64) < 40, 1.0, 8.0).astype(np.float32)
    writer.add_tensor("rope_freqs.weight", freqs)
    for kind in [Type.F16, Type.BF16, *HALVES]:
        stored = block_rows(random, kind) if kind in HALVES else plain_rows(random, kind)
        expected = gguf.quants.dequantize(stored, kind).astype(np.float32).reshape(ROWS, COLS)
        assert not np.isnan(expected).any()
        writer.add_tensor(f"{kind.name}.stored", stored, raw_dtype=kind)
        writer.add_tensor(f"{kind.name}.expected", expected)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
