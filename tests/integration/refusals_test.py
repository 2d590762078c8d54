#!/usr/bin/env python3
"""What other servers are known to answer 200 or 500 to is refused by a real one. Usage: refusals_test.py SPILLWAY MODEL"""
import http.client
import json
import socket
import sys

import server

SPILLWAY, MODEL = sys.argv[1:3]
TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]

# path, body, field that the error names
PEERS_FAILURES = (
    (TEXT, {"prompt": "a", "temperature": -1}, "temperature"),
    (TEXT, {"prompt": "a", "temperature": 99}, "temperature"),
    (TEXT, {"prompt": "a", "top_p": 2}, "top_p"),
    (TEXT, {"prompt": "a", "presence_penalty": 9}, "presence_penalty"),
    (TEXT, {"prompt": "a", "logprobs": 10**6}, "logprobs"),
    (TEXT, {"prompt": "a", "stop": 7}, "stop"),
    (TEXT, {"prompt": "a", "stream": "yes"}, "stream"),
    (TEXT, {"prompt": "a", "model": "any"}, "model"),
    (TEXT, {"prompt": "a", "n": 10**9}, "n"),
    (TEXT, {"prompt": "a", "min_tokens": 10, "max_tokens": 2}, "min_tokens"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": HELLO, "model": "any"}, "model"),
    (CHAT, {"messages": [{"role": 7, "content": "a"}]}, "messages"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages"),
    (CHAT, {"messages": HELLO, "top_logprobs": 10**6}, "top_logprobs"),
    (CHAT, {"messages": HELLO, "tools": [{"type": "function"}]}, "tools"),
    (CHAT, {"messages": HELLO, "response_format": {"type": "json_schema"}}, "response_format"),
)


def what_others_accept_is_refused_and_serving_goes_on():
    with server.Server(SPILLWAY, MODEL) as one:
        for path, body, field in PEERS_FAILURES:
            status, answer = one.post(path, body)
            assert status == (404 if field == "model" else 400), (body, status)
            assert answer["error"]["param"] == field and field in answer["error"]["message"], (body, answer)
            assert one.complete("Still here:", 1)[0] == 200, body
        with socket.create_connection(("127.0.0.1", one.port), timeout=server.ANSWER_WITHIN_S) as stranger:
            stranger.sendall(b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 200_000 + b"\r\n\r\n")
            response = http.client.HTTPResponse(stranger)
            response.begin()
            assert response.status == 431, response.status
            assert json.loads(response.read())["error"]["code"] == "header_too_large"
        assert one.complete("Still here:", 1)[0] == 200
        one.wait_all_blocks_free()


if __name__ == "__main__":
    sys.exit(server.run_tests([what_others_accept_is_refused_and_serving_goes_on]))
