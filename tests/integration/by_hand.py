"""Gateways and nodes started one by one, as a person would, instead of by `serve`. The command line of the test that
imports it begins with SPILLWAY MODEL."""
import contextlib
import os
import re
import subprocess
import sys
import tempfile

import server

SPILLWAY, MODEL = sys.argv[1:3]
SIZES = ("--max-model-len", "1024", "--device-memory", "128MiB", "--threads", "1", "--chunk-tokens", "64")


class Part(server.Server):
    """One role; `folder` holds what all of them share, a folder in it this one's sockets and log."""

    def __init__(self, folder, role, name, gateways, *flags, model=MODEL):
        self.port, self.key, self.role, self.name = server.free_port(), None, role, name
        self.folder = tempfile.TemporaryDirectory(dir=folder)
        self.log_path = os.path.join(self.folder.name, "log")
        self.command = [SPILLWAY, role, "-m", model, "--name", name, *flags]
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


def start(one, **environment):
    """Without waiting until it is ready, as `with one` does."""
    one.log = open(one.log_path, "w")
    one.process = subprocess.Popen(one.command, stderr=one.log, env={**os.environ, **environment})


@contextlib.contextmanager
def started(one, **environment):
    start(one, **environment)
    try:
        yield one
    finally:
        one.__exit__(*sys.exc_info())


def nodes(gateway, role):
    return int(re.search(rf'^spillway_nodes{{.*role="{role}".*}} (\d+)$', gateway.get("/metrics")[1], re.M).group(1))


def wait_nodes(gateway, prefill, decode):
    server.wait_until(lambda: (nodes(gateway, "prefill"), nodes(gateway, "decode")) == (prefill, decode),
                      f"{prefill} prefill and {decode} decode nodes", 60)
