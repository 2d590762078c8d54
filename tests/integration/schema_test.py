#!/usr/bin/env python3
"""A real server against its own /openapi.json. Usage: schema_test.py SPILLWAY MODEL CLIENT_PYTHON"""
import os
import re
import subprocess
import sys

import server

SPILLWAY, MODEL, CLIENT_PYTHON = sys.argv[1:4]
CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
          "negative_data_rejection,unsupported_method")
# First what the schema suggests (coverage), then made-up requests until MAKE_UP_FOR_S are over.
EXAMPLES = 4  # of each route, in each round
MAKE_UP_FOR_S = 30
ENDS_WITHIN_S = 240  # of a busy machine


def schemathesis_finds_nothing():
    with server.Server(SPILLWAY, MODEL, "--max-model-len", "64") as one:  # short answers
        command = [os.path.join(os.path.dirname(CLIENT_PYTHON), "schemathesis"), "run",
                   f"http://127.0.0.1:{one.port}/openapi.json", "--checks", CHECKS, "--max-examples", str(EXAMPLES),
                   "--max-time", str(MAKE_UP_FOR_S), "--seed", "1", "--request-timeout", "60",
                   "--phases", "coverage,fuzzing", "--no-color"]
        ran = subprocess.run(command, cwd=one.folder.name, capture_output=True, text=True, timeout=ENDS_WITHIN_S)
        assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-1000:]
        tried = re.search(r"(\d+) generated, \1 passed", ran.stdout)
        assert tried and int(tried[1]) > 500, ran.stdout[-2000:]
        assert one.complete("Still here:", 1)[0] == 200
        one.wait_all_blocks_free()


if __name__ == "__main__":
    sys.exit(server.run_tests([schemathesis_finds_nothing]))
