#!/usr/bin/env python3
"""Settings from the environment reach the children of serve as flags, and the children find no variable to read again.
Also the exit of --print-config and --fit through the real executable. Usage: environment_test.py SPILLWAY MODEL"""
import os
import pathlib
import subprocess
import sys
import time

SPILLWAY, MODEL = sys.argv[1:3]
START_S = 60
GIVEN = {"SPILLWAY_MODEL": MODEL, "SPILLWAY_PORT": "0", "SPILLWAY_MAX_MODEL_LEN": "256",
         "SPILLWAY_DEVICE_MEMORY": "64MiB", "SPILLWAY_THREADS": "1", "SPILLWAY_PROT": "1",
         "SPILLWAY_CACHE_DIR": "none"}


def spillway(*arguments, **variables):
    return subprocess.run([SPILLWAY, *arguments], env={**os.environ, **variables}, capture_output=True, text=True,
                          timeout=START_S)


def children_of(pid):
    """Role: (arguments, environment) of those that have become what serve started."""
    found = {}
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        arguments = pathlib.Path(f"/proc/{child}/cmdline").read_text().split("\0")
        if arguments[1:2] in (["gateway"], ["prefill"], ["decode"]):
            found[arguments[1]] = (arguments, pathlib.Path(f"/proc/{child}/environ").read_text())
    return found


def children_get_flags_and_no_variables():
    server = subprocess.Popen([SPILLWAY, "serve"], env={**os.environ, **GIVEN}, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + START_S
        children = {}
        while len(children) < 3 and time.monotonic() < deadline and server.poll() is None:
            children = children_of(server.pid)
            time.sleep(0.05)
        assert sorted(children) == ["decode", "gateway", "prefill"], (children, server.poll())
        for role, (arguments, environment) in children.items():
            assert arguments[arguments.index("--max-model-len") + 1] == "256", (role, arguments)
            assert "SPILLWAY_" not in environment, (role, environment)
        assert int(children["decode"][0][children["decode"][0].index("--device-memory") + 1]) == 64 << 20
    finally:
        server.terminate()
        said = server.communicate(timeout=START_S)[1]
    assert "SPILLWAY_PROT" in said and "SPILLWAY_PORT" in said, said


def print_config_starts_nothing():
    done = spillway("serve", "--print-config", SPILLWAY_PORT="9123")
    assert done.returncode == 0 and "port: 9123  # SPILLWAY_PORT\n" in done.stdout, done


def fit_prints_its_choice_and_why():
    done = spillway("serve", "-m", MODEL, "--fit", "--print-config", "--max-model-len", "512")
    assert done.returncode == 0, done
    assert "max-model-len: 512  # flag\n" in done.stdout and "  # --fit\n" in done.stdout, done.stdout
    assert "fit: machine: " in done.stderr and "--max-model-len 512: " in done.stderr, done.stderr


def a_bad_variable_ends_with_2_and_is_named():
    done = spillway("doctor", SPILLWAY_QUEUE_MAX="0")
    assert done.returncode == 2 and "SPILLWAY_QUEUE_MAX" in done.stderr, done


def doctor_reports_what_it_cannot_look_at():
    """Without a home there is no place for the secret: a finding, and all others are made too."""
    homeless = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_STATE_HOME")}
    done = subprocess.run([SPILLWAY, "doctor", "--port", "0"], env=homeless, capture_output=True, text=True,
                          timeout=START_S)
    rows = {row[:18].strip(): row for row in done.stdout.splitlines()}
    assert done.returncode == 1, done
    assert "PROBLEM" in rows["secret"] and "PROBLEM" in rows["left by dead runs"], done.stdout
    assert "PROBLEM" not in rows["shared memory"], done.stdout


failed = 0
TESTS = [children_get_flags_and_no_variables, print_config_starts_nothing, fit_prints_its_choice_and_why,
         a_bad_variable_ends_with_2_and_is_named, doctor_reports_what_it_cannot_look_at]
for test in TESTS:
    try:
        test()
        print(f"ok {test.__name__}")
    except Exception as error:  # every test is run
        failed += 1
        print(f"FAILED {test.__name__}: {error!r}")
print(f"{len(TESTS) - failed} passed, {failed} failed")
sys.exit(failed != 0)
