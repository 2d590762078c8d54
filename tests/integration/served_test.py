#!/usr/bin/env python3
"""A real server under its bad inputs, its limits and a real client. Usage: served_test.py SPILLWAY MODEL CLIENT_PYTHON"""
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading

import server

SPILLWAY, MODEL, CLIENT_PYTHON = sys.argv[1:4]
CHUNK = 128
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


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


def leave(one, stream):
    """The client goes away; returns once the gateway has noticed."""
    before = one.metric("spillway_requests_cancelled_total")
    stream.leave()
    one.wait_metric("spillway_requests_cancelled_total", before + 1)


def neighbour_says(one):
    status, body = one.complete("A neighbour says", 8)
    assert status == 200, body
    return body["choices"][0]["text"]


def nothing_is_left(one):
    one.wait_all_blocks_free()
    assert neighbour_says(one) == EXPECTED


def client_gone_while_queued_or_decoding():
    with server.Server(SPILLWAY, MODEL, "--max-sequences", "1") as one:
        decoding = one.stream("word " * 300, 1000)
        decoding.read(3)
        queued = one.stream("word " * 300, 1000)
        one.wait_metric("spillway_requests_queued", 1)
        leave(one, queued)
        assert one.metric("spillway_requests_queued") == 0 and one.metric("spillway_requests_running") == 1
        leave(one, decoding)
        nothing_is_left(one)


def client_gone_while_a_node_is_at(point, child, tokens_max):
    """The node halts inside the phase, the client leaves, the node goes on (before it counts as lost)."""
    def test():
        with server.Server(SPILLWAY, MODEL, "--chunk-tokens", "64", "--fault", f"{point}:stop") as one:
            pid = one.pid(child)
            stream = one.stream("word " * 300, 400)
            server.wait_until(lambda: server.process_state(pid) == "T", f"{child} halts at {point}", 60)
            try:
                leave(one, stream)
                assert one.metric("spillway_output_tokens_total") <= tokens_max
            finally:
                os.kill(pid, signal.SIGCONT)
            nothing_is_left(one)
            assert "lost a node" not in one.log_text(), "it was away for too long: this shows nothing"
    test.__name__ = f"client_gone_at_{point}"
    return test


def no_place_queues_then_refuses():
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


def full_pool_queues_then_refuses():
    """KV blocks run out long before places do."""
    with server.Server(SPILLWAY, MODEL, "--max-model-len", "1024", "--device-memory", "32MiB", "--queue-max", "2",
                       "--growth-margin", "1024") as one:
        blocks = one.metric("spillway_kv_blocks") / 2  # of each node
        assert 16 <= blocks < 26, f"{blocks} blocks a node: the sizes below fit this test no more"
        expected = one.complete("word " * 600, 2)[1]["choices"][0]["text"]
        first = one.stream("Fill it:", 1000)  # 16 blocks on the decode node
        first.read(2)
        waiting = [one.stream("word " * 600, 2) for _ in range(2)]  # 10 blocks each
        one.wait_metric("spillway_requests_queued", 2)
        assert one.metric("spillway_requests_running") == 1
        status, body = one.complete("One more", 900)
        assert status == 429 and "2 requests wait already" in body["error"]["message"], (status, body)
        leave(one, first)
        for stream in waiting:
            assert stream.read() == (expected, None), stream.read()
        nothing_is_left(one)


def doctor_says_what_serve_would_meet():
    def doctor(*flags):
        ended = subprocess.run([SPILLWAY, "doctor", "-m", MODEL, *flags], capture_output=True, text=True, timeout=60)
        return ended.returncode, ended.stdout + ended.stderr
    with server.Server(SPILLWAY, MODEL) as one:
        status, said = doctor("--port", str(one.port))
        assert status == 1 and f"cannot listen on 127.0.0.1:{one.port}" in said, said
    status, said = doctor("--port", "0", "--device-memory", "1MiB")
    assert status == 2 and "raise --device-memory to" in said, (status, said)
    below_a_file = os.path.join(MODEL, "none")  # root may write everywhere, but not there
    status, said = doctor("--port", "0", "--cache-dir", below_a_file, "--secret-file", below_a_file)
    assert status == 1 and said.count("PROBLEM: cannot ") == 1 and "packed in memory, at each start" in said, said
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (700, 700))
    for command in (["doctor", "-m", MODEL, "--port", "0"], ["serve", "-m", MODEL, "--port", "0"]):
        ended = subprocess.run([SPILLWAY, *command], capture_output=True, text=True, timeout=60, preexec_fn=few)
        assert ended.returncode in (1, 2) and "800" in ended.stdout + ended.stderr, (command, ended)
    status, said = doctor("--config", os.path.join(ROOT, "configs", "two_by_two.yaml"), "--port", "0")
    assert status == 0 and "2 prefill nodes with" in said and "2 decode nodes with" in said and "PROBLEM" not in said, (status, said)


def nodes_say_one_canary():
    with server.Server(SPILLWAY, MODEL, "--prefill", "2") as one:
        def said():
            return re.findall(r"ready backend=.* canary=([0-9a-f]{16}) ", one.log_text())
        server.wait_until(lambda: len(said()) == 3, "three nodes say their canary", 60)
        assert len(set(said())) == 1 and int(said()[0], 16) != 0, said()


def a_long_queue_has_its_connections():
    with server.Server(SPILLWAY, MODEL, "--queue-max", "1024") as one:
        idle = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(600)]
        assert one.complete("The queue is", 4)[0] == 200
        for connection in idle:
            connection.close()


def another_model_is_refused_by_name():
    """A node with another model (same file, one byte changed) is refused and says why."""
    with server.Server(SPILLWAY, MODEL) as one:
        other = os.path.join(one.folder.name, "other.gguf")
        data = bytearray(open(MODEL, "rb").read())
        data[-1] ^= 1
        open(other, "wb").write(data)
        endpoint = next(iter(re.findall(r"control endpoint (ipc://\S+)", open(one.log_path).read())))
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
    script = os.path.join(os.path.dirname(__file__), "api_test.py")
    with tempfile.TemporaryDirectory() as folder:
        keys = write_keys(folder, "sk-other", "sk-client")
        with server.Server(SPILLWAY, MODEL, "--api-key-file", keys) as one:
            one.key = "sk-client"
            names = [entry["id"] for entry in json.loads(one.get("/v1/models")[1])["data"]]
            assert names == [os.path.basename(MODEL).removesuffix(".gguf")], names  # by default the file's stem
            run = subprocess.run([CLIENT_PYTHON, script, "--base-url", f"http://127.0.0.1:{one.port}", "--api-key",
                                  "sk-client"], timeout=300)
            assert run.returncode == 0, "api_test.py failed (its lines are above)"


def openai_client_meets_failures():
    script = os.path.join(os.path.dirname(__file__), "client_failures.py")
    run = subprocess.run([CLIENT_PYTHON, script, SPILLWAY, MODEL], timeout=300)
    assert run.returncode == 0, "client_failures.py failed (its lines are above)"


def write_keys(folder, *keys, mode=0o600):
    path = os.path.join(folder, "keys")
    with open(path, "w") as file:
        file.write("# of this test\n" + "\n".join(keys) + "\n")
    os.chmod(path, mode)
    return path


def each_key_has_a_prefix_cache_of_its_own():
    with tempfile.TemporaryDirectory() as folder:
        keys = write_keys(folder, "sk-alpha", "sk-gamma")
        with server.Server(SPILLWAY, MODEL, "--api-key-file", keys) as one:
            for path in ("/v1/models", "/metrics", "/version", "/no/such/path"):
                status, body = one.get(path)
                assert status == 401 and json.loads(body)["error"]["code"] == "invalid_api_key", (path, status, body)
            assert one.complete("a", 1)[0] == 401
            assert one.get("/health/live")[0] == one.get("/health/ready")[0] == one.get("/health")[0] == 200

            def cached(key):
                one.key = key
                status, body = one.complete("The history of computing began with the abacus. " * 20, 4)
                assert status == 200, body
                texts.add(body["choices"][0]["text"])
                return body["usage"]["prompt_tokens_details"]["cached_tokens"]
            texts = set()
            assert cached("sk-alpha") == 0
            assert cached("sk-gamma") == 0, "it hits the blocks of another key"
            alpha, beta = cached("sk-alpha"), cached("sk-gamma")
            assert alpha >= 64 and beta == alpha, (alpha, beta)
            assert len(texts) == 1, texts
            one.wait_all_blocks_free()
            assert "sk-alpha" not in one.log_text() and "sk-gamma" not in one.log_text(), "a key is in the log"
        keys = write_keys(folder, "sk-alpha", mode=0o644)
        run = subprocess.run([SPILLWAY, "serve", "-m", MODEL, "--api-key-file", keys], capture_output=True, text=True,
                             timeout=60)
        assert run.returncode == 2 and "chmod 600" in run.stderr and "sk-alpha" not in run.stderr, run.stderr


def keys_share_what_is_public_and_nothing_else():
    system = {"role": "system", "content": "You answer questions about the history of computing, briefly and kindly. " * 12}
    messages = [system, {"role": "user", "content": "Who built the first machine that could be programmed? " * 12}]
    with tempfile.TemporaryDirectory() as folder:
        keys = write_keys(folder, "sk-alpha", "sk-gamma")
        public = os.path.join(folder, "public.jsonl")
        with open(public, "w") as file:
            file.write("# what all may share\n" + json.dumps({"messages": [system]}) + "\n")
        texts = set()

        def cached(one, key):
            one.key = key
            status, body = one.post("/v1/chat/completions", {"messages": messages, "max_tokens": 4, "temperature": 0})
            assert status == 200, body
            texts.add(body["choices"][0]["message"]["content"])
            return body["usage"]["prompt_tokens_details"]["cached_tokens"]
        with server.Server(SPILLWAY, MODEL, "--api-key-file", keys, "--public-prefix-file", public) as one:
            assert cached(one, "sk-alpha") == 0
            beta, alpha = cached(one, "sk-gamma"), cached(one, "sk-alpha")
            status, body = one.post("/tokenize", {"messages": [system]})  # with the words that begin an answer
            assert status == 200 and 64 <= beta <= len(body["tokens"]), (beta, body)
            assert alpha >= beta + 64, (alpha, beta)
            one.wait_all_blocks_free()
        with server.Server(SPILLWAY, MODEL, "--api-key-file", keys) as one:
            assert cached(one, "sk-alpha") == cached(one, "sk-gamma") == 0, "nothing is public"
        assert len(texts) == 1, texts

        with open(public, "a") as file:
            file.write('{"prompt": [1, -1]}\n')
        flags = ["-m", MODEL, "--port", "0", "--public-prefix-file", public]
        run = subprocess.run([SPILLWAY, "serve", *flags], capture_output=True, text=True, timeout=60)
        assert run.returncode == 2 and f"{public}, line 3: prompt[1] is not a token id" in run.stderr, run
        run = subprocess.run([SPILLWAY, "doctor", *flags], capture_output=True, text=True, timeout=60)
        assert run.returncode == 1 and re.search(r"public prefixes .*PROBLEM: .*line 3", run.stdout), run
        run = subprocess.run([SPILLWAY, "doctor", *flags[2:]], capture_output=True, text=True, timeout=60)
        assert run.returncode == 0 and "checked with -m MODEL only" in run.stdout, run


def the_model_has_the_names_it_was_given():
    with server.Server(SPILLWAY, MODEL, "--served-model-name", "small", "--served-model-name", "*",
                       "--served-model-name", "org/small") as one:
        listed = [entry["id"] for entry in json.loads(one.get("/v1/models")[1])["data"]]
        assert listed == ["small", "org/small"], listed
        for asked, answered in (("small", "small"), ("org/small", "org/small"), ("gpt-4", "small")):
            status, body = one.complete("a", 1, model=asked)
            assert (status, body["model"]) == (200, answered), (asked, body)


def texts_together(one, prompts, max_tokens):
    """(status, body) of one completion each, asked at once."""
    answers = [None] * len(prompts)
    def ask(index):
        answers[index] = one.complete(prompts[index], max_tokens)
    clients = [threading.Thread(target=ask, args=(index,)) for index in range(len(prompts))]
    for client in clients:
        client.start()
    for client in clients:
        client.join(server.ANSWER_WITHIN_S)
    assert None not in answers, "a request hangs"
    return answers


def outgrown_memory_preempts_and_changes_no_text():
    """Four answers of 5 blocks each in a pool of 8: the decode node preempts, and nobody can tell from the texts."""
    prompts = [f"Once upon a time in the town number {index} there was" for index in range(4)]
    with server.Server(SPILLWAY, MODEL, "--max-model-len", "384", "--device-memory", "12MiB",
                       "--growth-margin", "16") as one:
        blocks = one.metric("spillway_kv_blocks") / 2
        assert 6 <= blocks <= 9, f"{blocks} blocks a node: the sizes here fit this test no more"
        alone = [one.complete(prompt, 290) for prompt in prompts]
        assert one.metric("spillway_preemptions_total") == 0
        together = texts_together(one, prompts, 290)
        for (_, expected), (status, body) in zip(alone, together):
            assert status == 200, body
            assert body["choices"] == expected["choices"], (body, expected)
            assert body["usage"]["completion_tokens"] == 290
        assert one.metric("spillway_preemptions_total") > 0
        assert one.metric("spillway_recomputed_tokens_total") > 0
        nothing_is_left(one)


def poisoned_request_ends_alone(fault, node):
    """The logits of one request become NaN while four run: it is told, the others' texts are as ever."""
    def test():
        prompts = [f"The colour of house number {index} on the street is" for index in range(4)]
        with server.Server(SPILLWAY, MODEL, "--fault", fault) as one:
            alone = [one.complete(prompt, 24) for prompt in prompts]
            assert all(status == 200 for status, _ in alone), "it struck too early"
            together = texts_together(one, prompts, 24)
            failed = [index for index, (status, _) in enumerate(together) if status != 200]
            assert len(failed) == 1, together
            status, body = together[failed[0]]
            assert status == 500 and f"{node} 0" in body["error"]["message"], (status, body)
            assert re.search(r"not finite \(request \S+\)", body["error"]["message"]), body
            for index, (status, body) in enumerate(together):
                assert index in failed or body["choices"] == alone[index][1]["choices"], (index, body)
            status, body = one.complete(prompts[failed[0]], 24)
            assert body["choices"] == alone[failed[0]][1]["choices"], (status, body)
            assert "killed" not in one.log_text() and "lost a node" not in one.log_text()
            nothing_is_left(one)
    test.__name__ = f"poisoned_request_ends_alone_at_{node}"
    return test


if __name__ == "__main__":
    with server.Server(SPILLWAY, MODEL) as healthy:
        EXPECTED = neighbour_says(healthy)
    sys.exit(server.run_tests([prompt_lengths, bad_requests, client_gone_while_queued_or_decoding,
                               client_gone_while_a_node_is_at("prefill-layer:40", "prefill 0", 0),
                               client_gone_while_a_node_is_at("decode-landed", "decode 0", 1),
                               no_place_queues_then_refuses, full_pool_queues_then_refuses,
                               outgrown_memory_preempts_and_changes_no_text,
                               poisoned_request_ends_alone("prefill-nan:5", "prefill"),
                               poisoned_request_ends_alone("decode-nan:100", "decode"),
                               doctor_says_what_serve_would_meet, a_long_queue_has_its_connections,
                               nodes_say_one_canary, another_model_is_refused_by_name,
                               too_small_settings_say_what_to_change, each_key_has_a_prefix_cache_of_its_own,
                               keys_share_what_is_public_and_nothing_else,
                               the_model_has_the_names_it_was_given, openai_client,
                               openai_client_meets_failures]))
