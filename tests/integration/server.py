"""A `spillway serve` of this build for the integration tests, and the few HTTP calls they need (standard library only)."""
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

# Nobody's own cache folder: ctest names one for all tests, a script run by hand gets one that goes with it.
if "XDG_CACHE_HOME" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="spillway-cache-")
    os.environ["XDG_CACHE_HOME"] = CACHE.name

READY_WITHIN_S = 60
ANSWER_WITHIN_S = 300


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """Use as a context manager. stderr goes to a file that is printed when the body fails."""

    def __init__(self, spillway, model, *flags):
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory()
        self.key = None  # shown in each request
        self.log_path = os.path.join(self.folder.name, "log")
        self.command = [spillway, "serve", "-m", model, "--port", str(self.port), "--secret-file",
                        os.path.join(self.folder.name, "secret"), *flags]
        # Tests read its log as people do: what JSON lines hold is for observe_test.py.
        for flag, value in (("--max-model-len", "2048"), ("--device-memory", "256MiB"), ("--drain-timeout", "5"),
                            ("--log-format", "text")):
            if flag not in flags:
                self.command += [flag, value]

    def __enter__(self):
        self.log = open(self.log_path, "w")
        self.process = subprocess.Popen(self.command, stderr=self.log)
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError("serve did not stop within 15 s of SIGTERM")
        self.log.close()
        if kind is not None:
            print(open(self.log_path).read()[-6000:], file=sys.stderr)
        self.folder.cleanup()

    def wait_ready(self, within=READY_WITHIN_S):
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"serve exited with {self.process.returncode}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get("/health/ready")[0] == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"not ready within {within} s")

    def wait_log(self, text, within=5):
        wait_until(lambda: text in self.log_text(), f"the log says: {text}", within)

    def logged_at(self, text, within=5, after=""):
        """When the log said so, after it said `after`, in seconds of time.time()."""
        def line_said():
            lines = iter(self.log_text().splitlines())
            if after:
                any(after in line for line in lines)
            return next((line for line in lines if text in line), None)
        wait_until(line_said, f"the log says: {text}", within)
        line = line_said()
        clock = time.strptime(line.split(".")[0], "%H:%M:%S")
        now = time.time()
        today = time.localtime(now)
        said = time.mktime((*today[:3], *clock[3:6], *today[6:])) + float("0." + line.split(".")[1][:3])
        return said if said <= now + 1 else said - 86400  # yesterday's last second

    def log_text(self):
        with open(self.log_path) as log:
            return log.read()

    def pid(self, child):
        """Of the process that runs as e.g. "prefill 0" now."""
        return int(re.findall(rf"started {child} pid=(\d+)", self.log_text())[-1])

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_WITHIN_S)

    def headers(self):
        shown = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return {"Content-Type": "application/json", **shown}

    def get(self, path):
        connection = self.connection()
        try:
            connection.request("GET", path, headers=self.headers())
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def post(self, path, body):
        """(status, parsed body) of a JSON request."""
        connection = self.connection()
        try:
            payload = body if isinstance(body, (bytes, str)) else json.dumps(body)
            connection.request("POST", path, payload, self.headers())
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        finally:
            connection.close()

    def complete(self, prompt, max_tokens=8, **fields):
        return self.post("/v1/completions", {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0,
                                             "ignore_eos": True, **fields})

    def stream(self, prompt, max_tokens, **fields):
        return Stream(self, {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True,
                             "stream": True, **fields})

    def wait_metric(self, name, value, within=10):
        wait_until(lambda: self.metric(name) == value, f"{name} is {value}", within)

    def metric(self, name):
        """Sum over the samples of one metric."""
        text = self.get("/metrics")[1]
        values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)
        if not values:
            raise AssertionError(f"/metrics has no {name}")
        return sum(float(value) for value in values)

    def wait_all_blocks_free(self, within=10):
        """Cached blocks count as free: they can be taken."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            free, total = self.metric("spillway_kv_blocks_free"), self.metric("spillway_kv_blocks")
            if free == total > 0 and self.metric("spillway_requests_running") == 0:
                return
            time.sleep(0.1)
        raise AssertionError(f"blocks leaked: {free:.0f} of {total:.0f} free")


class Stream:
    """A streamed completion: sent at once, read when asked."""

    def __init__(self, server, body):
        self.connection = server.connection()
        self.connection.request("POST", "/v1/completions", json.dumps(body), server.headers())
        self.response, self.text, self.error, self.ended = None, "", None, False

    def read(self, tokens=None):
        """(text, error message or None) so far: after that many more tokens, or at the end. Raises when the connection
        breaks before it."""
        if self.response is None:
            self.response = self.connection.getresponse()
            if self.response.status != 200:
                self.error, self.ended = json.loads(self.response.read())["error"]["message"], True
        while not self.ended and tokens != 0:
            line = self.response.readline()
            assert line, "the stream ended without [DONE] or an error"
            if line.startswith(b"data: [DONE]"):
                self.ended = True
            elif line.startswith(b"data: "):
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    self.error, self.ended = chunk["error"]["message"], True
                elif chunk["choices"]:
                    self.text += chunk["choices"][0]["text"]
                    tokens = None if tokens is None else tokens - 1
        assert not tokens, f"the stream ended {tokens} tokens early: {self.error}"
        return self.text, self.error

    def leave(self):
        if self.response is not None:
            self.response.close()
        self.connection.close()


def wait_until(condition, what, within=10):
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(0.02)


def process_state(pid):
    """One letter as in ps: T is halted, Z has ended; None: gone."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return None


def run_tests(tests):
    """Runs functions of no argument; closes with a line that CI counts."""
    failed = 0
    for test in tests:
        start = time.monotonic()
        try:
            test()
            print(f"ok      {test.__name__} ({time.monotonic() - start:.1f} s)", flush=True)
        except Exception as error:  # noqa: BLE001 - a test may fail in any way
            failed += 1
            print(f"FAILED  {test.__name__}: {type(error).__name__}: {error}", flush=True)
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed else 0
