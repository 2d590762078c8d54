#!/usr/bin/env python3
"""A real server under its bad inputs, its limits and a real client. Usage: served_test.py SPILLWAY MODEL CLIENT_PYTHON"""
import json
import os
import subprocess
import sys
import threading
import time

import server

SPILLWAY, MODEL, CLIENT_PYTHON = sys.argv[1:4]
CHUNK = 128


def prompt_lengths():
    """Prompts of 1, block - 1, block, block + 1, chunk + 1 tokens give what their own repetition gives (cold, then cached)."""
    with server.Server(SPILLWAY, MODEL, "--chunk-tokens", str(CHUNK)) as one:
        for length in (1, 63, 64, 65, CHUNK + 1, 300):
            prompt = [(17 * index + length) % 40000 + 20 for index in range(length)]
            cold_status, cold = one.complete(prompt, 6)
            warm_status, warm = one.complete(prompt, 6)
            assert cold_status == warm_status == 200, (cold, warm)
            assert cold["choices"][0]["text"] == warm["choices"][0]["text"], f"length {length}"
            assert cold["usage"]["prompt_tokens"] == length and cold["usage"]["completion_tokens"] == 6, cold["usage"]
            cached = warm["usage"]["prompt_tokens_details"]["cached_tokens"]
            assert cached == (length - 1) // 64 * 64, f"length {length}: {cached} cached tokens"
        one.wait_all_blocks_free()


def bad_requests():
    with server.Server(SPILLWAY, MODEL) as one:
        for body, field in (({"prompt": []}, "prompt"), ({"prompt": ""}, "prompt"), ({"prompt": 7}, "prompt"),
                            ({"prompt": [49152]}, "prompt"), ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
                            ({"prompt": "a", "temperature": -1}, "temperature"),
                            ({"prompt": "a", "temperature": "hot"}, "temperature"),
                            ({"prompt": "a", "stream": "yes"}, "stream"), ({"prompt": [5] * 4000}, "prompt"),
                            ({"prompt": "a", "model": "other"}, "model")):
            status, answer = one.post("/v1/completions", body)
            assert status in (400, 404), (status, body if len(str(body)) < 100 else field)
            assert answer["error"]["param"] == field, answer
        for raw in (b"", b"{", b"[]", b"\xff\xfe", b'{"prompt":"a"', b"[" * 100000):
            status, answer = one.post("/v1/completions", raw)
            assert status == 400 and answer["error"]["message"], (raw[:20], status)
        status, answer = one.post("/v1/completions", b" " * (9 << 20))
        assert status == 413, status
        status, answer = one.post("/v1/chat/completions", {"messages": []})
        assert status == 400 and answer["error"]["param"] == "messages", answer
        assert one.complete("Still here:", 2)[0] == 200
        one.wait_all_blocks_free()


def client_gone_in_each_phase():
    """Clients that leave in queue, prefill and decode free everything; a neighbour gets its answer."""
    with server.Server(SPILLWAY, MODEL, "--max-sequences", "2") as one:
        expected = one.complete("A neighbour says", 8)[1]["choices"][0]["text"]
        leavers = []
        for _ in range(6):  # more than fit: some wait in the queue
            connection = one.connection()
            connection.request("POST", "/v1/completions", json.dumps({"prompt": "word " * 1500, "max_tokens": 400,
                                                                      "ignore_eos": True, "stream": True}),
                               {"Content-Type": "application/json"})
            leavers.append(connection)
        time.sleep(0.5)  # some are in prefill by now, the others queue
        leavers[-1].close()
        leavers[0].getresponse().readline()  # its first token is out: decoding
        start = time.monotonic()
        for connection in leavers[:-1]:
            connection.close()
        status, body = one.complete("A neighbour says", 8)
        assert status == 200 and body["choices"][0]["text"] == expected, body
        one.wait_all_blocks_free(10)
        assert time.monotonic() - start < 20


def full_pool_queues_then_refuses():
    with server.Server(SPILLWAY, MODEL, "--max-sequences", "1", "--queue-max", "2") as one:
        answers = []
        def ask(index):
            answers.append(one.complete(f"Request number {index} is", 32)[0])
        clients = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(60)
        assert len(answers) == 8, "a request hangs"
        assert set(answers) == {200, 429}, answers
        assert answers.count(200) >= 3, answers
        one.wait_all_blocks_free()


def the_longest_queue_works():
    with server.Server(SPILLWAY, MODEL, "--queue-max", "65536") as one:
        assert one.complete("The queue is", 4)[0] == 200


def another_model_is_refused_by_name():
    """A node with another model (same file, one byte changed) is refused and says why."""
    with server.Server(SPILLWAY, MODEL) as one:
        other = os.path.join(one.folder.name, "other.gguf")
        data = bytearray(open(MODEL, "rb").read())
        data[-1] ^= 1
        open(other, "wb").write(data)
        endpoint = next(iter(__import__("re").findall(r"control endpoint (ipc://\S+)", open(one.log_path).read())))
        run_dir = os.path.dirname(endpoint.removeprefix("ipc://"))
        node = subprocess.run([SPILLWAY, "decode", "-m", other, "--gateway", endpoint, "--run-dir", run_dir, "--name",
                               "stranger", "--device-memory", "128MiB", "--max-model-len", "1024"],
                              capture_output=True, text=True, timeout=60)
        assert node.returncode == 2, node.returncode
        assert "model" in node.stderr and "stranger" in node.stderr, node.stderr[-500:]
        assert one.complete("Still here:", 2)[0] == 200


def too_small_settings_say_what_to_change():
    run = subprocess.run([SPILLWAY, "serve", "-m", MODEL, "--device-memory", "16MiB"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "raise --device-memory" in run.stderr, run.stderr
    run = subprocess.run([SPILLWAY, "serve", "-m", MODEL, "--device-memory", "1024GiB"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "lower --device-memory" in run.stderr, run.stderr


def openai_client():
    with server.Server(SPILLWAY, MODEL) as one:
        script = os.path.join(os.path.dirname(__file__), "api_test.py")
        run = subprocess.run([CLIENT_PYTHON, script, "--base-url", f"http://127.0.0.1:{one.port}"], timeout=300)
        assert run.returncode == 0, "api_test.py failed (its lines are above)"


if __name__ == "__main__":
    sys.exit(server.run_tests([prompt_lengths, bad_requests, client_gone_in_each_phase, full_pool_queues_then_refuses,
                               the_longest_queue_works,
                               another_model_is_refused_by_name, too_small_settings_say_what_to_change, openai_client]))
