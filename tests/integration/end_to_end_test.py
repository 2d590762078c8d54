#!/usr/bin/env python3
"""Every process and thread of a 2P2D server at once, on a tiny model: the end-to-end test of the sanitized builds, whose
reports end a process with a code that is not 0. Usage: end_to_end_test.py SPILLWAY MODEL"""
import concurrent.futures
import os
import re
import signal
import sys

import server

SPILLWAY, MODEL = sys.argv[1:3]
CLIENTS = 16
OUTPUT_TOKENS = 24
STOPPED_WITHIN_S = 30
PROMPTS = [f"{'a shared beginning of several blocks, ' * 4}then request {index}" for index in range(CLIENTS)]
REPORT = re.compile(r"(AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:).*")


def whole(one, prompt, **fields):
    status, body = one.complete(prompt, OUTPUT_TOKENS, **fields)
    assert status == 200, body
    return [choice["text"] for choice in body["choices"]]


def streamed(one, prompt):
    text, error = one.stream(prompt, OUTPUT_TOKENS).read()
    assert error is None, error
    return [text]


def left(one, prompt):
    stream = one.stream(prompt, 400)
    stream.read(3)
    stream.leave()


def refused(one, prompt):
    status, body = one.complete(prompt, OUTPUT_TOKENS, temperature=-1)
    assert status == 400 and body["error"]["param"] == "temperature", body


def together(one, alone):
    """Everything at once, each right as alone."""
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        right = [(prompt, pool.submit(streamed if index % 2 else whole, one, prompt))
                 for index, prompt in enumerate(PROMPTS)]
        many = pool.submit(whole, one, PROMPTS[0], n=3)
        scored = pool.submit(one.complete, PROMPTS[1], OUTPUT_TOKENS, echo=True, logprobs=2)
        others = [pool.submit(job, one, "of no use") for job in (left, refused, left)]
        for prompt, answer in right:
            assert answer.result() == alone[prompt], prompt
        assert many.result() == alone[PROMPTS[0]] * 3
        assert scored.result()[0] == 200 and scored.result()[1]["choices"][0]["text"] == PROMPTS[1] + alone[PROMPTS[1]][0]
        for other in others:
            other.result()
    one.wait_all_blocks_free()


def killed_and_back(one, child):
    """kill -9: right texts or an error that names a node; then all is as before."""
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        answers = [pool.submit(one.complete, prompt, OUTPUT_TOKENS) for prompt in PROMPTS]
        os.kill(one.pid(child), signal.SIGKILL)
        for status, body in (answer.result() for answer in answers):
            assert status == 200 or "prefill" in body["error"]["message"] or "decode" in body["error"]["message"], body
    server.wait_until(lambda: one.log_text().count(f"[{child}] ready") == 2, f"{child} is back", server.READY_WITHIN_S)
    one.wait_ready()


def all_threads_at_once_say_what_each_says_alone():
    with server.Server(SPILLWAY, MODEL, "--prefill", "2", "--decode", "2", "--threads", "2", "--device-memory",
                       "16MiB", "--chunk-tokens", "64") as one:
        alone = {prompt: whole(one, prompt) for prompt in PROMPTS}
        together(one, alone)
        for child in ("prefill 0", "decode 1"):
            killed_and_back(one, child)
            together(one, alone)
        assert one.get("/metrics")[0] == one.get("/health/ready")[0] == 200
        one.process.send_signal(signal.SIGTERM)
        code = one.process.wait(STOPPED_WITHIN_S)
        report = REPORT.search(one.log_text())
        assert report is None, report.group(0)
        assert code == 0, f"serve exited with {code}"


if __name__ == "__main__":
    sys.exit(server.run_tests([all_threads_at_once_say_what_each_says_alone]))
