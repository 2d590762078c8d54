#!/usr/bin/env python3
"""The HTTP edge of a real server: exposure, TLS with a CA of the test, hostile clients, overload. Usage: edge_test.py
SPILLWAY MODEL CLIENT_PYTHON"""
import json
import os
import resource
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

import server

SPILLWAY, MODEL, CLIENT_PYTHON = sys.argv[1:4]

OPENAI = """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0,
                       http_client=openai.DefaultHttpxClient(verify=sys.argv[2]))
text = "".join(chunk.choices[0].text for chunk in client.completions.create(
    model=client.models.list().data[0].id, prompt="A", max_tokens=4, temperature=0, stream=True,
    extra_body={"ignore_eos": True}) if chunk.choices)
print(bool(text))
"""


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_identity(folder):
    """A CA, and a certificate of it for 127.0.0.1."""
    openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
            "ca.key", "-out", "ca.pem", "-subj", "/CN=test ca", "-days", "2")
    openssl(folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem",
            "-out", "request.pem", "-subj", "/CN=localhost")
    with open(os.path.join(folder, "san"), "w") as san:
        san.write("subjectAltName=IP:127.0.0.1\n")
    openssl(folder, "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", "cert.pem", "-days", "2", "-extfile", "san")
    os.chmod(os.path.join(folder, "key.pem"), 0o600)


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


class TlsServer(server.Server):
    def __init__(self, folder, *flags):
        super().__init__(SPILLWAY, MODEL, "--tls-cert", os.path.join(folder, "cert.pem"), "--tls-key",
                         os.path.join(folder, "key.pem"), *flags)
        self.context = ssl.create_default_context(cafile=os.path.join(folder, "ca.pem"))

    def connection(self):
        import http.client
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=server.ANSWER_WITHIN_S, context=self.context)


def read_all(sock):
    got = b""
    while piece := sock.recv(65536):
        got += piece
    return got


def tls_serves_clients_and_survives_the_others():
    with tempfile.TemporaryDirectory() as folder:
        make_identity(folder)
        with TlsServer(folder) as one:
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


def with_reset(read):
    try:
        return read()
    except ConnectionResetError:
        return b""


def memory_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def slow_and_vanishing_clients_hold_nothing():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with server.Server(SPILLWAY, MODEL) as one:
        pid = one.pid("gateway")
        before = memory_kib(pid)
        drips = [socket.create_connection(("127.0.0.1", one.port), timeout=60) for _ in range(200)]
        for byte in b"POST /v1/completions":
            for sock in drips:
                sock.sendall(bytes([byte]))
        assert one.complete("A", 2)[0] == 200, "drips hold up others"
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
        stream = one.stream("A", 1000)
        stream.read(2)
        sock = stream.connection.sock or stream.response.fp.raw._sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.leave()  # a reset
        one.wait_metric("spillway_requests_cancelled_total", 1)
        one.wait_all_blocks_free()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ten_times_overload_is_refused_honestly():
    """One place and a queue of four; 50 clients come one after the other, each asks once."""
    with server.Server(SPILLWAY, MODEL, "--max-sequences", "1", "--queue-max", "4") as one:
        before = memory_kib(one.pid("gateway"))
        outcomes, clients = [None] * 50, []

        def ask(index, connection):
            response = connection.getresponse()
            first = None
            if response.status == 200:
                first = (response.readline(), time.monotonic())[1]
            rest = response.read()
            outcomes[index] = (response.status, first, response.getheader("Retry-After"), rest)

        for index in range(len(outcomes)):
            connection = one.connection()
            connection.request("POST", "/v1/completions",
                               json.dumps({"prompt": f"{index} words " * 20, "max_tokens": 300, "stream": True,
                                           "ignore_eos": True}), one.headers())
            server.wait_until(lambda: one.metric("spillway_requests_total") >= index + 1, "it arrived", 60)
            clients.append(threading.Thread(target=ask, args=(index, connection)))
            clients[-1].start()
        for client in clients:
            client.join(120)
        assert None not in outcomes, "a request hangs"
        served = [outcome for outcome in outcomes if outcome[0] == 200]
        refused = [outcome for outcome in outcomes if outcome[0] == 429]
        assert len(served) + len(refused) == 50 and len(served) >= 5 and refused, [outcome[0] for outcome in outcomes]
        assert all(b"[DONE]" in rest for *_, rest in served), "an admitted request did not finish"
        firsts = [first for _, first, *_ in served]
        assert firsts == sorted(firsts), "admitted requests lost their order"
        assert all(1 <= int(after) <= 60 for _, _, after, _ in refused)
        assert memory_kib(one.pid("gateway")) - before < 32 << 10
        one.wait_all_blocks_free()


if __name__ == "__main__":
    sys.exit(server.run_tests([exposure_and_bad_files_are_refused_by_name, tls_serves_clients_and_survives_the_others,
                               slow_and_vanishing_clients_hold_nothing, ten_times_overload_is_refused_honestly]))
