#!/usr/bin/env python3
"""Nodes join and leave a running gateway, over ipc and tcp; several gateways share one pool; tenants share one queue.
Usage: pool_test.py SPILLWAY MODEL"""
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading

import server
from by_hand import MODEL, SIZES, SPILLWAY, Part, started, wait_nodes

LONG = 200  # tokens: time enough to do something meanwhile
PROMPT = "The history of computing began "


def tcp():
    return f"tcp://127.0.0.1:{server.free_port()}"


def right_text(one, count=8):
    status, body = one.complete(PROMPT, count)
    assert status == 200, body
    return body["choices"][0]["text"]


def join_and_leave(*flags):
    with tempfile.TemporaryDirectory() as folder:
        packed = ("--cache-dir", f"{folder}/packed")
        with server.Server(SPILLWAY, MODEL, *SIZES, *packed, *flags) as one:
            expected = right_text(one)
            one.wait_log("control endpoint")
            gateway = re.search(r"control endpoint (\S+)", one.log_text()).group(1)
            with Part(folder, "prefill", "joined P", [gateway]) as prefill, \
                    Part(folder, "decode", "joined D", [gateway]) as decode:
                wait_nodes(one, 2, 2)
                streams = [one.stream(f"{PROMPT}{count}", LONG) for count in range(2)]
                for stream in streams:
                    stream.read(1)
                decode.kill()
                errors = [error for _, error in (stream.read() for stream in streams)]
                assert sorted("joined D" in (error or "") for error in errors) == [False, True], errors
                wait_nodes(one, 2, 1)
                os.kill(one.pid("prefill 0"), signal.SIGSTOP)  # what is served now, the joined one computes
                wait_nodes(one, 1, 1)
                assert right_text(one) == expected
                os.kill(one.pid("prefill 0"), signal.SIGCONT)
                wait_nodes(one, 2, 1)
                prefill.process.send_signal(signal.SIGTERM)
                assert prefill.process.wait(30) == 0
            wait_nodes(one, 1, 1)
            assert right_text(one) == expected
            one.wait_all_blocks_free()


def nodes_join_and_leave_over_ipc():
    join_and_leave()


def nodes_join_and_leave_over_tcp():
    join_and_leave("--gateway", tcp())


def other_machines_are_refused_by_name():
    for address in ("tcp://10.0.0.1:5555", "tcp://*:5555", "tcp://gateway.example.com:5555"):
        run = subprocess.run([SPILLWAY, "decode", "-m", MODEL, "--run-dir", "/tmp", "--gateway", address],
                             capture_output=True, text=True, timeout=60)
        assert run.returncode != 0 and address in run.stderr and "no keys yet" in run.stderr, run.stderr


def two_gateways_share_a_pool_and_one_may_die():
    """2P2D; one gateway over tcp, one over ipc."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        endpoints = [tcp(), f"ipc://{folder}/second.sock"]
        first, second = (stack.enter_context(Part(folder, "gateway", name, [endpoint]))
                         for name, endpoint in zip(("first", "second"), endpoints))
        workers = [stack.enter_context(Part(folder, role, name, endpoints, "--max-sequences", "2", "--log-level", "debug"))
                   for role, name in (("prefill", "P0"), ("prefill", "P1"), ("decode", "D0"), ("decode", "D1"))]
        for one in (first, second):
            wait_nodes(one, 2, 2)
        expected = right_text(first)
        assert right_text(second) == expected
        # Together more than the pool takes at once: each promises its share, and asks for more in turn.
        texts = []
        askers = [threading.Thread(target=lambda one=one: texts.append(right_text(one)))
                  for one in (first, second) for _ in range(6)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert texts == [expected] * 12, texts
        idle = [worker.name for worker in workers if "request_begun" not in worker.log_text()]
        assert not idle, f"{idle} had nothing to do"
        doomed, other = first.stream(PROMPT, LONG), second.stream(PROMPT, 40)
        doomed.read(1)
        other.read(1)
        first.kill()
        _, error = other.read()
        assert error is None, error
        assert right_text(second) == expected
        second.wait_all_blocks_free()


def other_model(folder):
    """The same file but for one byte."""
    path = os.path.join(folder, "other.gguf")
    with open(MODEL, "rb") as one, open(path, "wb") as other:
        data = bytearray(one.read())
        data[-1] ^= 1
        other.write(data)
    return path


def a_gateway_of_another_model_hurts_nobody_elses():
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        endpoints = [f"ipc://{folder}/first.sock", f"ipc://{folder}/second.sock"]
        model = other_model(folder)
        first = stack.enter_context(Part(folder, "gateway", "first", endpoints[:1]))
        # Its first step halts until it gets SIGCONT: the request is under way for as long as the test wants.
        decode = started(Part(folder, "decode", "D", endpoints, "--fault", "decode-compute:1:wedge"))
        nodes = [stack.enter_context(Part(folder, "prefill", "P", endpoints)), stack.enter_context(decode)]
        wait_nodes(first, 1, 1)
        stream = first.stream(PROMPT, 8)
        stream.read(1)
        with Part(folder, "gateway", "second", endpoints[1:], model=model) as second:
            for node in nodes:
                node.wait_log("refused by a peer", 60)
                line = next(line for line in node.log_text().splitlines() if "refused by a peer" in line)
                assert '"level":"error"' in line and endpoints[1] in line and '\\"second\\" has model' in line, line
            nodes[1].process.send_signal(signal.SIGCONT)
            text, error = stream.read()
            assert error is None, error
            assert right_text(first) == text
            assert [node.process.poll() for node in nodes] == [None, None]
            second.kill()
        with Part(folder, "gateway", "second", endpoints[1:]) as second:  # now the right one: they come by themselves
            wait_nodes(second, 1, 1)
            assert right_text(second) == text
        other = stack.enter_context(started(Part(folder, "decode", "D8", endpoints[:1], "--kv-dtype", "int8")))
        other.wait_log("refused by a peer", 60)
        assert '\\"D8\\" stores KV as int8, \\"' in other.log_text(), other.log_text()
        assert right_text(first) == text
        stack.enter_context(started(Part(folder, "decode", "A8", endpoints[:1], "--activations", "int8")))
        first.wait_log("nodes compute differently", 60)
        line = next(line for line in first.log_text().splitlines() if "nodes compute differently" in line)
        assert '"level":"warning"' in line and '\\"A8\\" computes in numerics class' in line, line


def a_node_that_nobody_takes_leaves_though_its_step_hangs():
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        endpoint = f"ipc://{folder}/gateway.sock"
        decode = Part(folder, "decode", "D", [endpoint], "--fault", "decode-compute:1:wedge", "--log-level", "debug")
        stack.enter_context(started(decode))
        stack.enter_context(started(Part(folder, "prefill", "P", [endpoint])))
        with Part(folder, "gateway", "first", [endpoint]) as first:
            wait_nodes(first, 1, 1)
            stream = first.stream(PROMPT, 8)
            stream.read(1)
            decode.wait_log("request_begun")
            first.kill()
        with Part(folder, "gateway", "second", [endpoint], model=other_model(folder)):
            assert decode.process.wait(30) == 2, decode.process.returncode
            decode.wait_log("a peer refused to work with this process")


def one_tenants_flood_delays_another_by_a_turn():
    with tempfile.TemporaryDirectory() as folder:
        keys = os.path.join(folder, "keys")
        with open(keys, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write("sk-flood\nsk-single\n")
        with server.Server(SPILLWAY, MODEL, *SIZES, "--max-sequences", "1", "--api-key-file", keys) as one:
            one.key = "sk-flood"
            flood = [one.stream(f"{PROMPT}{count}", 16) for count in range(20)]
            flood[0].read(1)
            server.wait_until(lambda: one.metric("spillway_requests_queued") >= 15, "the flood waits", 60)
            ended_before = one.metric("spillway_requests_finished_total")
            one.key = "sk-single"
            right_text(one, 16)
            turns = one.metric("spillway_requests_finished_total") - ended_before
            assert turns <= 4, f"{turns} requests ended meanwhile"
            for stream in flood:
                assert stream.read()[1] is None


if __name__ == "__main__":
    sys.exit(server.run_tests([
        other_machines_are_refused_by_name, nodes_join_and_leave_over_ipc, nodes_join_and_leave_over_tcp,
        two_gateways_share_a_pool_and_one_may_die, a_gateway_of_another_model_hurts_nobody_elses,
        a_node_that_nobody_takes_leaves_though_its_step_hangs, one_tenants_flood_delays_another_by_a_turn]))
