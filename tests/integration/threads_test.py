#!/usr/bin/env python3
"""Threads and CPUs of a served model, as the kernel knows them. Usage: threads_test.py SPILLWAY MODEL"""
import concurrent.futures
import os
import pathlib
import subprocess
import sys

import server

SPILLWAY, MODEL = sys.argv[1:3]
ALLOWED = sorted(os.sched_getaffinity(0))
FIRST, LAST = ALLOWED[0], ALLOWED[-1]


def nodes_of(one):
    """Process ids of serve's children, by role."""
    pid = one.process.pid
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[1].decode(): int(child)
            for child in children}


def threads_of(pid):
    return set(map(int, os.listdir(f"/proc/{pid}/task")))


def cpus_by_thread(pid):
    """Thread name: the CPUs it may run on."""
    return {pathlib.Path(f"/proc/{pid}/task/{thread}/comm").read_text().strip(): os.sched_getaffinity(thread)
            for thread in threads_of(pid)}


def no_thread_is_made_for_a_request():
    with server.Server(SPILLWAY, MODEL, "--max-model-len", "1024", "--device-memory", "64MiB") as one:
        def ask(number):
            status, body = one.complete([number % 200 + 40] * (number % 150 + 1), 4)
            assert status == 200, body
            return {pid: threads_of(pid) for pid in pids}

        pids = [one.process.pid, *nodes_of(one).values()]
        assert len(pids) == 4, pids
        for number in range(4):
            ask(number)
        before = {pid: threads_of(pid) for pid in pids}
        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            for during in clients.map(ask, range(100)):
                assert during == before, (during, before)
        assert {pid: threads_of(pid) for pid in pids} == before


def each_role_runs_on_its_cpus():
    with server.Server(SPILLWAY, MODEL, "--max-model-len", "1024", "--device-memory", "64MiB", "--prefill-cpus",
                       str(FIRST), "--decode-cpus", f"{FIRST},{LAST}") as one:
        assert one.complete("On its own core:", 4)[0] == 200
        nodes = nodes_of(one)
        for name, cpus in cpus_by_thread(nodes["prefill"]).items():
            assert cpus == {FIRST}, (name, cpus)
        decode = cpus_by_thread(nodes["decode"])
        assert decode["compute"] == {FIRST}, decode  # a CPU for each compute thread
        if FIRST != LAST:
            assert decode["worker 1"] == {LAST}, decode
        assert os.sched_getaffinity(nodes["decode"]) == {FIRST, LAST}  # other threads go where there is room
        assert os.sched_getaffinity(nodes["gateway"]) == set(ALLOWED)


def cpus_confine_all_of_serve_and_pin_nobody():
    with server.Server(SPILLWAY, MODEL, "--max-model-len", "1024", "--device-memory", "64MiB", "--cpus", str(LAST),
                       "--threads", "2") as one:
        assert one.complete("All on one core:", 4)[0] == 200
        for role, pid in nodes_of(one).items():
            for name, cpus in cpus_by_thread(pid).items():
                assert cpus == {LAST}, (role, name, cpus)
        assert "worker 1" in cpus_by_thread(nodes_of(one)["decode"])


def decode_nodes_are_as_nice_as_told():
    def niceness(pid):
        return {os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir(f"/proc/{pid}/task")}

    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert own < 19, "as nice as can be already"
    flags = ["--max-model-len", "1024", "--device-memory", "64MiB", "--decode-nice", "7"]
    with server.Server(SPILLWAY, MODEL, *flags) as one:
        assert one.complete("After you:", 4)[0] == 200
        found = {name: niceness(pid) for name, pid in nodes_of(one).items()}
        assert found == {"gateway": {own}, "prefill": {own}, "decode": {min(own + 7, 19)}}, found


def each_node_is_on_one_numa_node():
    if ALLOWED != [0, 1]:
        print("skipped: needs CPUs 0 and 1, as the machine it pretends to be has")
        return
    os.environ["HWLOC_SYNTHETIC"] = "numa:2(memory=64GB) core:1 pu:1"
    try:
        with server.Server(SPILLWAY, MODEL, "--max-model-len", "1024", "--device-memory", "64MiB") as one:
            assert one.complete("Near its memory:", 4)[0] == 200
            nodes = nodes_of(one)
            assert [os.sched_getaffinity(nodes[role]) for role in ("prefill", "decode")] == [{0}, {1}]
            assert os.sched_getaffinity(nodes["gateway"]) == {0, 1}
            one.wait_log("prefill 0 on CPU 0, decode 0 on CPU 1")
    finally:
        del os.environ["HWLOC_SYNTHETIC"]


def cpus_that_are_not_there_are_named():
    for flags, says in ((("--cpus", "64000"), "CPU 64000 cannot be used here"),
                        (("--decode-cpus", f"{FIRST},64001-64002"), "CPU 64001-64002 cannot be used here"),
                        (("--prefill", "2", "--prefill-cpus", str(FIRST)), "is one CPU for 2 nodes"),
                        (("--cpus", "3-1"), "is no list of CPUs")):
        ended = subprocess.run([SPILLWAY, "serve", "-m", MODEL, "--port", "0", "--device-memory", "64MiB", *flags],
                               stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, timeout=60)
        assert ended.returncode == 2 and says in ended.stderr + ended.stdout, (flags, ended)


if __name__ == "__main__":
    sys.exit(server.run_tests([no_thread_is_made_for_a_request, each_role_runs_on_its_cpus,
                               cpus_confine_all_of_serve_and_pin_nobody, decode_nodes_are_as_nice_as_told,
                               each_node_is_on_one_numa_node, cpus_that_are_not_there_are_named]))
