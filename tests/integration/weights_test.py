#!/usr/bin/env python3
"""Packed weights as an operator meets them: one copy in memory for all processes, never beside the original, and a cache
folder that may be read-only, full, damaged or contended without keeping anybody from serving.
Usage: weights_test.py SPILLWAY MODEL TINY_MODEL"""
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import server

SPILLWAY, MODEL, TINY = sys.argv[1:4]
MIB = 1 << 20
SLACK = 40 * MIB  # one matrix as stored, what is hashed at once, and drift
WARNING = "weights are packed in memory, for this start only"


def mappings(pid, name):
    """(Rss, Pss) in bytes of what the process maps of files whose name holds `name`."""
    rss = pss = 0
    inside = False
    for line in open(f"/proc/{pid}/smaps"):
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = name in line
        elif inside and line.startswith(("Rss:", "Pss:")):
            kib = int(line.split()[1])
            rss, pss = (rss + kib, pss) if line.startswith("Rss:") else (rss, pss + kib)
    return rss * 1024, pss * 1024


def status_bytes(pid, field):
    return int(re.search(rf"^{field}:\s+(\d+) kB", open(f"/proc/{pid}/status").read(), re.M).group(1)) * 1024


def packed_files(folder):
    return [path for path in glob.glob(f"{folder}/*") if ".packed" in path]


def run(*flags, model=TINY, within=()):
    """One prompt in one process; (text, stderr). `within`: a command that it runs under."""
    command = [SPILLWAY, "run", "-m", model, "-p", "Once upon a time", "--max-tokens", "4", "--max-model-len", "256",
               "--device-memory", "64MiB", *flags]
    done = subprocess.run([*within, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done
    return done.stdout, done.stderr


EXPECTED = run("--cache-dir", "none")[0]


def nodes_hold_one_copy(*flags, name):
    def test():
        with tempfile.TemporaryDirectory() as folder:
            given = flags or ("--cache-dir", folder)
            with server.Server(SPILLWAY, MODEL, *given) as one:
                assert one.complete("Once upon a time", 4)[0] == 200
                held = {child: mappings(one.pid(child), name) for child in ("gateway", "prefill 0", "decode 0")}
                held["serve"] = mappings(one.process.pid, name)
                assert WARNING not in one.log_text()
        packed = 106_168_320 * 5 // 8 + 28_311_552 * 9 // 8  # layers of Q4_1, a classifier of Q8_0, with their scales
        for child in ("prefill 0", "decode 0"):
            rss, pss = held[child]
            assert 0.95 * packed < rss < 1.05 * packed, held
            assert 0.45 * rss < pss < 0.55 * rss, held
        assert held["gateway"][1] == held["serve"][1] == 0, held
        assert sum(pss for _, pss in held.values()) < 1.05 * packed, held
    test.__name__ = f"nodes_hold_one_copy_{'in_memory' if flags else 'of_a_file'}"
    return test


def packing_never_holds_original_and_copy():
    """The supervisor's peak while it packs, beside its peak while it only reads what is packed."""
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for _ in range(2):
            with server.Server(SPILLWAY, MODEL, "--cache-dir", folder) as one:
                peaks.append(status_bytes(one.process.pid, "VmHWM"))
                assert status_bytes(one.process.pid, "VmRSS") < 60 * MIB, "it keeps weights that it does not need"
        (packed,) = packed_files(folder)
        assert peaks[0] < os.path.getsize(packed) + 2 * SLACK, (peaks, os.path.getsize(packed))
        assert peaks[0] - peaks[1] < SLACK < os.path.getsize(MODEL) / 2, peaks


def in_namespace(mount, *command):
    """A command in a mount namespace of its own, after the shell line `mount`; as root or not."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *user, "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh", *command]


def read_only(folder):
    return f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"


def bypassed(said, *causes):
    assert said.count(WARNING) == 1 and said.lower().count("warn") == 1, said
    for cause in (*causes, "--cache-dir"):
        assert cause in said, said


def a_full_disk_is_bypassed():
    with tempfile.TemporaryDirectory() as folder:
        room = os.path.getsize(TINY) // 4
        under = in_namespace(f"mount -t tmpfs -o size={max(room, 4096)} none {folder}", "sh", "-c", f'"$@" && ls {folder}', "sh")
        text, said = run("--cache-dir", folder, within=under)
        assert text == EXPECTED, "it left something there: " + text
        bypassed(said, "No space left on device", folder)


def a_read_only_folder_serves_what_it_has_and_is_else_bypassed():
    with tempfile.TemporaryDirectory() as folder:
        text, said = run("--cache-dir", folder, within=in_namespace(read_only(folder)))
        assert text == EXPECTED
        bypassed(said, "Read-only file system")
        run("--cache-dir", folder)
        text, said = run("--cache-dir", folder, within=in_namespace(read_only(folder)))
        assert text == EXPECTED and "warn" not in said.lower(), said
        (packed,) = packed_files(folder)
        with open(packed, "r+b") as file:
            file.seek(-5000, os.SEEK_END)
            byte = file.read(1)
            file.seek(-5000, os.SEEK_END)
            file.write(bytes([byte[0] ^ 1]))
        text, said = run("--cache-dir", folder, within=in_namespace(read_only(folder)))
        assert text == EXPECTED and said.count(WARNING) == 1 and "is damaged" in said, said
        text, said = run("--cache-dir", folder)
        assert text == EXPECTED and "packed again" in said and packed_files(folder) == [packed], said


def a_server_starts_on_a_read_only_folder():
    with tempfile.TemporaryDirectory() as folder:
        one = server.Server(SPILLWAY, TINY, "--cache-dir", folder)
        one.command = in_namespace(read_only(folder), *one.command)
        with one:
            status, body = one.complete("Once upon a time", 4)
            assert status == 200 and body["choices"][0]["text"] == EXPECTED.rstrip("\n"), (body, EXPECTED)
            bypassed(one.log_text(), "Read-only file system")
            os.kill(one.pid("decode 0"), signal.SIGKILL)  # the next one has the same weights, and packs nothing
            server.wait_until(lambda: one.log_text().count("started decode 0") == 2, "it is started again", 20)
            one.wait_ready()
            assert one.complete("Once upon a time", 4)[1]["choices"][0]["text"] == EXPECTED.rstrip("\n")
            assert one.log_text().count(WARNING) == 1


def processes_that_start_at_once_pack_once():
    with tempfile.TemporaryDirectory() as folder:
        command = [SPILLWAY, "run", "-m", MODEL, "-p", "Once", "--max-tokens", "1", "--max-model-len", "256",
                   "--device-memory", "64MiB", "--threads", "1", "--cache-dir", folder]
        all_of_them = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        said = [one.communicate(timeout=120) for one in all_of_them]
        assert [one.returncode for one in all_of_them] == [0, 0, 0] and len({text for text, _ in said}) == 1, said
        assert not any("warn" in error.lower() for _, error in said), said
        assert len(os.listdir(folder)) == 1, os.listdir(folder)


def a_killed_writer_leaves_nothing_for_long():
    with tempfile.TemporaryDirectory() as folder:
        command = [SPILLWAY, "run", "-m", MODEL, "-p", "Once", "--cache-dir", folder, "--max-model-len", "256",
                   "--device-memory", "64MiB"]
        writer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        server.wait_until(lambda: any(os.path.getsize(path) for path in glob.glob(f"{folder}/*.spillway-new.*")), "it writes", 60)
        writer.kill()
        writer.wait()
        left = os.listdir(folder)
        assert len(left) == 1 and ".spillway-new." in left[0], left
        said = subprocess.run([SPILLWAY, "doctor", "-m", MODEL, "--port", "0", "--cache-dir", folder, "--secret-file",
                               f"{folder}.secret"], capture_output=True, text=True, timeout=60).stdout
        assert left[0] in said and "the next start packs this model" in said, said
        text, said = run("--cache-dir", folder, "--threads", "2", model=MODEL)
        assert text and "warn" not in said.lower(), said
        assert len(os.listdir(folder)) == 1 and len(packed_files(folder)) == 1, os.listdir(folder)


def a_node_never_takes_weights_of_another_file():
    with tempfile.TemporaryDirectory() as folder:
        model = shutil.copy(TINY, f"{folder}/model.gguf")
        with server.Server(SPILLWAY, model, "--cache-dir", f"{folder}/cache", "--restart-delay", "0.1") as one:
            shutil.copy(TINY, f"{folder}/new.gguf")
            os.rename(f"{folder}/new.gguf", model)  # the same bytes, but who knows
            os.kill(one.pid("decode 0"), signal.SIGKILL)
            one.wait_log("it is of another model file", 20)


def the_user_s_cache_folder_is_the_default():
    with tempfile.TemporaryDirectory() as home:
        for variables, folder in (({"HOME": home, "XDG_CACHE_HOME": ""}, f"{home}/.cache/spillway"),
                                  ({"HOME": home, "XDG_CACHE_HOME": f"{home}/other"}, f"{home}/other/spillway")):
            under = ["env", *(f"{name}={value}" for name, value in variables.items())]
            text, said = run(within=under)
            assert text == EXPECTED and "warn" not in said.lower(), said
            assert len(packed_files(folder)) == 1, folder
            doctor = subprocess.run([*under, SPILLWAY, "doctor", "-m", TINY, "--port", "0"], capture_output=True, text=True)
            assert re.search(rf"packed weights +{folder} +1 file, .*this model is there, undamaged", doctor.stdout), doctor
        text, said = run("--cache-dir", "none", within=["env", f"HOME={home}/none"])
        assert text == EXPECTED and "warn" not in said.lower() and not os.path.exists(f"{home}/none"), said
        text, said = run(within=["env", "-u", "HOME", "-u", "XDG_CACHE_HOME"])
        assert text == EXPECTED, said


if __name__ == "__main__":
    sys.exit(server.run_tests([
        nodes_hold_one_copy(name=".packed"),
        nodes_hold_one_copy("--cache-dir", "none", name="memfd:spillway-weights"),
        packing_never_holds_original_and_copy,
        a_full_disk_is_bypassed,
        a_read_only_folder_serves_what_it_has_and_is_else_bypassed,
        a_server_starts_on_a_read_only_folder,
        processes_that_start_at_once_pack_once,
        a_killed_writer_leaves_nothing_for_long,
        a_node_never_takes_weights_of_another_file,
        the_user_s_cache_folder_is_the_default,
    ]))
