"""A running server through the `openai` client, and what tests of it share. The command line says where it is:
--base-url http://127.0.0.1:PORT [--api-key KEY]"""
import argparse
import contextlib
import http.client
import json
import re
import time
import urllib.parse

import openai

BLOCKS_FREE_WITHIN_S = 10
PROMPT = "The capital of France is"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--base-url", required=True)
parser.add_argument("--api-key", default="none", help="of a server that asks for keys")
arguments = parser.parse_args()
base = arguments.base_url.rstrip("/")
client = openai.OpenAI(base_url=base + "/v1", api_key=arguments.api_key, max_retries=0, timeout=120)
model = client.models.list().data[0].id


def equal(got, expected, what="value"):
    assert got == expected, f"{what}: {got!r} is not {expected!r}"


def raises(kind, status, param, code, **request):
    """The request is refused with this class, status, field and code; its message is for people."""
    create = client.chat.completions.create if "messages" in request else client.completions.create
    try:
        create(**{"model": model, **request})
    except kind as error:
        equal(error.status_code, status, "status")
        equal(error.param, param, "param")
        equal(error.code, code, "code")
        assert len(error.message) > 10, error.message
        return
    raise AssertionError(f"no {kind.__name__} for {param}")


def connection():
    parts = urllib.parse.urlsplit(base)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)


def get(path):
    with contextlib.closing(connection()) as one:
        one.request("GET", path, headers={"Authorization": f"Bearer {client.api_key}"})
        response = one.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()


def metric(name, labels=""):
    """Sum over the samples of one metric whose labels contain `labels`."""
    samples = re.findall(rf"^{name}(?:{{([^}}]*)}})? (\S+)$", get("/metrics")[2], re.M)
    assert samples, f"/metrics has no {name}"
    return sum(float(value) for found, value in samples if labels in found)


def wait_all_blocks_free():
    deadline = time.monotonic() + BLOCKS_FREE_WITHIN_S
    while time.monotonic() < deadline:
        free, total = metric("spillway_kv_blocks_free"), metric("spillway_kv_blocks")
        running = metric("spillway_requests_running")
        if free == total > 0 and running == 0:
            return
        time.sleep(0.05)
    raise AssertionError(f"after {BLOCKS_FREE_WITHIN_S} s {free:.0f} of {total:.0f} blocks are free, {running:.0f} run")


def complete(prompt=PROMPT, max_tokens=12, **fields):
    return client.completions.create(model=model, prompt=prompt, max_tokens=max_tokens, temperature=0, **fields)


def post(path, body):
    with contextlib.closing(connection()) as one:
        one.request("POST", path, json.dumps(body), {"Content-Type": "application/json",
                                                     "Authorization": f"Bearer {client.api_key}"})
        response = one.getresponse()
        return response.status, json.loads(response.read())
