#!/usr/bin/env python3
"""How `serve` ends, restarts, tells its health and cleans up, with real processes.
Usage: lifecycle_test.py SPILLWAY MODEL"""
import http.client
import json
import os
import signal
import subprocess
import sys
import time

import server

SPILLWAY, MODEL = sys.argv[1:3]
LONG = 300  # tokens: time enough to do something meanwhile
NO_TIME = 60  # seconds; where nothing is waited for but what must come soon
AT_ONCE = 2  # seconds: what docs/operations.md says of a second signal
STALL_SEEN = 10  # seconds: within these a compute thread that hangs turns /health/ready to 503


def serve(*flags):
    return server.Server(SPILLWAY, MODEL, "--chunk-tokens", "64", *flags)


def health(one):
    status, body = one.get("/health/ready")
    return status, json.loads(body)


def exit_code(one, within=NO_TIME):
    return one.process.wait(within)


def first_signal_drains():
    with serve("--drain-timeout", "300") as one:
        status, body = one.complete("Once upon a time", LONG)
        assert status == 200, body
        expected = body["choices"][0]["text"]
        stream = one.stream("Once upon a time", LONG)
        stream.read(2)
        one.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: health(one)[1]["status"] == "draining", "ready says draining")
        status, body = health(one)
        assert status == 503 and "draining" in body["reason"] and body["reasons"][0] == body["reason"], body
        assert one.get("/health/live")[0] == 200
        connection = one.connection()
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "x"}), one.headers())
        response = connection.getresponse()
        refused = json.loads(response.read())
        assert response.status == 503 and response.getheader("Retry-After"), (response.status, refused)
        assert response.getheader("Connection") == "close" and "draining" in refused["error"]["message"], refused
        assert stream.read() == (expected, None), "the stream under way did not finish"
        assert exit_code(one) == 0, one.process.returncode
        log = one.log_text()
        assert log.index("[gateway] drained") < log.index("[prefill 0] stopped"), "the nodes went first"


def drain_limit_ends_what_is_left():
    with serve("--drain-timeout", "1") as one:
        stream = one.stream("Once upon a time", 1900)
        stream.read(2)
        one.process.send_signal(signal.SIGTERM)
        _, error = stream.read()
        assert error and "drain limit" in error, error
        assert exit_code(one) == 3
        one.wait_log("--drain-timeout of 1 s passed")


def second_signal_is_now():
    with serve("--drain-timeout", "600") as one:
        stream = one.stream("Once upon a time", 1900)
        stream.read(2)
        one.process.send_signal(signal.SIGINT)
        one.wait_log("stopping: requests have")
        begin = time.monotonic()
        one.process.send_signal(signal.SIGINT)
        assert exit_code(one) == 3
        took = time.monotonic() - begin
        log = one.log_text()
        assert "prefill 0 was ended at once" in log and "memory ran out" not in log, log[-1000:]
        assert took < AT_ONCE, f"took {took:.1f} s"
        try:
            _, error = stream.read()
            assert error, "the stream ended as if nothing had happened"
        except (OSError, http.client.HTTPException, AssertionError):
            pass


def a_node_told_to_leave_finishes_first():
    """2 decode nodes; the one that streams drains, loses nothing, and comes back."""
    with serve("--decode", "2", "--threads", "1", "--device-memory", "128MiB", "--drain-timeout", "300") as one:
        status, body = one.complete("Once upon a time", LONG)
        expected = body["choices"][0]["text"]
        streams = [one.stream("Once upon a time", LONG) for _ in range(2)]  # one on each
        for stream in streams:
            stream.read(2)
        os.kill(one.pid("decode 0"), signal.SIGTERM)
        server.wait_until(lambda: "decode 0 is draining" in health(one)[1].get("degraded", []), "it is named")
        assert health(one)[0] == 200
        for stream in streams:
            assert stream.read() == (expected, None)
        one.wait_log("decode 0 has drained and left", NO_TIME)
        server.wait_until(lambda: one.log_text().count("started decode 0") == 2, "it comes back", NO_TIME)


def wedged_compute_turns_ready_to_503(role):
    def test():
        with serve("--fault", f"{role}-compute:1:wedge") as one:
            stream = one.stream("Once upon a time", 20)
            if role == "decode":
                stream.read(1)  # prefill has done its part
            server.wait_until(lambda: health(one)[0] == 503, "ready turns to 503", STALL_SEEN)
            status, body = health(one)
            assert status == 503 and f"{role} 0 has made no step" in body["reason"], body
            assert one.get("/health/live")[0] == 200
            os.kill(one.pid(f"{role} 0"), signal.SIGCONT)
            one.wait_ready()
            text, error = stream.read()
            assert text and error is None, (text, error)
    test.__name__ = f"wedged_{role}_turns_ready_to_503"
    return test


def wedged_transfer_turns_ready_to_503(role):
    """The step ends and token 0 comes, but no block moves: 1P1D, so no request can finish."""
    def test():
        with serve("--fault", f"{role}-transfer:1:wedge") as one:
            stream = one.stream("Once upon a time", 20)
            stream.read(1)
            server.wait_until(lambda: health(one)[0] == 503, "ready turns to 503", STALL_SEEN)
            status, body = health(one)
            assert status == 503 and f"{role} 0 has moved no KV blocks" in body["reason"], body
            assert one.get("/health/live")[0] == 200
            _, error = stream.read()
            assert error, "it cannot have finished"
            os.kill(one.pid(f"{role} 0"), signal.SIGCONT)
            one.wait_ready()
            assert one.complete("Once upon a time", 4)[0] == 200
            one.wait_all_blocks_free()
    test.__name__ = f"wedged_{role}_transfer_turns_ready_to_503"
    return test


def wedged_for_good_ends_in_a_named_error():
    """It never moves again: its request gets an error that names it; the other node takes new ones."""
    with serve("--decode", "2", "--threads", "1", "--device-memory", "128MiB",
               "--fault", "decode-compute:2:wedge") as one:
        one.wait_metric("spillway_nodes", 3, NO_TIME)  # both decode nodes can be used
        streams = [one.stream("Once upon a time", 20) for _ in range(2)]  # one for each decode node
        server.wait_until(lambda: health(one)[1].get("degraded"), "the node is named", NO_TIME)
        status, body = health(one)
        assert status == 200 and "decode 0 has made no step" in body["degraded"][0], body
        for _ in range(3):
            assert one.complete("Once upon a time", 8)[0] == 200
        errors = [error for _, error in (stream.read() for stream in streams) if error]
        assert len(errors) == 1 and "decode 0 made no progress" in errors[0], errors
        one.process.send_signal(signal.SIGTERM)
        assert exit_code(one) == 0, "nobody waits for a step that hangs"


def crash_loop_is_reported():
    with serve("--restart-delay", "0.05", "--restart-delay-max", "2") as one:
        for times in range(1, 6):
            server.wait_until(lambda: one.log_text().count("started decode 0") == times, "it is there", NO_TIME)
            os.kill(one.pid("decode 0"), signal.SIGKILL)
            server.wait_until(lambda: one.log_text().count("decode 0 killed by signal 9") >= times, "it ended", NO_TIME)
        one.wait_log("crash loop: decode 0 ended 5 times", NO_TIME)
        server.wait_until(lambda: any("decode 0 keeps crashing" in reason for reason in
                                      [*health(one)[1].get("reasons", []), *health(one)[1].get("degraded", [])]),
                          "health says so", NO_TIME)
        one.wait_ready(NO_TIME)
        assert one.complete("Once upon a time", 4)[0] == 200


def run_folder(one):
    (folder,) = set(part[:-len("/gateway.sock")] for part in one.log_text().split("ipc://")[1:2]
                    for part in [part.split()[0]])
    return folder


def what_a_killed_run_left_is_removed():
    with serve() as living:
        with serve() as dead:
            left = run_folder(dead)
            children = [dead.pid(name) for name in ("gateway", "prefill 0", "decode 0")]
            dead.process.kill()
            dead.process.wait()
            server.wait_until(lambda: all(server.process_state(pid) in (None, "Z") for pid in children), "children end")
            assert os.path.isdir(left)
        doctor = subprocess.run([SPILLWAY, "doctor", "--port", "0", "--secret-file", dead.command[-1] + ".none"],
                                capture_output=True, text=True, timeout=NO_TIME)
        assert left in doctor.stdout and run_folder(living) not in doctor.stdout, doctor.stdout
        with serve():
            assert not os.path.exists(left), "the orphan is still there"
            assert os.path.isdir(run_folder(living)), "a living run lost its folder"
        assert living.complete("Once upon a time", 4)[0] == 200


if __name__ == "__main__":
    sys.exit(server.run_tests([
        first_signal_drains, drain_limit_ends_what_is_left, second_signal_is_now, a_node_told_to_leave_finishes_first,
        wedged_compute_turns_ready_to_503("prefill"), wedged_compute_turns_ready_to_503("decode"),
        wedged_transfer_turns_ready_to_503("prefill"), wedged_transfer_turns_ready_to_503("decode"),
        wedged_for_good_ends_in_a_named_error, crash_loop_is_reported, what_a_killed_run_left_is_removed]))
