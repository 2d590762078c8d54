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
    "simulator": {"prefill_node", "decode_node", "gateway", "engine", "model", "kernels", "scheduler", "transfer", "kv", "common"},
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
}

LINES_MAX = {".cc": 400, ".h": 150}
COLUMNS_MAX = 120
FUNCTION_LINES_MAX = 70
ALLOWED = {  # path: why it may break a limit
    "kernels/cpu/machine_peak.cc": "a volatile sink keeps the compiler from dropping the measured loops",
    "tests/decode_node/decode_script.h": "one scripted peer for all decode node tests",
    "tests/gateway/http_server_test.cc": "one table of HTTP walks over one fixture",
}
BANNED = [
    (r"\b(TODO|FIXME|XXX|HACK)\b", "left-over mark"),
    (r"\bsleep_for\b|\busleep\(", "sleeping is no synchronisation"),
    (r"\bsystem_clock\b", "wall clock for intervals"),
    (r"using namespace std;", "using namespace std"),
    (r"(?<!asm )(?<!__asm__ )\bvolatile\b", "volatile is no synchronisation"),
]


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
    """Function bodies at namespace or class level: an opening line ending in '{' closed by '}' of the same indent."""
    opened = None
    for number, line in enumerate(lines, 1):
        indent = len(line) - len(line.lstrip())
        if opened is None and re.match(r"^ {0,2}[A-Za-z_~].*\)[^;]*\{$", line) and not re.match(
                r"\s*(namespace|class|struct|enum|if|for|while|switch|else|do)\b", line):
            opened = (number, indent)
        elif opened and line.startswith(" " * opened[1] + "}") and indent == opened[1]:
            if number - opened[0] > FUNCTION_LINES_MAX and str(path) not in ALLOWED:
                problems.append(f"{path}:{opened[0]}: function of {number - opened[0]} lines, at most {FUNCTION_LINES_MAX}")
            opened = None


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
        if suffix in LINES_MAX and len(lines) > LINES_MAX[suffix] and str(path) not in ALLOWED:
            problems.append(f"{path}: {len(lines)} lines, at most {LINES_MAX[suffix]}: split by noun, or a reason in ALLOWED")
        if suffix == ".py":
            continue
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS_MAX:
                problems.append(f"{path}:{number}: {len(line)} columns, at most {COLUMNS_MAX}")
        check_includes(path, text, problems)
        in_tests = path.parts[0] == "tests"
        if not in_tests:
            check_functions(path, lines, problems)
        if suffix == ".h" and not text.startswith("#pragma once"):
            problems.append(f"{path}: a header begins with #pragma once")
        for pattern, what in BANNED[:1] if in_tests or str(path) in ALLOWED else BANNED:
            for match in re.finditer(pattern, text):
                problems.append(f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {what}")
    for name in ALLOWED:
        if not (ROOT / name).exists():
            problems.append(f"tests/tidy/tidy.py: ALLOWED names {name}, which is gone")
    print("\n".join(problems) or "tidy: nothing to say")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
