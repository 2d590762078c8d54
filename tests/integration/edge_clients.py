"""What the tests of the HTTP edge share: a TLS server with a CA of its own, and clients that speak bytes, not HTTP."""
import contextlib
import http.client
import json
import os
import re
import resource
import socket
import ssl
import struct
import subprocess

import server

CLIENT_WAITS_S = 60
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


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


def write_key_file(folder, *keys):
    path = os.path.join(folder, "keys")
    with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        file.write("\n".join(keys) + "\n")
    return path


class PlainServer(server.Server):
    def dial(self, receive_bytes=0):
        """A socket to it. receive_bytes: of the kernel's buffer, so that little is taken unread."""
        sock = socket.socket()
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.settimeout(CLIENT_WAITS_S)
        sock.connect(("127.0.0.1", self.port))
        return sock


class TlsServer(PlainServer):
    """`folder`: where make_identity() was."""

    def __init__(self, spillway, model, folder, *flags):
        super().__init__(spillway, model, "--tls-cert", os.path.join(folder, "cert.pem"), "--tls-key",
                         os.path.join(folder, "key.pem"), *flags)
        self.context = ssl.create_default_context(cafile=os.path.join(folder, "ca.pem"))

    def connection(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=server.ANSWER_WITHIN_S, context=self.context)

    def dial_tcp(self):
        return super().dial()

    def dial(self, receive_bytes=0):
        return self.context.wrap_socket(super().dial(receive_bytes), server_hostname="127.0.0.1")


class TlsBytes:
    """TLS over a socket step by step, for what ssl's own socket hides: close_notify alone, records that are none."""

    def __init__(self, one):
        self.sock, self.into, self.out = one.dial_tcp(), ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = one.context.wrap_bio(self.into, self.out, server_hostname="127.0.0.1")
        self.step(self.tls.do_handshake)

    def step(self, call, *arguments):
        while True:
            try:
                return call(*arguments)
            except ssl.SSLWantReadError:
                self.flush()
                if piece := self.sock.recv(65536):
                    self.into.write(piece)
                else:
                    self.into.write_eof()
            finally:
                self.flush()

    def flush(self):
        if waiting := self.out.read():
            self.sock.sendall(waiting)

    def send(self, data):
        self.step(self.tls.write, data)

    def read(self):
        return self.step(self.tls.read, 65536)

    def say_close_notify(self):
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLError):
            self.tls.unwrap()  # ours is written first; theirs comes when it comes
        self.flush()

    def read_all(self):
        """All that comes until its close_notify."""
        got = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while piece := self.read():
                got += piece
        return got


def read_all(sock):
    got = b""
    while piece := sock.recv(65536):
        got += piece
    return got


def with_reset(read):
    try:
        return read()
    except ConnectionResetError:
        return b""


def reset(sock):
    """Leaves with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    if isinstance(sock, ssl.SSLSocket):
        sock = socket.socket(fileno=sock.detach())
    sock.close()


def post_head(path, headers="", version="1.1"):
    return (f"POST {path} HTTP/{version}\r\nHost: t\r\nContent-Type: application/json\r\n{headers}\r\n").encode()


def post(path, body, headers=""):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return post_head(path, f"Content-Length: {len(data)}\r\n{headers}") + data


def stream_request(max_tokens, **fields):
    return post("/v1/completions", {"prompt": "A", "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True,
                                    "stream": True, **fields})


def statuses(answer):
    """Of all the answers in these bytes."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


def memory_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def wait_nothing_left(one, within=20):
    """No request, no connection but the one that asks, no block."""
    one.wait_all_blocks_free(within)
    one.wait_metric("spillway_requests_queued", 0, within)
    one.wait_metric("spillway_http_connections", 1, within)


@contextlib.contextmanager
def open_files(count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
