#!/usr/bin/env python3
"""One process that computes prompts and continues them, `serve --prefill 0 --decode 1`, beside 1P1D; and a prefill node that
joins it and leaves. Usage: colocated_test.py SPILLWAY MODEL"""
import os
import re
import subprocess
import sys
import tempfile

import server
from by_hand import MODEL, SIZES, SPILLWAY, Part, wait_nodes

PROMPT = "The history of computing began with the abacus. " * 12  # several chunks of 64 tokens
CHAT = [{"role": "user", "content": "Why is the sky blue?"}]


def answers(one):
    """What clients may ask for, greedy: all of it must be the same however it is served."""
    chat = one.post("/v1/chat/completions", {"messages": CHAT, "max_tokens": 16, "temperature": 0, "ignore_eos": True})
    scored = one.complete(PROMPT, 8, echo=True, logprobs=3)
    many = one.complete(PROMPT + "Then", 8, n=2)
    drawn = one.complete(PROMPT, 8, n=2, temperature=0.8, seed=5)
    streamed = one.stream(PROMPT + "Later", 24).read()
    for status, body in (chat, scored, many, drawn):
        assert status == 200, body
    assert streamed[1] is None, streamed
    return [chat[1]["choices"], scored[1]["choices"], many[1]["choices"], drawn[1]["choices"], streamed[0]]


def answers_are_those_of_a_prefill_and_a_decode_node():
    with server.Server(SPILLWAY, MODEL, *SIZES, "--prefill", "1", "--decode", "1") as pair:
        expected = answers(pair)
    with server.Server(SPILLWAY, MODEL, *SIZES, "--prefill", "0", "--decode", "1") as one:
        got = answers(one)
        for mine, theirs in zip(got, expected, strict=True):
            assert mine == theirs, f"{mine}\n{theirs}"
        assert one.metric("spillway_nodes") == 1
        assert one.metric("spillway_kv_transfers_total") == 0
        timings = one.complete(PROMPT, 4)[1]["timings"]
        assert timings["prefill_cached_tokens"] > 0 and timings["prefill_ms"] > 0, timings
        assert timings["transfer_ms"] == timings["handover_ms"] == 0, timings
        one.wait_all_blocks_free()


def a_client_that_leaves_frees_all_at_once():
    with server.Server(SPILLWAY, MODEL, *SIZES, "--prefill", "0", "--decode", "1") as one:
        for tokens in (0, 3):  # while its prompt is computed, while it decodes
            stream = one.stream(f"{tokens} {PROMPT * 4}", 200)
            stream.read(tokens) if tokens else one.wait_metric("spillway_requests_running", 1)
            stream.leave()
            one.wait_metric("spillway_requests_running", 0)
            one.wait_all_blocks_free()
        assert one.complete(PROMPT, 4)[0] == 200


def a_prefill_node_may_join_and_leave():
    with tempfile.TemporaryDirectory() as folder:
        packed = ("--cache-dir", f"{folder}/packed")
        with server.Server(SPILLWAY, MODEL, *SIZES, *packed, "--prefill", "0", "--decode", "1") as one:
            expected = one.complete(PROMPT, 8)[1]["choices"]
            one.wait_log("control endpoint")
            gateway = re.search(r"control endpoint (\S+)", one.log_text()).group(1)
            with Part(folder, "prefill", "joined P", [gateway]) as prefill:
                wait_nodes(one, 1, 1)
                body = one.complete("Now " + PROMPT, 8)[1]
                assert body["timings"]["transfer_ms"] > 0, "the prefill node computed it"
                assert one.complete(PROMPT, 8)[1]["choices"] == expected
                prefill.process.terminate()
                assert prefill.process.wait(30) == 0
            wait_nodes(one, 0, 1)
            one.wait_ready()
            transfers = one.metric("spillway_kv_transfers_total")
            assert one.complete(PROMPT, 8)[1]["choices"] == expected
            assert one.metric("spillway_kv_transfers_total") == transfers
            one.wait_all_blocks_free()


def it_is_killed_and_comes_back():
    with server.Server(SPILLWAY, MODEL, *SIZES, "--prefill", "0", "--decode", "1") as one:
        expected = one.complete(PROMPT, 8)[1]["choices"]
        stream = one.stream(PROMPT, 200)
        stream.read(2)
        os.kill(one.pid("decode 0"), 9)
        _, error = stream.read()
        assert "decode 0" in error, error
        server.wait_until(lambda: one.log_text().count("[decode 0] ready") == 2, "it is back", server.READY_WITHIN_S)
        one.wait_ready()
        assert one.complete(PROMPT, 8)[1]["choices"] == expected


def no_nodes_at_all_are_refused():
    run = subprocess.run([SPILLWAY, "serve", "-m", MODEL, "--prefill", "0", "--decode", "0"], capture_output=True, text=True,
                         timeout=60)
    assert run.returncode == 2 and "--decode" in run.stderr, run.stderr


if __name__ == "__main__":
    sys.exit(server.run_tests([answers_are_those_of_a_prefill_and_a_decode_node, a_client_that_leaves_frees_all_at_once,
                               a_prefill_node_may_join_and_leave, it_is_killed_and_comes_back,
                               no_nodes_at_all_are_refused]))
