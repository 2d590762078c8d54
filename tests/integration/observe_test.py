#!/usr/bin/env python3
"""What a served model says of itself: JSON log lines and metrics. Usage: observe_test.py SPILLWAY MODEL PROMTOOL"""
import json
import re
import subprocess
import sys

import server

SPILLWAY, MODEL, PROMTOOL = sys.argv[1:4]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "xylophone"  # of no other line
PROMPT = f"My {SECRET} is as old as the hills. " * 20
BLOCK_TOKENS, OUTPUT_TOKENS = 64, 8


def send(one, body, headers):
    connection = one.connection()
    connection.request("POST", "/v1/completions", json.dumps(body), {**one.headers(), **headers})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def json_lines(one):
    lines = []
    for text in one.log_text().splitlines():
        assert all(0x20 <= ord(c) <= 0x7e for c in text), text
        lines.append(json.loads(text))
    return lines


def each_json_line_tells_who_and_when_and_requests_are_followed_through_the_nodes():
    with server.Server(SPILLWAY, MODEL, "--log-level", "debug", "--log-format", "auto") as one:  # its stderr is a file
        body = {"prompt": PROMPT, "max_tokens": OUTPUT_TOKENS, "temperature": 0, "ignore_eos": True, "stop": SECRET}
        status, answer = send(one, body, {"X-Request-Id": "mine-1", "traceparent": f"00-{TRACE}-{PARENT}-01"})
        assert status == 200, answer
        text = answer["choices"][0]["text"]
        assert send(one, body, {"X-Request-Id": "a\" pid=1", "traceparent": "00-0-0-00"})[0] == 200
        status, _ = send(one, {**body, "model": f"{SECRET}\n{{\"level\": \"forged\"}}\x1b[31m"}, {})
        assert status == 404, status
        assert one.get("/%0a\"forged\\")[0] == 404
        server.wait_until(lambda: one.log_text().count('"request_done"') >= 4, "both nodes' and gateway's lines")
        lines = json_lines(one)
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]), line
        assert line["level"] in ("debug", "info", "warning") and line["message"], line
        assert line["process"] in ("serve", "gateway", "prefill 0", "decode 0"), line
        assert SECRET not in json.dumps(line) and text.strip() not in json.dumps(line), line
    done = [line for line in lines if line["message"] == "request_done" and line["process"] == "gateway"]
    assert len(done) == 2 and done[0]["x_request_id"] == "mine-1" and done[0]["trace_id"] == TRACE, done
    assert "x_request_id" not in done[1] and "trace_id" not in done[1], done
    assert answer["id"].endswith(done[0]["request"]), (answer["id"], done)
    for request, trace in ((done[0]["request"], TRACE), (done[1]["request"], None)):
        followed = {(line["process"], line["message"]): line for line in lines if line.get("request") == request}
        for key in (("prefill 0", "request_begun"), ("prefill 0", "request_prefilled"), ("decode 0", "request_begun"),
                    ("decode 0", "request_decodes"), ("decode 0", "request_done"), ("gateway", "request_done")):
            assert key in followed, (key, followed.keys())
        for line in followed.values():
            assert line.get("trace_id") == trace and line.get("parent_id") == (PARENT if trace else None), line
    refused = [line for line in lines if line["message"] == "request_refused"]
    assert {line["path"] for line in refused} >= {"/v1/completions", "/%0a\"forged\\"}, refused


def promtool(page):
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=page, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def the_page_is_clean_for_promtool_and_tells_what_was_done():
    with server.Server(SPILLWAY, MODEL) as one:
        def labelled(name, **labels):
            samples = re.findall(rf"^{name}{{(.*)}} (\S+)$", one.get("/metrics")[1], re.M)
            return sum(float(value) for text, value in samples if all(f'{k}="{v}"' in text for k, v in labels.items()))

        status, first = one.complete(PROMPT, OUTPUT_TOKENS)
        assert status == 200, first
        prompt_tokens = first["usage"]["prompt_tokens"]
        blocks, full = -(-prompt_tokens // BLOCK_TOKENS), prompt_tokens // BLOCK_TOKENS
        assert full >= 2, prompt_tokens
        one.wait_all_blocks_free()
        for name, expected in (("spillway_kv_transfers_total", 1), ("spillway_kv_transfer_seconds_count", 1),
                               ("spillway_inter_token_latency_seconds_count", OUTPUT_TOKENS - 1),
                               ("spillway_time_to_first_token_seconds_count", 1),
                               ("spillway_prompt_tokens_total", prompt_tokens),
                               ("spillway_output_tokens_total", OUTPUT_TOKENS), ("spillway_cached_tokens_total", 0)):
            one.wait_metric(name, expected)
        for role, tokens, sequences in (("prefill", prompt_tokens, None), ("decode", OUTPUT_TOKENS - 1, OUTPUT_TOKENS - 1)):
            server.wait_until(lambda: labelled("spillway_step_tokens_total", role=role) == tokens, f"{role}'s rows")
            steps = labelled("spillway_steps_total", role=role)
            assert 1 <= steps == labelled("spillway_step_sequences_total", role=role), (role, steps)
            assert sequences in (None, steps), (role, steps)
            cached = labelled("spillway_kv_blocks", role=role, state="cached", tier="device")
            assert cached >= full, (role, cached)
            assert labelled("spillway_kv_blocks", role=role, state="used") == 0, role
        sent = one.metric("spillway_kv_transfer_bytes_total")
        assert sent > 0 and sent % blocks == 0, (sent, blocks)

        assert one.complete(PROMPT, OUTPUT_TOKENS)[0] == 200  # sent again is only what is no full block
        one.wait_metric("spillway_cached_tokens_total", full * BLOCK_TOKENS)
        one.wait_metric("spillway_kv_transfer_bytes_total", sent / blocks * (blocks + blocks - full))
        assert one.get("/no/such/path")[0] == 404 and labelled("spillway_http_responses_total", status=404) == 1

        page = one.get("/metrics")[1]
        assert promtool(page) == (0, ""), promtool(page)
        broken = page.replace("spillway_steps_total", "spillway_steps")
        assert promtool(broken)[0] != 0, "promtool takes anything"


if __name__ == "__main__":
    sys.exit(server.run_tests([each_json_line_tells_who_and_when_and_requests_are_followed_through_the_nodes,
                               the_page_is_clean_for_promtool_and_tells_what_was_done]))
