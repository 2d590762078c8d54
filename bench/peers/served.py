#!/usr/bin/env python3
"""Served requests within both limits: `spillway serve`, with a prefill and a decode node (1P1D) and with one process that does
both (colocated), beside llama-server, same file, same cores.

  bench/peers/served.py                              0.5 and 1 request/s, 100 requests each: about 20 minutes
  bench/peers/served.py --rates 0.5 --requests 20    a quick look
  bench/peers/served.py --highest                    the highest rate with 90 % within, by bisection
  bench/peers/served.py --serve-flags "--activations int8" --peer-file BF16
  bench/peers/served.py --only colocated --colocated-flags "--chunk-tokens 128"    how a chunk's length moves TTFT and TPOT

Open loop: requests begin by a Poisson process whether or not earlier ones are done, 512 random tokens in, 64 out. The client is
`vllm bench serve --goodput` (scripts/clients --install vllm), on the same cores; each figure is of a server started for it,
after one warm-up request. Run it on a machine that does nothing else. The colocated server has a compute thread for each core,
as llama-server has."""
import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import llama_cpp_build

ROOT = llama_cpp_build.ROOT
sys.path.insert(0, str(ROOT / "tests" / "integration"))
from server import Server, free_port  # noqa: E402 - found by the line above

CLIENTS = ROOT / ".cache" / "clients"
SERVED_NAME = "peers"
INPUT_TOKENS, OUTPUT_TOKENS = 512, 64
TTFT_MS, TPOT_MS = 1000, 50
WITHIN_SHARE = 0.9  # that a rate must keep to be sustained
PEER_SLOTS = 8
CLIENT_START_WITHIN_S = 300  # it loads PyTorch
BISECTIONS = 4  # from the first rate that is too high on
HIGHEST_RATE = 64.0


class LlamaServer(Server):
    """Use as Server: it is started, waited for and ended alike."""

    def __init__(self, programs, model, cores, flags):
        super().__init__("", model)
        self.port = free_port()
        self.command = [str(part) for part in (
            programs / "llama-server", "-m", model, "--alias", SERVED_NAME, "--host", "127.0.0.1", "--port", self.port,
            "-t", cores, "-tb", cores, "-fa", "on", "--parallel", PEER_SLOTS,
            "-c", PEER_SLOTS * 2 * (INPUT_TOKENS + OUTPUT_TOKENS), "--no-cache-prompt", "--cache-ram", 0, "--no-webui",
            *flags)]

    def get(self, path):
        return super().get("/health" if path == "/health/ready" else path)


def measure(args, start_server, rate, seed):
    """Figures of one run of the client against a new server."""
    deadline_s = CLIENT_START_WITHIN_S + 4 * args.requests / rate + 120
    with start_server() as server, tempfile.TemporaryDirectory() as folder:
        status, answer = server.complete(" the" * INPUT_TOKENS, max_tokens=OUTPUT_TOKENS)
        if status != 200:
            sys.exit(f"the warm-up request was answered {status}: {answer}")
        command = [CLIENTS / "vllm/bin/python", ROOT / "tests/clients/vllm_bench_serve.py", "--backend", "openai",
                   "--host", "127.0.0.1", "--port", server.port, "--endpoint", "/v1/completions", "--model", SERVED_NAME,
                   "--tokenizer", args.tokenizer, "--dataset-name", "random", "--random-input-len", INPUT_TOKENS,
                   "--random-output-len", OUTPUT_TOKENS, "--random-range-ratio", 0, "--num-prompts", args.requests,
                   "--ignore-eos", "--temperature", 0, "--request-rate", rate, "--seed", seed, "--disable-tqdm",
                   "--goodput", f"ttft:{TTFT_MS}", f"tpot:{TPOT_MS}", "--percentile-metrics", "ttft,tpot",
                   "--metric-percentiles", "50,90", "--save-result", "--result-dir", folder, "--result-filename", "result.json"]
        try:
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=deadline_s, cwd=folder,
                                  env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
        except subprocess.TimeoutExpired:
            sys.exit(f"the client was not done within {deadline_s:.0f} s at {rate} requests/s: lower --requests or --rates")
        result = pathlib.Path(folder) / "result.json"
        if done.returncode != 0 or not result.exists():
            sys.exit(f"vllm bench serve: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        figures = json.loads(result.read_text())
    if not figures["completed"]:
        sys.exit(f"no request of {args.requests} was answered:\n{done.stdout[-2000:]}")
    good = figures["request_goodput"] / figures["request_throughput"] * figures["completed"]
    return {"rate": rate, "share": good / args.requests, "failed": args.requests - figures["completed"],
            **{name: figures[name] for name in ("p50_ttft_ms", "p90_ttft_ms", "p50_tpot_ms", "p90_tpot_ms")}}


def show(name, run):
    print(f"| {run['rate']:.2f} | {name} | {100 * run['share']:.0f} % | {run['p50_ttft_ms']:.0f} / {run['p90_ttft_ms']:.0f} | "
          f"{run['p50_tpot_ms']:.1f} / {run['p90_tpot_ms']:.1f} | {run['failed']} |", flush=True)


def highest(args, name, start_server):
    """The highest rate that kept WITHIN_SHARE, to an eighth or so; each rate tried is a row."""
    low, high, rate = 0.0, None, 0.5
    bisections = 0
    while bisections < BISECTIONS and rate <= HIGHEST_RATE:
        run = measure(args, start_server, rate, args.seed)
        show(name, run)
        args.runs.append({"server": name, **run})
        if run["share"] >= WITHIN_SHARE:
            low = rate
        else:
            high = rate
        bisections += high is not None
        rate = 2 * rate if high is None else (low + high) / 2
    return low


def tokenizer(args, folder):
    for environment in ("tokenizer", "vllm"):
        if not (CLIENTS / environment / "made").exists():
            sys.exit(f"served: .cache/clients/{environment} is missing: scripts/clients --install vllm (some GB, once)")
    llama_cpp_build.run([CLIENTS / "tokenizer/bin/python", ROOT / "tests/clients/make_tokenizer.py", args.model, folder], 300,
                        "tokenizer")
    return folder


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spillway", default=ROOT / "build/release/cli/spillway")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--peer-file", default="same", choices=["same", "BF16", "Q4_0"],
                        help="type of the peer's file, made from the model")
    parser.add_argument("--serve-flags", default="", metavar="FLAGS", help="more flags of spillway serve, 1P1D and colocated")
    parser.add_argument("--colocated-flags", default="", metavar="FLAGS", help='those of colocated alone ("--chunk-tokens 128")')
    parser.add_argument("--peer-flags", default="", metavar="FLAGS", help='more flags of llama-server ("-fa off")')
    parser.add_argument("--rates", default="0.5,1", metavar="R,...", help="requests per second")
    parser.add_argument("--requests", type=int, default=100, help="of each run")
    parser.add_argument("--repetitions", type=int, default=1, help="of each rate, each with other arrivals and prompts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--highest", action="store_true", help=f"the highest rate with {100 * WITHIN_SHARE:.0f} %% within")
    parser.add_argument("--only", choices=["spillway", "colocated", "llama-server"], help="one of the three; spillway is 1P1D")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    args = parser.parse_args()
    for needed, remedy in ((args.spillway, "cmake --preset release && cmake --build --preset release --target spillway"),
                           (args.model, "scripts/setup")):
        if not pathlib.Path(needed).exists():
            parser.error(f"{needed} is missing: {remedy}")
    try:
        args.rates = [float(rate) for rate in args.rates.split(",")]
    except ValueError:
        args.rates = []
    if args.highest and parser.get_default("rates") != ",".join(f"{rate:g}" for rate in args.rates):
        parser.error("--highest chooses the rates itself: leave out --rates")
    if not args.rates or min(args.rates) <= 0 or args.requests < 1:
        parser.error("--rates: numbers above 0, as in 0.5,1; --requests: at least 1")
    return args


def servers_of(args):
    """name: what starts it."""
    servers, cores = {}, len(os.sched_getaffinity(0))

    def add_spillway(mode, *flags):
        given = [*flags, "--served-model-name", SERVED_NAME, "--device-memory", "512MiB"]
        servers[mode] = lambda: Server(str(args.spillway), str(args.model), *given)

    if args.only in (None, "spillway"):
        add_spillway(f"spillway 1P1D {args.serve_flags}".strip(), "--prefill", "1", "--decode", "1", *args.serve_flags.split())
    if args.only in (None, "colocated"):
        more = f"{args.serve_flags} {args.colocated_flags}".split()
        threads = [] if "--threads" in more else ["--threads", str(cores)]
        add_spillway(" ".join(["spillway colocated", *more]), "--prefill", "0", "--decode", "1", *threads, *more)
    if args.only in (None, "llama-server"):
        programs = llama_cpp_build.build()
        model = args.model if args.peer_file == "same" else llama_cpp_build.other_file(args.model, args.peer_file)
        name = f"llama-server, {args.peer_file} file {args.peer_flags}".strip()
        servers[name] = lambda: LlamaServer(programs, model, cores, args.peer_flags.split())
    return servers


def main():
    args = arguments()
    args.runs = []
    report = {"command": " ".join(["bench/peers/served.py", *sys.argv[1:]]), "requests": args.requests, "runs": args.runs}
    with tempfile.TemporaryDirectory() as folder:
        args.tokenizer = tokenizer(args, pathlib.Path(folder))
        servers = servers_of(args)
        started = time.monotonic()
        print(f"| requests/s | server | TTFT <= {TTFT_MS} ms and TPOT <= {TPOT_MS} ms | TTFT p50 / p90, ms | TPOT p50 / p90, ms | "
              "failed |\n|---|---|---|---|---|---|", flush=True)
        if args.highest:
            found = {name: highest(args, name, start) for name, start in servers.items()}
            report["highest"] = found
            for name, rate in found.items():
                print(f"\n{name}: highest rate tried with {100 * WITHIN_SHARE:.0f} % within: {rate:.2f} requests/s")
        else:
            seconds = sum(args.requests / rate + 40 for rate in args.rates) * args.repetitions * len(servers)
            print(f"about {seconds / 60:.0f} minutes, more where a server does not keep up", file=sys.stderr)
            for rate in args.rates:
                for repetition in range(args.repetitions):
                    for name, start in servers.items():
                        run = measure(args, start, rate, args.seed + repetition)
                        args.runs.append({"server": name, **run})
                        show(name, run)
    print(f"took {(time.monotonic() - started) / 60:.0f} minutes", file=sys.stderr)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("served: ended by SIGTERM"))  # and its server with it
    try:
        main()
    except AssertionError as error:  # of a server that did not start or stop; its log is shown above
        sys.exit(f"served: {error}")
