#!/usr/bin/env python3
"""How far the demo model's logits are from exact arithmetic: KL divergence and agreement over the golden text.

  .cache/venv-peers/bin/python bench/fidelity.py      about two minutes, 4 GiB

The exact ones are made here with numpy in float64 from the file's own weights (the engine of
tests/model/make_architecture_goldens.py, which shares no code with the product) and must have the losses and the best
tokens of tests/data/perplexity.json; ours are those of model_golden_test, of the fastest level of this machine for each
precision: it names the numerics class of each. Needs PyPI `numpy` and `gguf` (scripts/setup --peers) and a Release
build."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/model"))
from make_architecture_goldens import forward  # noqa: E402 - found by the line above

MODEL = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
TEST = ROOT / "build/release/tests/model/model_golden_test"
LAYER_PARTS = {"attn_norm": "attn_norm", "ffn_norm": "ffn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v",
               "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
LOSS_NEAR = 1e-5
PRECISIONS = 4


def model_and_weights(path):
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def field(name):
        return reader.fields[f"llama.{name}"].contents()

    def values(name):
        return gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type).astype(np.float64)

    heads, kv_heads = field("attention.head_count"), field("attention.head_count_kv")
    model = {"heads": heads, "kv_heads": kv_heads, "head_dim": field("embedding_length") // heads,
             "theta": field("rope.freq_base"), "eps": field("attention.layer_norm_rms_epsilon")}

    def to_halves(rows, count):  # the converter's permutation into pairs, undone
        return rows.reshape(count, rows.shape[0] // count // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)

    layers = []
    for index in range(field("block_count")):
        layer = {ours: values(f"blk.{index}.{theirs}.weight") for ours, theirs in LAYER_PARTS.items()}
        layer["q"], layer["k"] = to_halves(layer["q"], heads), to_halves(layer["k"], kv_heads)
        layers.append(layer)
    embedding = values("token_embd.weight")
    return model, {"embed": embedding, "head": embedding, "norm": values("output_norm.weight"), "layers": layers}


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def main():
    if sys.argv[1:]:
        sys.exit(__doc__)
    golden = json.loads((ROOT / "tests/data/perplexity.json").read_text())
    tokens = np.array(golden["ids"])
    print("computing the exact logits", file=sys.stderr, flush=True)
    model, weights = model_and_weights(MODEL)
    exact = log_softmax(forward(model, weights, tokens, rounded=False)[:-1])
    losses = -exact[np.arange(len(exact)), tokens[1:]]
    worst = np.abs(losses - np.array(golden["nll"])).max()
    if not worst <= LOSS_NEAR:  # NaN as well
        sys.exit(f"fidelity: exact losses are {worst:g} from the golden ones, at most {LOSS_NEAR:g} is rounding")
    if not (exact.argmax(-1) == np.array(golden["argmax_ids"])).all():
        sys.exit("fidelity: the best tokens of exact arithmetic are not the golden ones")
    with tempfile.TemporaryDirectory() as folder:
        print("computing ours", file=sys.stderr, flush=True)
        test = subprocess.run([TEST, "--gtest_filter=Golden.Teacher*"], cwd=ROOT, stdout=sys.stderr,
                              env={**os.environ, "SPILLWAY_LOGITS_FOLDER": folder})
        files = sorted(pathlib.Path(folder).iterdir())
        if len(files) != PRECISIONS:
            sys.exit(f"fidelity: {TEST} wrote logits of {len(files)} precisions, not {PRECISIONS}: " +
                     ("build it anew" if test.returncode == 0 else "see above"))
        print("| precision | mean KL from exact | largest KL | top-1 agreement | mean loss (exact "
              f"{losses.mean():.5f}) |\n|---|---|---|---|---|")
        for path in files:
            ours = log_softmax(np.fromfile(path, np.float32).reshape(exact.shape).astype(np.float64))
            divergence = (np.exp(exact) * (exact - ours)).sum(-1)
            agreement = (ours.argmax(-1) == exact.argmax(-1)).mean()
            print(f"| {path.name} | {divergence.mean():.2e} | {divergence.max():.2e} | {100 * agreement:.1f} % | "
                  f"{-ours[np.arange(len(ours)), tokens[1:]].mean():.5f} |")
        if test.returncode != 0:
            sys.exit("fidelity: the test's own limits are not met")


if __name__ == "__main__":
    main()
