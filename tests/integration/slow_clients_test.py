#!/usr/bin/env python3
"""Clients that send or read too slowly, all at once: each ends at its limit and costs the others nothing. Usage:
slow_clients_test.py SPILLWAY MODEL"""
import contextlib
import select
import sys
import tempfile
import threading
import time

import server
from edge_clients import (PlainServer, TlsServer, make_identity, memory_kib, post_head, statuses, stream_request,
                          wait_nothing_left, with_reset)

SPILLWAY, MODEL = sys.argv[1:3]
LIMIT_S = 30  # request_timeout and write_timeout of gateway/http_server.h
HEADER_LIMIT_S = 10
LATE_S = 5
BUFFERED_KIB_MAX = 12 << 10  # of one reader that does not read: 1024 tokens of 2 KiB, and what growing strings waste


def seconds_until_end(sock, drip=None):
    """(what came, seconds until the server closed). `drip`: sent every half second meanwhile, as long as it is taken."""
    start, got = time.monotonic(), b""
    while time.monotonic() - start < LIMIT_S + 2 * LATE_S:
        if select.select([sock], [], [], 0.5)[0]:
            piece = with_reset(lambda: sock.recv(65536))
            if not piece:
                return got, time.monotonic() - start
            got += piece
        elif drip:
            with contextlib.suppress(OSError):
                sock.sendall(drip)
    raise AssertionError(f"still open after {time.monotonic() - start:.0f} s, and it said {got[-200:]}")


class Together:
    """Checks that run at the same time, each in its thread."""

    def __init__(self):
        self.threads, self.failures = [], []

    def start(self, check, *arguments):
        def run():
            try:
                check(*arguments)
            except BaseException as error:  # noqa: BLE001 - a check may fail in any way
                self.failures.append(f"{check.__name__}: {type(error).__name__}: {error}")
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def join(self):
        for thread in self.threads:
            thread.join(LIMIT_S + 4 * LATE_S)
        assert not any(thread.is_alive() for thread in self.threads), "a check hangs"
        assert not self.failures, self.failures


def slow_sender_is_told(one, what, head, drip):
    limit = HEADER_LIMIT_S if what == "header" else LIMIT_S
    with one.dial() as sock:
        sock.sendall(head)
        got, after = seconds_until_end(sock, drip)
        assert statuses(got) == [408] and f"the {what} was not complete".encode() in got, (what, got)
        assert limit - 1 < after < limit + LATE_S, (what, after)


def endless_handshake_is_closed(one, first):
    with one.dial_tcp() as sock:
        sock.sendall(first)
        got, after = seconds_until_end(sock)
        assert LIMIT_S - 1 < after < LIMIT_S + LATE_S and b"HTTP" not in got, (first, got, after)


def slow_reader_is_ended(one, reads):
    """Its answer has fewer tokens than it may fall behind, so the time is its limit. `reads`: a byte a second, else none."""
    with one.dial(receive_bytes=4096) as sock:
        sock.sendall(stream_request(900, logprobs=20))
        start, poll = time.monotonic(), select.poll()
        poll.register(sock, select.POLLRDHUP)
        while not poll.poll(1000):  # the server has reset it, though bytes of it wait unread
            assert time.monotonic() - start < LIMIT_S + 2 * LATE_S, f"still open, reads={reads}"
            if reads:
                sock.recv(1)
        after = time.monotonic() - start
        assert after > LIMIT_S - 1, after
        assert b"[DONE]" not in what_came(sock), "it looks whole"


def what_came(sock):
    """Until the reset."""
    got = b""
    with contextlib.suppress(OSError):
        while piece := sock.recv(65536):
            got += piece
    return got


def pace(one):
    """Seconds for 300 tokens of a client that reads."""
    start = time.monotonic()
    assert one.stream("B", 300).read()[1] is None
    return time.monotonic() - start


def readers_that_do_not_read_are_cancelled_and_cost_others_nothing(one):
    pid = one.pid("gateway")
    before = memory_kib(pid)
    reading = [one.stream("A", 1000, logprobs=20) for _ in range(4)]
    taking = [threading.Thread(target=stream.read) for stream in reading]
    for thread in taking:
        thread.start()
    usual = pace(one)
    for thread in taking:
        thread.join(60)
    stuck = [one.dial(receive_bytes=4096) for _ in range(4)]
    for sock in stuck:
        sock.sendall(stream_request(2000, logprobs=20))
    meanwhile = pace(one)
    # The log, not the counter of cancelled ones: so small a model may have made the last token before this is noticed.
    server.wait_until(lambda: one.log_text().count('why="the client reads too slowly"') == len(stuck),
                      "those that do not read are cut off", 20)
    grown = memory_kib(pid) - before
    one.wait_all_blocks_free(5)
    for sock in stuck:
        sock.close()
    print(f"        300 tokens beside 4 readers: {usual:.2f} s; beside 4 that do not read: {meanwhile:.2f} s; "
          f"{grown / len(stuck):.0f} KiB each")
    assert meanwhile < 3 * usual + 1, (usual, meanwhile)
    assert grown < len(stuck) * BUFFERED_KIB_MAX, f"{grown} KiB"


def slow_clients_end_at_their_limit_and_cost_the_others_nothing():
    with tempfile.TemporaryDirectory() as folder:
        make_identity(folder)
        with PlainServer(SPILLWAY, MODEL) as plain, TlsServer(SPILLWAY, MODEL, folder) as tls:
            checks = Together()
            for one in (plain, tls):
                checks.start(slow_sender_is_told, one, "header", b"POST /v1/completions HTTP/1.1\r\nX-Slow: ", b"a")
                checks.start(slow_sender_is_told, one, "body", post_head("/v1/completions", "Content-Length: 900\r\n"),
                             b" ")
                checks.start(slow_sender_is_told, one, "body",
                             post_head("/v1/completions", "Transfer-Encoding: chunked\r\n"), b"1\r\n \r\n")
                for reads in (False, True):
                    checks.start(slow_reader_is_ended, one, reads)
            for first in (b"", b"\x16", bytes.fromhex("16030100c8010000c40303"), b"GE"):
                checks.start(endless_handshake_is_closed, tls, first)
            readers_that_do_not_read_are_cancelled_and_cost_others_nothing(plain)
            readers_that_do_not_read_are_cancelled_and_cost_others_nothing(tls)
            checks.join()
            for one in (plain, tls):
                wait_nothing_left(one)
                assert one.complete("A", 2)[0] == 200


if __name__ == "__main__":
    sys.exit(server.run_tests([slow_clients_end_at_their_limit_and_cost_the_others_nothing]))
