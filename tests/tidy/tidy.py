#!/usr/bin/env python3
"""Enforces what a reader relies on: the module table of ARCHITECTURE.md (includes and CMake DEPENDS), the size limits of
the house style, one home for each foreign library, and no left-overs. Prints each breach; exit code 1 when there is one."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

MAY_INCLUDE = {  # ARCHITECTURE.md section 11
    "common": set(),
    "kv": {"common"},
    "formats": {"common"},
    "text": {"formats", "common"},
    "kernels": {"kv", "common"},
    "model": {"kernels", "formats", "kv", "common"},
    "scheduler": {"common"},
    "transfer": {"kv", "common"},
    "engine": {"model", "kernels", "scheduler", "kv", "common"},
    "prefill_node": {"engine", "transfer", "scheduler", "kv", "common"},
    "decode_node": {"engine", "transfer", "scheduler", "kv", "common"},
    "gateway": {"transfer", "scheduler", "text", "formats", "kv", "common"},
    "simulator": {"prefill_node", "decode_node", "gateway", "engine", "kernels", "scheduler", "transfer", "kv", "common"},
}
MAY_INCLUDE["cli"] = set(MAY_INCLUDE) - {"simulator"}

FOREIGN_HOMES = {  # a foreign library is touched in one folder
    r"<(zmq|flatbuffers/)": {"transfer"},
    r"<boost/(beast|asio)": {"gateway"},
    r"<(liburing|rocksdb/)": {"storage"},
    r"<pcre2|define PCRE2_CODE_UNIT_WIDTH": {"text"},
    r"<(isa-l/|crc\.h)": {"kv"},
    r"<CLI/": {"cli"},
    r"<yaml-cpp/": {"cli"},
    r"<prometheus/": {"gateway"},
    r"<hwloc": {"common"},
}

LINES_MAX = {".cc": 400, ".h": 150}
COLUMNS_MAX = 120
FUNCTION_LINES_MAX = 70
LONG_ALLOWED = {  # path: why it may be longer
    "transfer/messages.h": "one table: every message",
    "tests/prefill_node/prefill_states.h": "one table: every state and the way to it",
    "tests/decode_node/decode_script.h": "one scripted peer for all decode node tests",
}
BAN_ALLOWED = {  # (path, what): why it is right there
    ("kernels/cpu/machine_peak.cc", "volatile"): "a sink that keeps the compiler from dropping the measured loops",
    ("tests/kernels/gemm_test.cc", "volatile"): "an addition that must happen at run time, in the mode under test",
    ("tests/kernels/worker_pool_test.cc", "volatile"): "a sink for work whose result nobody wants",
    ("tests/kernels/worker_pool_test.cc", "sleep"): "the test is about workers that slept long enough to park",
}
BANNED = {  # what: pattern, why
    "left-over": (r"\b(TODO|FIXME|XXX|HACK)\b", "left-over mark"),
    "sleep": (r"\bsleep_for\b|\busleep\(", "sleeping is no synchronisation"),
    "wall clock": (r"\bsystem_clock\b", "wall clock for intervals"),
    "using": (r"using namespace std;", "using namespace std"),
    "volatile": (r"(?<!asm )(?<!__asm__ )\bvolatile\b", "volatile is no synchronisation"),
}


def sources():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.split()
    return [pathlib.Path(name) for name in listed if (ROOT / name).is_file()]


def check_includes(path, text, problems):
    module = path.parts[0]
    for match in re.finditer(r'^#include "([a-z_]+)/', text, re.M):
        other = match.group(1)
        if module in MAY_INCLUDE and other != module and other not in MAY_INCLUDE[module]:
            problems.append(f"{path}: module {module} may not include {other}/")
    for pattern, homes in FOREIGN_HOMES.items():
        if module in MAY_INCLUDE and module not in homes and re.search(r"^#include " + pattern, text, re.M):
            problems.append(f"{path}: {pattern} belongs to {', '.join(sorted(homes))}")


def check_depends(path, text, problems):
    module = path.parts[0]
    for match in re.finditer(r"spillway_module\(\s*(\w+)(.*?)\)", text, re.S):
        depends = re.search(r"DEPENDS((?:\s+[a-z_]+)+)", match.group(2))
        for other in depends.group(1).split() if depends else []:
            if module in MAY_INCLUDE and other not in MAY_INCLUDE[module]:
                problems.append(f"{path}: module {module} may not depend on {other}")


def check_functions(path, lines, problems):
    """A body opens with a line that ends in '{' and closes with '}' at the indent of its first line. Where the head is
    wrapped (arguments, initialiser list) the opening line is indented further: its first line is the last one at an
    indent of 0 or 2 before it."""
    head = opened = None
    for number, line in enumerate(lines, 1):
        indent = len(line) - len(line.lstrip())
        if opened:
            if line.startswith(" " * opened[1] + "}") and indent == opened[1]:
                if number - opened[0] > FUNCTION_LINES_MAX and str(path) not in LONG_ALLOWED:
                    problems.append(f"{path}:{opened[0]}: function of {number - opened[0]} lines, at most "
                                    f"{FUNCTION_LINES_MAX}")
                opened = None
            continue
        if indent in (0, 2) and re.match(r"\s*[A-Za-z_~].*[(]", line) and not re.match(
                r"\s*(namespace|class|struct|enum|union|if|for|while|switch|else|do|return|static_assert)\b", line):
            head = (number, indent)
        if head and line.endswith("{") and (number == head[0] or indent >= head[1] + 4):
            opened, head = head, None
        elif line.rstrip().endswith(";") or not line.strip():
            head = None


def main():
    problems = []
    for path in sources():
        suffix = path.suffix
        if path.name == "CMakeLists.txt":
            check_depends(path, (ROOT / path).read_text(), problems)
        if suffix not in (".cc", ".h", ".py"):
            continue
        text = (ROOT / path).read_text()
        lines = text.splitlines()
        if suffix in LINES_MAX and len(lines) > LINES_MAX[suffix] and str(path) not in LONG_ALLOWED:
            problems.append(f"{path}: {len(lines)} lines, at most {LINES_MAX[suffix]}: split by noun, or a reason in LONG_ALLOWED")
        if suffix == ".py":
            continue
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS_MAX:
                problems.append(f"{path}:{number}: {len(line)} columns, at most {COLUMNS_MAX}")
        check_includes(path, text, problems)
        check_functions(path, lines, problems)
        if suffix == ".h" and not text.startswith("#pragma once"):
            problems.append(f"{path}: a header begins with #pragma once")
        for name, (pattern, why) in BANNED.items():
            if (str(path), name) in BAN_ALLOWED:
                continue
            for match in re.finditer(pattern, text):
                problems.append(f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {why}")
    for name in [*LONG_ALLOWED, *(path for path, _ in BAN_ALLOWED)]:
        if not (ROOT / name).exists():
            problems.append(f"tests/tidy/tidy.py: an exception names {name}, which is gone")
    print("\n".join(problems) or "tidy: nothing to say")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
