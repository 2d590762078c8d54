#!/usr/bin/env python3
"""The kill matrix: 2P2D under load, and kill -9 of gateway, prefill 0 and decode 0 at named fault points. Every answer,
streamed or whole, is the right text or one clear error (of a gateway's death: a broken connection); afterwards every
process is back, no block is held and the next answers are right.
Usage: kill_matrix.py SPILLWAY MODEL [ROUNDS [SEED]]
A round is one kill. Prints how long recovery took, as the table of docs/reliability.md."""
import http.client
import random
import sys
import threading
import time
from collections import defaultdict

import server

SPILLWAY, MODEL = sys.argv[1:3]
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 40
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else 4
CLIENTS = 4
OUTPUT_TOKENS = 12
KILLED_WITHIN_S = 180  # all of one server's kills
TOLD_WITHIN_S = 5      # of a kill: whoever was hurt by it
SHARED = "The history of computing began "
PROMPTS = [SHARED * 20 + end for end in ("with", "when the first", "in a small room,", "1946.")] + \
          ["Water boils at " * 12, "Once upon a time"]
POINTS = {  # name: the most passes that it waits for
    "prefill": {"prefill-received": 6, "prefill-step": 12, "prefill-layer": 200, "prefill-compute": 12, "prefill-send": 30,
                "prefill-transfer": 30, "prefill-done": 6},
    "decode": {"decode-reserved": 6, "decode-transfer": 6, "decode-landed": 60, "decode-commit": 6, "decode-step": 60, "decode-compute": 60, "decode-token": 60},
    "gateway": {"gateway-arrived": 12, "gateway-dispatch": 16, "gateway-token": 120, "gateway-end": 10},
}
CHILD = {"prefill": "prefill 0", "decode": "decode 0", "gateway": "gateway"}
AT_WORK = {"prefill": "[prefill 0] ready", "decode": "[decode 0] ready", "gateway": "listening http://"}


class Answers:
    """What the clients of one server were told; any thread."""

    def __init__(self):
        self.lock = threading.Lock()
        self.right, self.failed, self.wrong = [], [], []  # [(began, told, what)]

    def add(self, kind, began, what=""):
        with self.lock:
            getattr(self, kind).append((began, time.time(), what))


def ask(one, prompt, stream):
    """(text, error, broken): the error of the API, or that the connection broke."""
    try:
        if stream:
            return *one.stream(prompt, OUTPUT_TOKENS).read(), False
        status, body = one.complete(prompt, OUTPUT_TOKENS)
    except (OSError, http.client.HTTPException) as error:
        return "", f"{type(error).__name__}: {error}", True
    except AssertionError as error:  # a stream that ended without its end
        return "", str(error), True
    return (body["choices"][0]["text"], None, False) if status == 200 else ("", body["error"]["message"], False)


def client(one, index, expected, answers, until):
    turn = index
    while not until.is_set():
        prompt = PROMPTS[turn % len(PROMPTS)]
        began = time.time()
        text, error, broken = ask(one, prompt, stream=turn % 2 == 0)
        if not expected[prompt].startswith(text) or (error is None and text != expected[prompt]):
            answers.add("wrong", began, f"{text!r} for {prompt[-20:]!r}, error {error}")
        elif error is None:
            answers.add("right", began)
        else:
            answers.add("failed", began, f"broken: {error}" if broken else error)
            time.sleep(0.1)  # as a client that tries again
        turn += 1


def one_server(faults, expected):
    """Seconds of each kill: [(point, until the last client was told, until the process is at work, errors)]"""
    flags = [flag for fault in faults for flag in ("--fault", fault)]
    answers, until = Answers(), threading.Event()
    with server.Server(SPILLWAY, MODEL, "--prefill", "2", "--decode", "2", "--threads", "1", "--chunk-tokens", "64",
                       "--device-memory", "64MiB", *flags) as one:
        threads = [threading.Thread(target=client, args=(one, index, expected, answers, until))
                   for index in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            killed = {role: one.logged_at(f"{CHILD[role]} killed by signal 9", KILLED_WITHIN_S) for role in POINTS}
            back = {role: one.logged_at(AT_WORK[role], server.READY_WITHIN_S, f"{CHILD[role]} killed by signal 9")
                    for role in POINTS}
        finally:
            until.set()
            for thread in threads:
                thread.join(server.ANSWER_WITHIN_S)
        assert not any(thread.is_alive() for thread in threads), "a client hangs"
        assert not answers.wrong, f"wrong text: {answers.wrong[0][2]}"
        one.wait_ready()
        for prompt in PROMPTS:
            status, body = one.complete(prompt, OUTPUT_TOKENS)
            assert status == 200 and body["choices"][0]["text"] == expected[prompt], body
        one.wait_all_blocks_free()
    rows = []
    for fault in faults:
        role = fault.split("-")[0]
        hurt = [(told, what) for began, told, what in answers.failed if began < killed[role] < told]
        last = max((told for told, _ in hurt), default=killed[role]) - killed[role]
        assert last < TOLD_WITHIN_S, f"{fault}: a client was told {last:.1f} s after the kill: {hurt}"
        rows.append((fault, last, back[role] - killed[role], len(hurt)))
    unclear = [what for _, _, what in answers.failed
               if not any(word in what for word in ("broken", "prefill", "decode", "gateway"))]
    assert not unclear, f"an error that names nobody: {unclear[0]}"
    return rows


def right_texts():
    with server.Server(SPILLWAY, MODEL) as healthy:
        answers = {prompt: healthy.complete(prompt, OUTPUT_TOKENS) for prompt in PROMPTS}
    assert all(status == 200 for status, _ in answers.values()), answers
    return {prompt: body["choices"][0]["text"] for prompt, (_, body) in answers.items()}


def main():
    draw = random.Random(SEED)
    expected = right_texts()
    seconds = defaultdict(list)
    failed = rounds = 0
    for number in range((ROUNDS + len(POINTS) - 1) // len(POINTS)):
        faults = []
        for points in POINTS.values():
            name = list(points)[number % len(points)]
            faults.append(f"{name}:{draw.randint(1, points[name])}")
        start = time.monotonic()
        try:
            rows = one_server(faults, expected)
        except Exception as error:  # noqa: BLE001 - a round may fail in any way
            failed += len(faults)
            print(f"FAILED  {' '.join(faults)}: {type(error).__name__}: {error}", flush=True)
            continue
        rounds += len(rows)
        for fault, told, back, errors in rows:
            seconds[fault.split(":")[0]].append((told, back, errors))
        print(f"ok      {' '.join(faults)} ({time.monotonic() - start:.1f} s)", flush=True)
    print("\n| killed at | kills | requests that failed by it | last of them told after | process at work after |\n"
          "|---|---|---|---|---|")
    for name, rows in sorted(seconds.items()):
        told, back = sorted(row[0] for row in rows), sorted(row[1] for row in rows)
        print(f"| `{name}` | {len(rows)} | {sum(row[2] for row in rows)} | {told[-1]:.1f} s | "
              f"{back[len(back) // 2]:.1f} s ({back[0]:.1f}-{back[-1]:.1f}) |")
    print(f"{rounds} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
