#!/usr/bin/env python3
"""From the start of a server to its first token, and its memory then: `spillway serve` (gateway, 1 prefill, 1 decode) beside
llama-server, same file, same context, in turns; files are in the page cache and weights packed before.

  bench/peers/start.py                    5 starts of each, about a minute
  bench/peers/start.py --only spillway    without llama.cpp

Memory is the sum of Pss over the processes (proc(5)): what they share counts once. Run it on a machine that does nothing else."""
import argparse
import http.client
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import llama_cpp_build
from served import LlamaServer

ROOT = llama_cpp_build.ROOT
sys.path.insert(0, str(ROOT / "tests" / "integration"))
from server import Server  # noqa: E402 - found by the line above

CONTEXT = 2048  # tokens
KV_BYTES = CONTEXT * 23040  # of each node: room for one such sequence of the demo model, as in the peer
PROMPT = [1, 2, 3, 4, 5, 6, 7, 8]
WITHIN_S = 60


def first_token_s(server):
    """Of a server that is started here; it runs on."""
    body = json.dumps({"prompt": PROMPT, "max_tokens": 1, "model": "peers"})
    begin = time.monotonic()
    server.log = open(server.log_path, "w")
    server.process = subprocess.Popen(server.command, stderr=server.log, stdout=subprocess.DEVNULL)
    while time.monotonic() - begin < WITHIN_S:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WITHIN_S)
        try:
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            if connection.getresponse().status == 200:
                return time.monotonic() - begin
        except (OSError, http.client.HTTPException):
            pass  # not there yet
        finally:
            connection.close()
        time.sleep(0.002)
    raise AssertionError(f"no token within {WITHIN_S} s")


def pss_bytes(process):
    """Of it and those that it started."""
    children = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
        except OSError:
            continue  # it ended meanwhile
    total, left = 0, [process]
    while left:
        one = left.pop()
        left += children.get(one, [])
        rollup = pathlib.Path(f"/proc/{one}/smaps_rollup").read_text()
        total += 1024 * int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])
    return total


def servers_of(args):
    servers = {}
    if args.only != "llama-server":
        servers["spillway"] = lambda: Server(str(args.spillway), str(args.model), "--prefill", "1", "--decode", "1",
                                             "--served-model-name", "peers", "--max-model-len", str(CONTEXT),
                                             "--device-memory", str(KV_BYTES))
    if args.only != "spillway":
        programs, cores = llama_cpp_build.build(), len(os.sched_getaffinity(0))
        flags = ["--parallel", "1", "-c", str(CONTEXT)]  # the last ones given count
        servers["llama-server"] = lambda: LlamaServer(programs, args.model, cores, flags)
    return servers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spillway", type=pathlib.Path, default=ROOT / "build/release/cli/spillway")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", choices=["spillway", "llama-server"])
    args = parser.parse_args()
    if args.repetitions < 1:
        parser.error("--repetitions must be 1 or more")
    servers = servers_of(args)
    seconds, memory = {name: [] for name in servers}, {name: [] for name in servers}
    for repetition in range(-1, args.repetitions):  # the first one packs and fills the page cache
        for name, make in servers.items():
            server = make()
            failed = (AssertionError, None, None)
            try:
                took, bytes_held = first_token_s(server), pss_bytes(server.process.pid)
                failed = (None, None, None)
            finally:
                server.__exit__(*failed)
            if repetition >= 0:
                seconds[name].append(took)
                memory[name].append(bytes_held / 2**20)
    print("| server | first token of 8 prompt tokens, s | memory, MiB |\n|---|---|---|")
    for name in servers:
        one, held = seconds[name], memory[name]
        print(f"| {name} | {statistics.median(one):.2f} ({min(one):.2f}-{max(one):.2f}) | "
              f"{statistics.median(held):.0f} ({min(held):.0f}-{max(held):.0f}) |")


if __name__ == "__main__":
    main()
