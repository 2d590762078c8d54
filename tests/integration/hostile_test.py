#!/usr/bin/env python3
"""Clients that break HTTP, TLS or off, against real servers, plain and over TLS. Usage: hostile_test.py SPILLWAY MODEL"""
import json
import os
import socket
import subprocess
import sys
import tempfile
import time

import server
from edge_clients import (PlainServer, TlsBytes, TlsServer, make_identity, post, post_head, read_all, reset, statuses,
                          stream_request, wait_nothing_left, with_reset, write_key_file)

SPILLWAY, MODEL = sys.argv[1:3]
BODY = b'{"prompt":"a"}'
CHUNK = b"e\r\n" + BODY + b"\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
LAST = b"GET /version HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"


def on(one, test):
    """The test on that server, which must serve on and be empty after it."""
    def run():
        test(one)
        assert one.complete("A", 2)[0] == 200
        wait_nothing_left(one)
    run.__name__ = f"{test.__name__}__{'tls' if isinstance(one, TlsServer) else 'plain'}"
    return run


def say(one, *pieces):
    """All that the server answers to these bytes until it closes."""
    with one.dial() as sock:
        for piece in pieces:
            sock.sendall(piece)
        return read_all(sock)


GOOD_CHUNKS = {
    "trailers": CHUNK + b"0\r\nX-Digest: 1\r\nX-More: 2\r\n\r\n",
    "extensions": b'e;a=b;c="d;e"\r\n' + BODY + b"\r\n0;last\r\n\r\n",
    "capital digits": b"000E\r\n" + BODY + b"\r\n0000\r\n\r\n",
    "a byte a chunk": b"".join(b"1\r\n" + BODY[at:at + 1] + b"\r\n" for at in range(len(BODY))) + b"0\r\n\r\n",
}
BAD_CHUNKS = {
    "no number": b"zz\r\n",
    "negative": b"-1\r\n",
    "prefix": b"0xe\r\n" + BODY + b"\r\n0\r\n\r\n",
    "overflow": b"1000000000000000e\r\n" + BODY + b"\r\n0\r\n\r\n",
    "longer than told": b"d\r\n" + BODY + b"\r\n0\r\n\r\n",
    "bare LF": b"e\n" + BODY + b"\n0\n\n",
    "bare LF in an extension": b"e;a\n" + BODY + b"\r\n0\r\n\r\n",
    "bad trailer": CHUNK + b"0\r\nno colon\r\n\r\n",
}


def chunked_bodies_are_read_to_their_end_and_bad_ones_end_the_connection(one):
    head = post_head("/tokenize", CHUNKED)
    for name, chunks in GOOD_CHUNKS.items():
        assert statuses(say(one, head + chunks + LAST)) == [200, 200], name
    for name, chunks in BAD_CHUNKS.items():
        answer = say(one, head + chunks + LAST)
        assert statuses(answer) == [400] and b"malformed_http" in answer, (name, answer)
    megabyte = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    assert statuses(say(one, head + megabyte * 9 + b"0\r\n\r\n" + LAST)) == [413]
    assert statuses(say(one, head + b"ffffffffffffffff\r\n")) == [413]
    for cut in (b"", b"e\r\n", CHUNK[:9], CHUNK, CHUNK + b"0\r\n"):
        with one.dial() as sock:
            sock.sendall(head + cut)
            reset(sock)


FRAMINGS = {
    "length and chunks": (f"Content-Length: 14\r\n{CHUNKED}", CHUNK + b"0\r\n\r\n"),
    "chunks and length": (f"{CHUNKED}Content-Length: 14\r\n", CHUNK + b"0\r\n\r\n"),
    "two lengths": ("Content-Length: 14\r\nContent-Length: 15\r\n", BODY),
    "equal lengths": ("Content-Length: 14\r\nContent-Length: 14\r\n", BODY),
    "list of lengths": ("Content-Length: 14, 14\r\n", BODY),
    "signed length": ("Content-Length: +14\r\n", BODY),
    "unknown coding": ("Transfer-Encoding: gzip\r\n", b""),
    "unknown coding and length": ("Transfer-Encoding: gzip\r\nContent-Length: 14\r\n", BODY),
    "coding spelled badly": ("Transfer-Encoding: xchunked\r\n", CHUNK + b"0\r\n\r\n"),
    "chunked is not last": ("Transfer-Encoding: chunked, identity\r\n", CHUNK + b"0\r\n\r\n"),
    "two codings": (f"Transfer-Encoding: identity\r\n{CHUNKED}", CHUNK + b"0\r\n\r\n"),
    "space before the colon": ("Transfer-Encoding : chunked\r\n", CHUNK + b"0\r\n\r\n"),
    "bare LF": ("X: a\nContent-Length: 14\r\n", BODY),
    "two hosts": ("Host: u\r\nContent-Length: 14\r\n", BODY),
}


def no_second_request_is_smuggled_in_a_doubtful_body(one):
    for name, (headers, body) in FRAMINGS.items():
        answer = say(one, post_head("/tokenize", headers) + body + LAST)
        assert statuses(answer) == [400] and b"Connection: close" in answer, (name, answer)
    old = post_head("/tokenize", f"{CHUNKED}Connection: keep-alive\r\n", "1.0") + CHUNK + b"0\r\n\r\n" + LAST
    assert statuses(say(one, old)) == [400]
    assert statuses(say(one, LAST.replace(b"Host: t\r\n", b""))) == [400]


def pipelines_old_http_and_expectations_are_served(one):
    ask = post("/v1/completions", {"prompt": "A", "max_tokens": 2})
    assert statuses(say(one, post("/tokenize", BODY) * 3 + ask * 2 + LAST)) == [200] * 6
    for size in (1, 7):  # however the bytes are cut
        whole = post("/tokenize", BODY) + LAST
        assert statuses(say(one, *(whole[at:at + size] for at in range(0, len(whole), size)))) == [200, 200]
    answer = say(one, stream_request(3).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert statuses(answer) == [200] and b"chunked" not in answer and answer.endswith(b"data: [DONE]\n\n"), answer
    with one.dial() as sock:
        sock.sendall(post_head("/tokenize", "Content-Length: 14\r\nExpect: 100-continue\r\nConnection: close\r\n"))
        interim = sock.recv(65536)
        assert interim == b"HTTP/1.1 100 Continue\r\n\r\n", interim
        sock.sendall(BODY)
        assert statuses(read_all(sock)) == [200]
    for headers, status in (("Content-Length: 99999999\r\n", 413), (f"Content-Length: 14\r\n{CHUNKED}", 400)):
        assert statuses(say(one, post_head("/tokenize", headers + "Expect: 100-continue\r\n"))) == [status]
    old = post_head("/tokenize", "Content-Length: 14\r\nExpect: 100-continue\r\n", "1.0") + BODY
    assert statuses(say(one, old)) == [200]


def a_reset_in_the_stream_gives_its_blocks_back_at_once(one):
    for round in range(5):
        before = one.metric("spillway_requests_cancelled_total")
        sock = one.dial()
        sock.sendall(stream_request(2000))
        assert statuses(sock.recv(65536)) == [200]
        reset(sock)
        one.wait_metric("spillway_requests_cancelled_total", before + 1, 2)
        one.wait_all_blocks_free(2)


def client_hello(version):
    """Of a client that knows this version only (0x0301: TLS 1.0), with ciphers that OpenSSL has for it."""
    hello = version.to_bytes(2, "big") + os.urandom(32) + b"\0" + bytes.fromhex("0008c013c014002f0035") + b"\1\0"
    message = b"\1" + len(hello).to_bytes(3, "big") + hello
    return b"\x16\3\1" + len(message).to_bytes(2, "big") + message


def tls_faults_end_their_own_connection_only(one):
    kept = one.stream("A", 1500)
    kept.read(2)
    for version in (0x0300, 0x0301, 0x0302):
        with one.dial_tcp() as sock:
            sock.sendall(client_hello(version))
            answer = with_reset(lambda: read_all(sock))
            assert answer[:1] == b"\x15" and answer[5:7] in (b"\2\x46", b"\2\x28"), (
                hex(version), answer)  # an alert: fatal, protocol_version or handshake_failure
    failures = one.metric("spillway_tls_handshake_failures_total")
    assert failures >= 3
    hello = client_hello(0x0303)
    for cut in (0, 1, 5, 40, len(hello)):
        sock = one.dial_tcp()
        sock.sendall(hello[:cut])
        reset(sock)
    for junk in (b"\0" * 300, b"\x16\3\1\xff\xff" + os.urandom(400), b"SSH-2.0-OpenSSH_9.2\r\n" * 20,
                 post("/v1/completions", {"prompt": "A" * 5000})):
        with one.dial_tcp() as sock:
            sock.sendall(junk)
            answer = with_reset(lambda: read_all(sock))  # it closes; that is what is tested
            assert b" 200 " not in answer and (b"tls_required" in answer) == junk.startswith(b"POST"), answer
    broken, cancelled = TlsBytes(one), one.metric("spillway_requests_cancelled_total")
    broken.send(stream_request(2000))
    broken.read()
    broken.sock.sendall(b"\x17\3\3\0\x20" + os.urandom(32))  # a record that was never encrypted
    with_reset(lambda: read_all(broken.sock))
    one.wait_metric("spillway_requests_cancelled_total", cancelled + 1)
    assert one.metric("spillway_tls_handshake_failures_total") > failures
    assert not kept.ended and kept.read()[1] is None, "the stream beside them broke"
    broken.sock.close()
    kept.leave()


def a_client_that_ends_its_sending_gets_what_it_asked_for(one):
    """... where that is a page. With a completion under way it means that the client left: those that go look the same."""
    for end in (TlsBytes.say_close_notify, lambda tls: tls.sock.shutdown(socket.SHUT_WR)):
        client = TlsBytes(one)
        client.send(LAST)
        end(client)
        assert statuses(client.read_all()) == [200]
        client.sock.close()
        before = one.metric("spillway_requests_cancelled_total")
        client = TlsBytes(one)
        client.send(stream_request(2000))
        client.read()
        end(client)
        one.wait_metric("spillway_requests_cancelled_total", before + 1, 5)
        try:
            client.read_all()
        except OSError:  # ssl.SSLError is one
            pass  # cut without close_notify, for an answer that is not whole must not look so
        client.sock.close()


def a_host_that_others_reach_needs_keys_and_tls_or_insecure():
    with tempfile.TemporaryDirectory() as folder:
        make_identity(folder)
        keys = ("--host", "0.0.0.0", "--api-key-file", write_key_file(folder, "first-key-of-the-test"))
        refused = subprocess.run([SPILLWAY, "serve", "-m", MODEL, "--port", "0", *keys], capture_output=True, text=True,
                                 timeout=60)
        assert refused.returncode == 2 and "--insecure" in refused.stderr and "--tls-cert" in refused.stderr, refused

        def serves(one):
            one.key = "first-key-of-the-test"
            assert one.complete("A", 2)[0] == 200
            one.key = None
            assert one.complete("A", 2)[0] == 401
        with PlainServer(SPILLWAY, MODEL, *keys, "--insecure") as one:
            serves(one)
            assert "open_to_the_network" in one.log_text()
            one.key = "first-key-of-the-test"
            wait_nothing_left(one)
        with TlsServer(SPILLWAY, MODEL, folder, *keys) as one:
            serves(one)
            assert "open_to_the_network" not in one.log_text()


def main():
    both = (chunked_bodies_are_read_to_their_end_and_bad_ones_end_the_connection,
            no_second_request_is_smuggled_in_a_doubtful_body, pipelines_old_http_and_expectations_are_served,
            a_reset_in_the_stream_gives_its_blocks_back_at_once)
    over_tls = (tls_faults_end_their_own_connection_only, a_client_that_ends_its_sending_gets_what_it_asked_for)
    with tempfile.TemporaryDirectory() as folder:
        make_identity(folder)
        with PlainServer(SPILLWAY, MODEL) as plain, TlsServer(SPILLWAY, MODEL, folder) as tls:
            return server.run_tests([on(one, test) for test in both for one in (plain, tls)] +
                                    [on(tls, test) for test in over_tls] +
                                    [a_host_that_others_reach_needs_keys_and_tls_or_insecure])


if __name__ == "__main__":
    sys.exit(main())
