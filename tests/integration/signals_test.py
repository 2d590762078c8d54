#!/usr/bin/env python3
"""How processes end at signals: a gateway, prefill and decode nodes that were started by hand and have requests, and any
that still loads its model. Usage: signals_test.py SPILLWAY MODEL"""
import contextlib
import glob
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import server
from by_hand import MODEL, SPILLWAY, Part, start, started, wait_nodes

PROMPT = "The history of computing began "
SHORT = 6  # tokens
LONG = 160  # tokens: time enough to do something meanwhile
ENDLESS = 900
AT_ONCE_S = 2  # what a second signal, or one while the model loads, may take
WITHIN_S = 60  # what must come, soon


class Pool:
    """One gateway, 2P2D; what a test ended is there again for the next."""

    def __init__(self, folder):
        self.folder, self.endpoint, self.parts, self.running = folder, f"ipc://{folder}/gateway.sock", {}, []

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for part in reversed(self.running):  # the gateway, started first, goes last
            part.__exit__(*exception)

    def all_there(self, wedged=None):
        """All parts by name. The one called `wedged` is a new process: its first step halts until it gets SIGCONT."""
        for role, name in (("gateway", "G"), ("prefill", "P0"), ("prefill", "P1"), ("decode", "D0"), ("decode", "D1")):
            part = self.parts.get(name)
            if part is not None and part.process.poll() is None and name != wedged:
                continue
            if part is not None:
                self.running.remove(part)
                part.__exit__(None)
            fault = ("--fault", f"{role}-compute:1:wedge") if name == wedged else ()
            part = Part(self.folder, role, name, [self.endpoint], "--log-level", "debug", "--drain-timeout", "120", *fault)
            start(part)
            self.parts[name] = part
            self.running.append(part)
        self.parts["G"].wait_ready()
        wait_nodes(self.parts["G"], 2, 2)
        return self.parts


def health(gateway):
    return json.loads(gateway.get("/health/ready")[1])


def is_left_out(gateway, name):
    """That it drains or, where that takes a while, that it is stalled: either way it gets nothing new."""
    server.wait_until(lambda: any(reason.startswith(f"{name} ") for reason in health(gateway).get("degraded", [])),
                      f"{name} is left out")


def right_text(gateway, count=SHORT):
    status, body = gateway.complete(PROMPT, count)
    assert status == 200, body
    return body["choices"][0]["text"]


def ends(part, code, within):
    begin = time.monotonic()
    assert part.process.wait(WITHIN_S) == code, (part.process.returncode, part.log_text()[-2000:])
    took = time.monotonic() - begin
    assert took < within, f"took {took:.1f} s"


def told_or_cut_off(stream):
    try:
        _, error = stream.read()
    except (OSError, http.client.HTTPException, AssertionError):
        return  # cut off
    assert error, "the stream ended as if nothing had happened"


def count_logged(part, event):
    return part.log_text().count(f'"{event}"')


def two_at_once(gateway, wedged):
    """Two streams, one for each node of a role: `wedged` has one of them, and halts in its first step. The other one is
    long enough to run still when the second comes: an idle node would get that too."""
    streams = [gateway.stream(PROMPT, LONG) for _ in range(2)]
    server.wait_until(lambda: count_logged(wedged, "request_begun") == 1, f"{wedged.name} has one of them", WITHIN_S)
    return streams


def drains_with_its_request(pool, name):
    """The node has a request, which waits for its first step, and drains: others take what is new, it finishes its own
    and leaves."""
    parts = pool.all_there(wedged=name)
    gateway, leaving = parts["G"], parts[name]
    streams = two_at_once(gateway, leaving)
    leaving.process.send_signal(signal.SIGTERM)
    is_left_out(gateway, name)
    expected = right_text(gateway, LONG)
    assert count_logged(leaving, "request_begun") == 1, "it was given a new one"
    assert leaving.process.poll() is None, "it left before its request was over"
    leaving.process.send_signal(signal.SIGCONT)
    texts = [stream.read() for stream in streams]
    assert texts == [(expected, None)] * 2, (texts, expected)
    ends(leaving, 0, WITHIN_S)
    assert count_logged(leaving, "drained") == 1


def a_prefill_node_drains(pool):
    drains_with_its_request(pool, "P0")


def a_decode_node_drains(pool):
    drains_with_its_request(pool, "D0")


def a_gateway_drains_and_its_nodes_join_the_next(pool):
    parts = pool.all_there()
    gateway, others = parts["G"], [part for name, part in parts.items() if name != "G"]
    expected = right_text(gateway, LONG)
    stream = gateway.stream(PROMPT, LONG)
    stream.read(2)
    gateway.process.send_signal(signal.SIGTERM)
    server.wait_until(lambda: health(gateway)["status"] == "draining", "ready says draining")
    status, body = gateway.complete(PROMPT, SHORT)
    assert status == 503 and "draining" in body["error"]["message"], (status, body)
    assert stream.read() == (expected, None)
    ends(gateway, 0, WITHIN_S)
    assert all(part.process.poll() is None for part in others), "a node went with its gateway"
    assert right_text(pool.all_there()["G"], LONG) == expected
    assert [pool.parts[part.name] for part in others] == others, "a node was started again"


def a_second_signal_ends_a_gateway_at_once(pool):
    gateway = pool.all_there()["G"]
    stream = gateway.stream(PROMPT, ENDLESS)
    stream.read(2)
    gateway.process.send_signal(signal.SIGINT)
    server.wait_until(lambda: health(gateway)["status"] == "draining", "ready says draining")
    gateway.process.send_signal(signal.SIGTERM)
    ends(gateway, 3, AT_ONCE_S)
    told_or_cut_off(stream)


def a_second_signal_ends_a_gateway_that_a_slow_reader_holds(pool):
    """Its requests are over; what they said is more than the kernel holds, and its client takes nothing."""
    gateway = pool.all_there()["G"]
    finished = gateway.metric("spillway_requests_finished_total")
    body = json.dumps({"prompt": [PROMPT * 60] * 4, "max_tokens": 1, "echo": True, "logprobs": 20}).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", gateway.port))
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                       b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        gateway.wait_metric("spillway_requests_finished_total", finished + 4, WITHIN_S)
        gateway.process.send_signal(signal.SIGTERM)
        gateway.wait_log('"drained"', WITHIN_S)
        gateway.process.send_signal(signal.SIGTERM)
        ends(gateway, 3, AT_ONCE_S)


def ends_at_once_with_its_request(pool, name):
    parts = pool.all_there(wedged=name)
    gateway, leaving = parts["G"], parts[name]
    streams = two_at_once(gateway, leaving)
    leaving.process.send_signal(signal.SIGTERM)
    is_left_out(gateway, name)
    leaving.process.send_signal(signal.SIGINT)
    ends(leaving, 3, AT_ONCE_S)
    errors = [error for _, error in (stream.read() for stream in streams) if error]
    assert len(errors) == 1, errors
    assert name in errors[0], errors
    assert [part.name for part in parts.values() if part.process.poll() is not None] == [name], "it was not alone"


def a_second_signal_ends_a_prefill_node_at_once(pool):
    ends_at_once_with_its_request(pool, "P0")


def a_second_signal_ends_a_decode_node_at_once(pool):
    ends_at_once_with_its_request(pool, "D0")


def unfinished(folder):
    return glob.glob(f"{folder}/packed/*.spillway-new.*")


def catches(process, number):
    """Whether it has a handler for that signal (proc(5))."""
    with open(f"/proc/{process.pid}/status") as status:
        (mask,) = (line.split()[1] for line in status if line.startswith("SigCgt:"))
    return int(mask, 16) >> (number - 1) & 1


def stopped(one, when, number):
    """Sends the signal once `when()`: it ends at once and well."""
    server.wait_until(when, "it is time for the signal", WITHIN_S)
    one.process.send_signal(number)
    ends(one, 0, AT_ONCE_S)


def a_node_that_loads_is_stopped(role, number, when):
    def test():
        with tempfile.TemporaryDirectory() as folder, \
                started(Part(folder, role, "one", [f"ipc://{folder}/gateway.sock"], "--isa", "scalar")) as one:
            stopped(one, lambda: when(one, folder), number)
            assert "told to stop while it loaded" in one.log_text()
            assert not unfinished(folder), "it left half-written weights behind"
            assert os.listdir(one.folder.name) == ["log"], os.listdir(one.folder.name)
    test.__name__ = f"a_{role}_node_that_{when.__name__}_is_stopped"
    return test


def packs(one, folder):
    return unfinished(folder) or computes_its_canary(one, folder)  # which is next, if it was quick


def computes_its_canary(one, folder):
    return "memory: packed weights" in one.log_text()


def a_gateway_that_loads_is_stopped():
    """It is quick: the signal may find it at work, where it ends as well."""
    for _ in range(10):
        with tempfile.TemporaryDirectory() as folder, \
                started(Part(folder, "gateway", "one", [f"ipc://{folder}/gateway.sock"])) as one:
            stopped(one, lambda: catches(one.process, signal.SIGTERM), signal.SIGTERM)
            assert not os.path.exists(f"{folder}/gateway.sock")
            if "told to stop while it loaded" in one.log_text():
                return
    raise AssertionError("the signal never found it loading")


def a_serve_is_stopped(when):
    def test():
        with tempfile.TemporaryDirectory() as folder:
            runtime = f"{folder}/runtime"
            os.mkdir(runtime)
            serve = server.Server(SPILLWAY, MODEL, "--cache-dir", f"{folder}/packed", "--isa", "scalar")
            with started(serve, XDG_RUNTIME_DIR=runtime) as one:
                stopped(one, lambda: when(one, folder), signal.SIGTERM)
                assert not os.listdir(runtime), "it left its run folder behind"
                assert not unfinished(folder), "it left half-written weights behind"
                assert "killed by signal" not in one.log_text(), one.log_text()
    test.__name__ = f"a_serve_that_{when.__name__}_is_stopped"
    return test


def packs_for_all(one, folder):
    return unfinished(folder) or "started gateway" in one.log_text()


def has_nodes_that_load(one, folder):
    return all(f"[{name}] memory: packed weights" in one.log_text() for name in ("prefill 0", "decode 0"))


def a_lost_reader_of_the_log_ends_nobody():
    one = server.Server(SPILLWAY, MODEL)
    reads, writes = os.pipe()
    one.log = os.fdopen(writes, "w")
    one.process = subprocess.Popen(one.command, stderr=one.log)
    one.log_path = os.devnull  # nobody has it
    try:
        one.wait_ready()
        os.close(reads)
        one.log.close()
        for _ in range(2):  # each is logged
            status, body = one.complete(PROMPT, SHORT)
            assert status == 200, body
        one.process.send_signal(signal.SIGTERM)
        ends(one, 0, WITHIN_S)
    finally:
        one.__exit__(*sys.exc_info())


def in_one_pool(*tests):
    """Each with the pool as its argument; it is started once."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    pool = stack.enter_context(Pool(folder))

    def bound(test):
        def run():
            test(pool)
        run.__name__ = test.__name__
        return run
    return [bound(test) for test in tests]


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        failed = server.run_tests(in_one_pool(
            a_prefill_node_drains, a_decode_node_drains, a_gateway_drains_and_its_nodes_join_the_next,
            a_second_signal_ends_a_gateway_at_once, a_second_signal_ends_a_gateway_that_a_slow_reader_holds,
            a_second_signal_ends_a_prefill_node_at_once,
            a_second_signal_ends_a_decode_node_at_once) + [
            a_node_that_loads_is_stopped("prefill", signal.SIGTERM, packs),
            a_node_that_loads_is_stopped("decode", signal.SIGINT, computes_its_canary),
            a_gateway_that_loads_is_stopped,
            a_serve_is_stopped(packs_for_all), a_serve_is_stopped(has_nodes_that_load),
            a_lost_reader_of_the_log_ends_nobody])
    sys.exit(failed)
