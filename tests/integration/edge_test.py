#!/usr/bin/env python3
"""The HTTP edge of a real server: exposure, TLS with a CA of the test, clients that vanish. Usage: edge_test.py SPILLWAY
MODEL CLIENT_PYTHON"""
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time

import server
from edge_clients import TlsServer, make_identity, memory_kib, open_files, openssl, read_all, with_reset

SPILLWAY, MODEL, CLIENT_PYTHON = sys.argv[1:4]
PLACES = 64 + 256 + 192 + 32  # --queue-max, requests that run, spare ones, those that may only ask for health

OPENAI = """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0,
                       http_client=openai.DefaultHttpxClient(verify=sys.argv[2]))
text = "".join(chunk.choices[0].text for chunk in client.completions.create(
    model=client.models.list().data[0].id, prompt="A", max_tokens=4, temperature=0, stream=True,
    extra_body={"ignore_eos": True}) if chunk.choices)
print(bool(text))
"""


def refusal(*flags):
    """What serve says when it does not start."""
    done = subprocess.run([SPILLWAY, "serve", "-m", MODEL, "--port", "0", *flags], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 2, (done.returncode, done.stderr[-500:])
    return done.stderr


def exposure_and_bad_files_are_refused_by_name():
    said = refusal("--host", "0.0.0.0")
    for word in ("--api-key-file", "--tls-cert", "--insecure", "127.0.0.1"):
        assert word in said, said
    with tempfile.TemporaryDirectory() as folder:
        make_identity(folder)
        path = lambda name: os.path.join(folder, name)
        pair = ("--tls-cert", path("cert.pem"), "--tls-key", path("key.pem"))
        assert "--api-key-file" in refusal("--host", "0.0.0.0", *pair)
        assert "without --tls-key" in refusal("--tls-cert", path("cert.pem"))
        os.chmod(path("ca.key"), 0o600)
        assert "does not belong" in refusal("--tls-cert", path("cert.pem"), "--tls-key", path("ca.key"))
        assert "cannot be used" in refusal("--tls-cert", path("san"), "--tls-key", path("key.pem"))
        openssl(folder, "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-out", "old.pem",
                "-days", "-1")
        assert "has expired" in refusal("--tls-cert", path("old.pem"), "--tls-key", path("key.pem"))
        openssl(folder, "ec", "-in", "key.pem", "-aes256", "-passout", "pass:word", "-out", "locked.pem")
        os.chmod(path("locked.pem"), 0o600)
        assert "passphrase" in refusal("--tls-cert", path("cert.pem"), "--tls-key", path("locked.pem"))
        os.chmod(path("key.pem"), 0o644)
        assert "chmod 600" in refusal(*pair)


def tls_serves_clients_and_survives_the_others():
    with tempfile.TemporaryDirectory() as folder:
        make_identity(folder)
        with TlsServer(SPILLWAY, MODEL, folder) as one:
            ca = os.path.join(folder, "ca.pem")
            url = f"https://127.0.0.1:{one.port}"
            body = json.dumps({"prompt": "A" * 3000, "max_tokens": 2})
            for version in ("--tlsv1.2", "--tlsv1.3"):
                done = subprocess.run(
                    ["curl", "-sS", version, "--cacert", ca, "-H", "Content-Type: application/json", "-H",
                     "Expect: 100-continue", "-d", body, url + "/v1/completions", "-w", "\n%{http_code}"],
                    capture_output=True, text=True, timeout=120)
                assert done.stdout.endswith("\n200"), (done.stdout, done.stderr)
            old = subprocess.run(["curl", "-sS", "--tls-max", "1.1", "--cacert", ca, url], capture_output=True,
                                 timeout=60)
            assert old.returncode == 35, old
            done = subprocess.run([CLIENT_PYTHON, "-c", OPENAI, url + "/v1", ca], capture_output=True, text=True,
                                  timeout=120)
            assert done.stdout == "True\n", done.stderr[-500:]
            context = ssl.create_default_context(cafile=ca)
            context.set_alpn_protocols(["h2", "http/1.1"])
            with socket.create_connection(("127.0.0.1", one.port), timeout=60) as raw, \
                    context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
                assert tls.selected_alpn_protocol() == "http/1.1"
                get = b"GET /version HTTP/1.1\r\nHost: t\r\n"
                tls.sendall(get + b"\r\n" + get + b"Connection: close\r\n\r\n")  # pipelined
                assert read_all(tls).count(b"HTTP/1.1 200") == 2  # raises where close_notify is lacking

            with socket.create_connection(("127.0.0.1", one.port), timeout=60) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
                plain.shutdown(socket.SHUT_WR)
                answer = read_all(plain)
                assert answer.startswith(b"HTTP/1.1 400") and b"https://" in answer, answer
            with socket.create_connection(("127.0.0.1", one.port), timeout=60) as garbage:
                garbage.sendall(os.urandom(300))
                garbage.shutdown(socket.SHUT_WR)
                with_reset(lambda: read_all(garbage))
            half = [socket.create_connection(("127.0.0.1", one.port), timeout=60) for _ in range(50)]
            for sock in half:
                sock.sendall(bytes.fromhex("16030100c8010000c40303"))
            assert one.complete("A", 2)[0] == 200, "half handshakes hold up others"
            assert one.metric("spillway_tls_handshake_failures_total") >= 3
            for sock in half:
                sock.close()
            one.wait_all_blocks_free()


def slow_and_vanishing_clients_hold_nothing():
    with open_files(4096), server.Server(SPILLWAY, MODEL) as one:
        pid = one.pid("gateway")
        before = memory_kib(pid)
        drips = [socket.create_connection(("127.0.0.1", one.port), timeout=60) for _ in range(PLACES + 60)]
        for byte in b"POST ":
            for sock in drips:
                with contextlib.suppress(OSError):  # some have made room
                    sock.sendall(bytes([byte]))
        begin = time.monotonic()
        assert one.get("/health/live")[0] == 200
        while (status := one.complete("A", 2)[0]) == 503 and time.monotonic() - begin < 4:
            continue  # the drips' places are kept for a second
        assert status == 200, f"drips hold up others: {status}"
        took = time.monotonic() - begin
        assert took < 4, f"beside {len(drips)} drips it took {took:.1f} s"
        for sock in drips:
            sock.close()
        idle = [socket.create_connection(("127.0.0.1", one.port), timeout=60) for _ in range(2000)]
        assert one.complete("A", 2)[0] == 200, "silent connections hold up others"
        assert len(os.listdir(f"/proc/{pid}/fd")) < 1100
        claims = (b"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                  b"Content-Length: 8000000\r\n\r\n{")
        for sock in idle:
            sock.close()
        claimed = [socket.create_connection(("127.0.0.1", one.port), timeout=60) for _ in range(200)]
        for sock in claimed:
            sock.sendall(claims)
        assert one.complete("A", 2)[0] == 200
        grown = memory_kib(pid) - before
        assert grown < 64 << 10, f"the gateway grew by {grown} KiB"
        for sock in claimed:
            sock.close()
        one.wait_all_blocks_free()


if __name__ == "__main__":
    sys.exit(server.run_tests([exposure_and_bad_files_are_refused_by_name, tls_serves_clients_and_survives_the_others,
                               slow_and_vanishing_clients_hold_nothing]))
