#!/usr/bin/env python3
"""What the `openai` client raises when a server is full, at fault or drains, with and without `stream`. Needs that
client's interpreter. Usage: client_failures.py SPILLWAY MODEL"""
import json
import signal
import sys

import openai

import server

SPILLWAY, MODEL = sys.argv[1:3]


def ask(one, stream, max_tokens=8):
    """The text of a completion, raising what the client raises, also in mid-stream."""
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{one.port}/v1", api_key="none", max_retries=0, timeout=60)
    answer = client.completions.create(model="*", prompt="The capital of France is", max_tokens=max_tokens,
                                       temperature=0, stream=stream, extra_body={"ignore_eos": True})
    if not stream:
        return answer.choices[0].text
    ask.text = ""
    for chunk in answer:
        ask.text += chunk.choices[0].text
    return ask.text


def raised(kind, one, stream, **fields):
    try:
        ask(one, stream, **fields)
    except openai.APIError as error:
        assert type(error) is kind, f"stream={stream}: {error!r}"
        return error
    raise AssertionError(f"no {kind.__name__} with stream={stream}")


def check_status(error, status, kind, code):
    """An error that is the answer's status, not an event."""
    assert (error.status_code, error.type, error.code, error.param) == (status, kind, code, None), vars(error)
    assert error.response.headers["x-request-id"], error.response.headers


def a_full_queue_is_a_rate_limit_error():
    with server.Server(SPILLWAY, MODEL, "--max-sequences", "1", "--queue-max", "1") as one:
        runs = one.stream("Once upon a time", 1900)
        runs.read(1)
        waits = one.stream("Once upon a time", 1900)
        one.wait_metric("spillway_requests_queued", 1)
        for stream in (False, True):
            error = raised(openai.RateLimitError, one, stream)
            check_status(error, 429, "rate_limit_error", "queue_full")
            assert 1 <= int(error.response.headers["retry-after"]) <= 60, error.response.headers
        waits.leave()
        runs.leave()
        one.wait_all_blocks_free()
        assert ask(one, False) == ask(one, True)


def a_fault_before_the_first_token_is_an_internal_server_error():
    with server.Server(SPILLWAY, MODEL, "--fault", "prefill-nan:1", "--fault", "decode-nan:1") as one:
        for stream in (True, False):  # at the prefill node; then at the decode node, of an answer in one piece
            error = raised(openai.InternalServerError, one, stream)
            check_status(error, 500, "server_error", "internal")
            assert error.response.headers["x-request-id"] in error.message, error.message
        assert ask(one, False) == ask(one, True)


def a_fault_in_mid_stream_is_an_api_error():
    with server.Server(SPILLWAY, MODEL, "--fault", "decode-nan:4") as one:
        error = raised(openai.APIError, one, True)
        assert error.body["type"] == "server_error" and error.body["code"] == "internal", error.body
        assert "not finite" in error.message and ask.text, (error.message, ask.text)
        assert ask(one, False).startswith(ask.text) and ask(one, True)


def draining_is_an_internal_server_error_503():
    with server.Server(SPILLWAY, MODEL, "--drain-timeout", "8") as one:
        runs = one.stream("Once upon a time", 1900)
        runs.read(1)
        one.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: one.get("/health/ready")[0] == 503, "it drains")
        assert json.loads(one.get("/health")[1])["status"] == "draining"
        for stream in (False, True):
            error = raised(openai.InternalServerError, one, stream)
            check_status(error, 503, "server_error", "unavailable")
            assert error.response.headers["retry-after"] == "1" and "draining" in error.message, error.message
        runs.leave()
        one.process.wait(15)


if __name__ == "__main__":
    sys.exit(server.run_tests([a_full_queue_is_a_rate_limit_error,
                               a_fault_before_the_first_token_is_an_internal_server_error,
                               a_fault_in_mid_stream_is_an_api_error, draining_is_an_internal_server_error_503]))
