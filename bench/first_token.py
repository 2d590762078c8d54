#!/usr/bin/env python3
"""Time to the first token of one idle request: prefill and decode in two processes, against one process.

Alternates `spillway run` (one process) with a request to `spillway serve --prefill 1 --decode 1`, both with the same number of
threads and prompts of 512 tokens that no cache holds. Prints the median and the range of each, and the waterfall."""
import argparse
import os
import re
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "integration"))
from server import Server  # noqa: E402 - found by the line above

PROMPT_TOKENS = 512
# One token each at the start of a text, so that no two prompts share a block.
FIRST_WORDS = ["One", "Two", "The", "When", "Here", "You", "What", "For", "How", "And", "This", "With"]
PARTS = ["queue_ms", "prefill_wait_ms", "prefill_ms", "transfer_ms", "commit_ms", "decode_queue_ms", "decode_step_ms"]


def prompt(index):
    return FIRST_WORDS[index] + " the" * (PROMPT_TOKENS - 1)


def one_process_ms(args, index):
    run = subprocess.run([args.spillway, "run", "-m", args.model, "--threads", str(args.threads), "-p", prompt(index), "--max-tokens",
                          "16"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True, timeout=120)
    tokens, prefill_ms, step_ms = re.search(r"prompt (\d+) tokens in (\d+) ms.* ([\d.]+) ms each", run.stderr).groups()
    assert int(tokens) == PROMPT_TOKENS, tokens
    return float(prefill_ms), float(step_ms)


def served(server, index):
    status, answer = server.complete(prompt(index), max_tokens=16)
    assert status == 200, answer
    usage = answer["usage"]
    assert usage["prompt_tokens"] == PROMPT_TOKENS and usage["prompt_tokens_details"]["cached_tokens"] == 0, usage
    return answer["timings"]


def show(name, values):
    print(f"  {name:<34}{statistics.median(values):>9.2f} ms   ({min(values):.2f} - {max(values):.2f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spillway", default="build/release/cli/spillway")
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=5, choices=range(1, len(FIRST_WORDS)))
    args = parser.parse_args()

    alone, disaggregated = [], []
    with Server(args.spillway, args.model, "--prefill", "1", "--decode", "1", "--threads", str(args.threads)) as server:
        served(server, len(FIRST_WORDS) - 1)  # first touch of memory
        for index in range(args.repetitions):
            print(f"repetition {index + 1} of {args.repetitions}", file=sys.stderr)
            alone.append(one_process_ms(args, index))
            disaggregated.append(served(server, index))
    print(f"{PROMPT_TOKENS} prompt tokens, {args.threads} threads, median (lowest - highest) of {args.repetitions}")
    print("one process")
    show("time to first token", [prefill for prefill, _ in alone])
    show("decode step", [step for _, step in alone])
    print("1P1D")
    show("time to first token", [timings["ttft_ms"] for timings in disaggregated])
    for part in PARTS:
        show("  " + part.removesuffix("_ms").replace("_", " "), [timings[part] for timings in disaggregated])
    show("handover", [timings["handover_ms"] for timings in disaggregated])
    ratios = [timings["ttft_ms"] / prefill for timings, (prefill, _) in zip(disaggregated, alone)]
    print(f"TTFT 1P1D : one process = {statistics.median(ratios):.3f} ({min(ratios):.3f} - {max(ratios):.3f})")


if __name__ == "__main__":
    main()
