#!/usr/bin/env python3
"""Nodes join and leave a running gateway, over ipc and tcp; several gateways share one pool; tenants share one queue.
Usage: pool_test.py SPILLWAY MODEL"""
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading

import server

SPILLWAY, MODEL = sys.argv[1:3]
SIZES = ("--max-model-len", "1024", "--device-memory", "128MiB", "--threads", "1", "--chunk-tokens", "64")
LONG = 200  # tokens: time enough to do something meanwhile
PROMPT = "The history of computing began "


class Part(server.Server):
    """One role started by hand; `folder` holds its sockets and log."""

    def __init__(self, folder, role, name, gateways, *flags):
        self.port, self.key, self.role = server.free_port(), None, role
        self.folder = tempfile.TemporaryDirectory(dir=folder)
        self.log_path = os.path.join(self.folder.name, "log")
        self.command = [SPILLWAY, role, "-m", MODEL, "--name", name, *flags]
        for gateway in gateways:
            self.command += ["--gateway", gateway]
        if role == "gateway":
            self.command += ["--port", str(self.port), "--max-model-len", "1024", "--secret-file", f"{folder}/secret"]
        else:
            self.command += [*SIZES, "--run-dir", self.folder.name, "--cache-dir", f"{folder}/packed"]

    def wait_ready(self, within=server.READY_WITHIN_S):
        self.wait_log("listening" if self.role == "gateway" else "peer up", within)

    def kill(self):
        self.process.kill()
        self.process.wait()


def tcp():
    return f"tcp://127.0.0.1:{server.free_port()}"


def nodes(one, role):
    return int(re.search(rf'^spillway_nodes{{.*role="{role}".*}} (\d+)$', one.get("/metrics")[1], re.M).group(1))


def wait_nodes(one, prefill, decode):
    server.wait_until(lambda: (nodes(one, "prefill"), nodes(one, "decode")) == (prefill, decode),
                      f"{prefill} prefill and {decode} decode nodes", 60)


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
    with tempfile.TemporaryDirectory() as folder:
        endpoints = [tcp(), f"ipc://{folder}/second.sock"]
        with Part(folder, "gateway", "first", endpoints[:1]) as first, \
                Part(folder, "gateway", "second", endpoints[1:]) as second, \
                Part(folder, "prefill", "P", endpoints, "--max-sequences", "4"), \
                Part(folder, "decode", "D", endpoints, "--max-sequences", "4"):
            for one in (first, second):
                wait_nodes(one, 1, 1)
            expected = right_text(first)
            assert right_text(second) == expected
            # Together more than the pool takes at once: what D refuses is tried again.
            texts = []
            askers = [threading.Thread(target=lambda one=one: texts.append(right_text(one)))
                      for one in (first, second) for _ in range(6)]
            for asker in askers:
                asker.start()
            for asker in askers:
                asker.join()
            assert texts == [expected] * 12, texts
            doomed, other = first.stream(PROMPT, LONG), second.stream(PROMPT, LONG)
            doomed.read(1)
            other.read(1)
            first.kill()
            _, error = other.read()
            assert error is None, error
            assert right_text(second) == expected
            second.wait_all_blocks_free()


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


sys.exit(server.run_tests([
    other_machines_are_refused_by_name, nodes_join_and_leave_over_ipc, nodes_join_and_leave_over_tcp,
    two_gateways_share_a_pool_and_one_may_die, one_tenants_flood_delays_another_by_a_turn]))
