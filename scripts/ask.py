#!/usr/bin/env python3
"""Asks a running Spillway one question, streams the answer, and draws the request's waterfall."""
import argparse
import json
import sys
import urllib.error
import urllib.request

PARTS = [  # key in `timings`, what it is
    ("queue_ms", "queue at the gateway"),
    ("prefill_wait_ms", "wait for a prefill step"),
    ("prefill_ms", "prefill"),
    ("transfer_ms", "KV transfer (hides behind prefill)"),
    ("commit_ms", "rest of the transfer after prefill"),
    ("decode_queue_ms", "wait for a decode step"),
    ("decode_step_ms", "first decode step"),
]


def chunks(response):
    for line in response:
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            yield json.loads(line[6:])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("question")
    args = parser.parse_args()

    body = {"messages": [{"role": "user", "content": args.question}], "max_tokens": args.max_tokens, "temperature": 0,
            "stream": True, "stream_options": {"include_usage": True}}
    request = urllib.request.Request(f"http://127.0.0.1:{args.port}/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    timings = usage = None
    print(f"\nQ: {args.question}\nA: ", end="", flush=True)
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            for chunk in chunks(response):
                if "error" in chunk:
                    sys.exit(f"\nerror: {chunk['error']['message']}")
                timings = chunk.get("timings") or timings
                usage = chunk.get("usage") or usage
                for choice in chunk["choices"]:
                    print(choice["delta"].get("content") or "", end="", flush=True)
    except urllib.error.HTTPError as error:
        sys.exit(f"\nerror {error.code}: {error.read().decode(errors='replace')}")
    if timings is None or usage is None:
        sys.exit("\nerror: the stream ended without its timings")

    print(f"\n\n{usage['prompt_tokens']} prompt tokens, {usage['completion_tokens']} answer tokens")
    longest = max(timings[key] for key, _ in PARTS) or 1
    for key, what in PARTS:
        print(f"  {what:<36}{timings[key]:>9.2f} ms  {'#' * round(40 * timings[key] / longest)}")
    print(f"  TTFT {timings['ttft_ms']:.1f} ms, handover {timings['handover_ms']:.1f} ms, total {timings['total_ms']:.1f} ms")


if __name__ == "__main__":
    main()
