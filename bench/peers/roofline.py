#!/usr/bin/env python3
"""A roofline picture of what llama_cpp.py measured: speed over arithmetic intensity, beneath the machine's own limits.

  .cache/venv-peers/bin/python bench/peers/roofline.py build/peers.json docs/roofline.svg

The roofs are those of the same runs: the multiply-add peak, and reading as many bytes as the weights have. Intensity is what
the work asks for: floating-point operations per byte of weights and KV that must be read. The peer does the same work on the
same file, so it stands at the same intensity, as fast as its tokens come. Same input, same picture, byte by byte."""
import argparse
import json
import pathlib
import statistics
import sys

try:
    import matplotlib
    import matplotlib.pyplot as plot
except ImportError:
    sys.exit("roofline: no matplotlib: scripts/setup --peers, then .cache/venv-peers/bin/python bench/peers/roofline.py ...")

NAMES = {"pp512": "prompt 512", "pp4096": "prompt 4,096", "tg128": "decode", "tg64-d4000": "decode at 4,000",
         "tg64-b8": "decode x 8", "tg64-b32": "decode x 32"}
OURS, THEIRS = "#0b6e99", "#c2571a"


def points(report):
    """(name, flop per byte, our GFLOP/s, the peer's) of each case."""
    for case in report["cases"]:
        runs = sorted(case["ours"][0]["runs"], key=lambda run: run["tokens_per_second"])
        run = runs[len(runs) // 2]
        flop_per_token = run["flops_per_second"] / run["tokens_per_second"]
        yield (NAMES.get(case["key"], case["key"]), run["flops_per_second"] / run["bytes_per_second"],
               run["flops_per_second"] / 1e9,
               statistics.median(case["theirs"][0]["tokens_per_second"]) * flop_per_token / 1e9)


def draw(report, target):
    matplotlib.rcParams.update({"svg.hashsalt": "spillway", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"})
    peak = statistics.median(report["machine"]["peak_flops_per_second"]) / 1e9
    read = statistics.median(report["machine"]["weights_read_bytes_per_second"]) / 1e9
    shown = sorted(points(report), key=lambda point: point[1])
    figure, axes = plot.subplots(figsize=(7.5, 4.5))
    low, ridge = min(shown[0][1], peak / read) / 3, peak / read
    high = max(shown[-1][1], ridge) * 3
    axes.plot([low, ridge, high], [low * read, peak, peak], color="black", linewidth=1.2)
    axes.text(high, peak * 1.08, f"multiply-add {peak:,.0f} GFLOP/s", ha="right", va="bottom")
    axes.text(low * 1.05, peak, f"reading {read:.0f} GB/s", ha="left", va="top")
    for name, intensity, ours, theirs in shown:
        axes.plot([intensity, intensity], sorted([ours, theirs]), color="0.8", linewidth=1, zorder=1)
        axes.annotate(name, (intensity, min(ours, theirs)), xytext=(0, -10), textcoords="offset points", ha="center",
                      va="top", rotation=25, fontsize=8)
    intensities = [point[1] for point in shown]
    axes.scatter(intensities, [point[2] for point in shown], color=OURS, label="Spillway", zorder=2)
    axes.scatter(intensities, [point[3] for point in shown], color=THEIRS, marker="s", label="llama.cpp, same file", zorder=2)
    axes.set(xscale="log", yscale="log", xlabel="floating-point operations per byte of weights and KV", ylabel="GFLOP/s",
             xlim=(low, high * 1.1), ylim=(min(min(point[2:]) for point in shown) / 4, peak * 2))
    axes.set_title(f"{report['model']}, {report['cores']} core(s) {report['machine']['cpu']}, {report['commit']}", fontsize=9)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=pathlib.Path, help="what llama_cpp.py --json wrote")
    parser.add_argument("picture", type=pathlib.Path, nargs="?", default="docs/roofline.svg")
    args = parser.parse_args()
    try:
        report = json.loads(args.report.read_text())
    except OSError as error:
        sys.exit(f"roofline: {error}: bench/peers/llama_cpp.py --all --json {args.report} makes it")
    draw(report, args.picture)


if __name__ == "__main__":
    main()
