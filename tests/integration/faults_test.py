#!/usr/bin/env python3
"""kill -9 of each process: of a node at named fault points, in each phase of a request (the client gets an error or the
right tokens within 5 s), while idle, while requests wait. The next request gives the right tokens and no block leaks.
Usage: faults_test.py SPILLWAY MODEL"""
import http.client
import os
import signal
import sys
import threading
import time

import server

SPILLWAY, MODEL = sys.argv[1:3]
ERROR_WITHIN_S = 5
PROMPT = "The history of computing began " * 30  # more than two blocks, so that some parts leave before the last chunk

FAULTS = [  # each phase: before work, in compute, in transfer, at the handover, in decode
    "prefill-received", "prefill-step", "prefill-layer:5", "prefill-send:3", "prefill-done",
    "decode-reserved", "decode-landed:3", "decode-commit", "decode-step:2", "decode-token:3",
]
LONG = 60  # tokens: time enough to kill something meanwhile


def serve(*flags):
    """Steps are short, so that an answer within seconds of a kill does not depend on how fast this machine computes."""
    return server.Server(SPILLWAY, MODEL, "--chunk-tokens", "64", *flags)


def right_texts(*token_counts):
    with serve() as healthy:
        answers = [healthy.complete(PROMPT, count) for count in token_counts]
        assert all(status == 200 for status, _ in answers), answers
        return [body["choices"][0]["text"] for _, body in answers]


def kill_test(fault, stream, expected):
    def test():
        with serve("--fault", fault) as one:
            if stream:
                text, error = one.stream(PROMPT, 12).read()
            else:
                status, body = one.complete(PROMPT, 12)
                text, error = ("", body["error"]["message"]) if status != 200 else (body["choices"][0]["text"], None)
            answered = time.time()
            if error is None:
                assert text == expected, f"wrong text: {text!r}"
            else:
                assert expected.startswith(text), f"wrong text before the error: {text!r}"
                assert "prefill 0" in error or "decode 0" in error, f"the error names no node: {error}"
            killed = one.logged_at(f"{fault.split('-')[0]} 0 killed by signal 9")  # else the fault point was never passed
            assert answered - killed < ERROR_WITHIN_S, f"answered {answered - killed:.1f} s after the kill"
            one.wait_log("lost a node")
            next_is_right(one, expected)
    test.__name__ = f"kill_at_{fault}_{'stream' if stream else 'whole'}"
    return test


def next_is_right(one, expected):
    """The next request waits for the restarted process if it must, and nothing is left of those before."""
    status, body = one.complete(PROMPT, 12)
    assert status == 200 and body["choices"][0]["text"] == expected, body
    one.wait_ready(server.READY_WITHIN_S)
    one.wait_all_blocks_free()


def killed_while_idle(role, expected):
    def test():
        with serve() as one:
            os.kill(one.pid(f"{role} 0"), signal.SIGKILL)
            server.wait_until(lambda: one.get("/health/ready")[0] != 200, "the loss is noticed", 20)
            next_is_right(one, expected)
            assert f"{role} 0 killed by signal 9" in one.log_text()
    test.__name__ = f"killed_{role}_is_restarted"
    return test


def killed_prefill_does_not_end_what_decodes(expected_long):
    """Token 1 comes from D, which has the whole prompt by then: P can die."""
    def test():
        with serve() as one:
            stream = one.stream(PROMPT, LONG)
            stream.read(2)
            os.kill(one.pid("prefill 0"), signal.SIGKILL)
            one.wait_log("prefill 0 killed by signal 9")
            one.wait_metric("spillway_requests_running", 1)  # or it is over already, and this shows nothing
            assert stream.read() == (expected_long, None), stream.read()
            one.wait_log("lost a node")
            one.wait_ready(server.READY_WITHIN_S)
            one.wait_all_blocks_free()
    test.__name__ = "killed_prefill_does_not_end_what_decodes"
    return test


def queued_requests_outlive_a_kill(role, expected):
    """With one place, others wait in the gateway; the node dies, comes back, and they are served."""
    def test():
        with serve("--max-sequences", "1") as one:
            first = one.stream(PROMPT, 1000)
            first.read(2)
            waiting = [one.stream(PROMPT, 12) for _ in range(3)]
            one.wait_metric("spillway_requests_queued", 3)
            os.kill(one.pid(f"{role} 0"), signal.SIGKILL)
            if role == "decode":
                text, error = first.read()
                assert error and "decode 0" in error, (text, error)
            else:
                one.wait_log("lost a node")
                first.leave()
            for stream in waiting:
                assert stream.read() == (expected, None), stream.read()
            one.wait_ready(server.READY_WITHIN_S)
            one.wait_all_blocks_free()
    test.__name__ = f"queued_requests_outlive_a_killed_{role}"
    return test


def killed_gateway_is_restarted(expected):
    """The nodes live on, let go of its requests, and join the next one."""
    def test():
        with serve() as one:
            nodes = [one.pid("prefill 0"), one.pid("decode 0")]
            stream = one.stream(PROMPT, 400)
            stream.read(2)
            os.kill(one.pid("gateway"), signal.SIGKILL)
            one.wait_log("gateway killed by signal 9")
            try:
                stream.read()
            except (OSError, http.client.HTTPException, AssertionError):
                pass
            else:
                raise AssertionError("the stream ended as if nothing had happened")
            one.wait_ready(server.READY_WITHIN_S)
            next_is_right(one, expected)
            assert [one.pid("prefill 0"), one.pid("decode 0")] == nodes, "a node was restarted as well"
    test.__name__ = "killed_gateway_is_restarted"
    return test


def killed_serve_takes_its_children_along():
    with serve() as one:
        children = [one.pid(name) for name in ("gateway", "prefill 0", "decode 0")]
        one.process.kill()
        one.process.wait()
        server.wait_until(lambda: all(server.process_state(pid) in (None, "Z") for pid in children), "children end", 5)


def neighbours_survive(expected):
    """2P2D: one node dies in the middle of many requests; every request ends right or in an error, others go on."""
    def test():
        with serve("--prefill", "2", "--decode", "2", "--threads", "1", "--device-memory", "128MiB",
                           "--fault", "decode-token:20") as one:
            answers = []
            def ask():
                answers.append(one.complete(PROMPT, 12))
            clients = [threading.Thread(target=ask) for _ in range(8)]
            for client in clients:
                client.start()
            for client in clients:
                client.join(server.ANSWER_WITHIN_S)
            assert len(answers) == 8, f"{8 - len(answers)} requests hang"
            right = [body for status, body in answers if status == 200]
            assert right, "all failed although one decode node lives"
            assert all(body["choices"][0]["text"] == expected for body in right)
            one.wait_ready(server.READY_WITHIN_S)
            one.wait_all_blocks_free()
    test.__name__ = "neighbours_survive"
    return test


if __name__ == "__main__":
    EXPECTED, EXPECTED_LONG = right_texts(12, LONG)
    tests = [kill_test(fault, True, EXPECTED) for fault in FAULTS]
    tests += [kill_test(fault, False, EXPECTED) for fault in ("prefill-layer:5", "decode-token:3")]
    tests += [killed_while_idle("prefill", EXPECTED), killed_while_idle("decode", EXPECTED), neighbours_survive(EXPECTED),
              killed_prefill_does_not_end_what_decodes(EXPECTED_LONG),
              queued_requests_outlive_a_kill("prefill", EXPECTED), queued_requests_outlive_a_kill("decode", EXPECTED),
              killed_gateway_is_restarted(EXPECTED), killed_serve_takes_its_children_along]
    sys.exit(server.run_tests(tests))
