#!/usr/bin/env python3
"""More clients than a server can serve at once: idle streams, overload. Usage: crowd_test.py SPILLWAY MODEL"""
import asyncio
import re
import sys
import time
from collections import Counter

import server
from edge_clients import PlainServer, memory_kib, open_files, stream_request, wait_nothing_left

SPILLWAY, MODEL = sys.argv[1:3]
STREAMS = 2000
STREAM_KIB_MAX = 64  # of the gateway's memory for one idle stream: docs/operations.md
LOOKS_WITHIN_S = 5.0  # a health check or a scrape amid the crowd, on a machine that does other things too


def timed(call):
    start = time.monotonic()
    call()
    return time.monotonic() - start


async def idle_stream(port, pinged, served, leave, reset):
    """Asks, counts itself in when a comment came, or when its turn came before one, and stays until it may leave."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(stream_request(4000))

    async def read():
        waits = True
        while piece := await reader.read(65536):
            if waits and (b": ping\n" in piece or b"data: " in piece):
                waits = False
                (pinged if b": ping\n" in piece else served).append(time.monotonic())
    reading = asyncio.create_task(read())
    await leave.wait()
    reading.cancel()
    writer.transport.abort() if reset else writer.close()


def look_while_they_wait(one, pinged, served):
    """What health checks and scrapes take meanwhile: the slowest of each, in seconds."""
    deadline, slowest = time.monotonic() + 60, {"/health/ready": 0.0, "/metrics": 0.0}
    while len(pinged) + len(served) < STREAMS * 0.98:
        assert time.monotonic() < deadline, f"{len(pinged)} of {STREAMS} streams were pinged, {len(served)} served"
        for path in slowest:
            slowest[path] = max(slowest[path], timed(lambda: one.get(path)))
        time.sleep(0.2)
    return slowest


def two_thousand_idle_streams_are_pinged_and_cost_little():
    """One runs, the others wait; all leave at once."""
    with open_files(8192), PlainServer(SPILLWAY, MODEL, "--queue-max", "2100", "--max-sequences", "1", "--max-model-len",
                                       "4096") as one:
        pid = one.pid("gateway")
        before, pinged, served = memory_kib(pid), [], []

        async def crowd():
            leave = asyncio.Event()
            streams = [asyncio.create_task(idle_stream(one.port, pinged, served, leave, number % 2))
                       for number in range(STREAMS)]
            looks = await asyncio.to_thread(look_while_they_wait, one, pinged, served)
            with_them = memory_kib(pid), one.metric("spillway_requests_queued"), one.metric("spillway_http_connections")
            leave.set()
            await asyncio.gather(*streams)
            return looks, with_them
        looks, (memory, queued, connections) = asyncio.run(crowd())
        each = (memory - before) / STREAMS
        print(f"        {each:.1f} KiB a stream, slowest looks {looks}, {queued:.0f} queued")
        assert len(pinged) > STREAMS * 0.9, (len(pinged), len(served))
        assert connections > STREAMS * 0.98 and queued > STREAMS * 0.9, (connections, queued)
        assert each < STREAM_KIB_MAX, f"{each} KiB a stream"
        assert max(looks.values()) < LOOKS_WITHIN_S, looks
        wait_nothing_left(one, 30)
        assert one.complete("A", 2)[0] == 200


TOKENS = 200  # of each request of the overload
PLACES, QUEUE = 2, 8
OVERTAKEN_MAX = QUEUE // 2 - 1  # places: the gateway's two threads that tokenise may overtake each other
MEASURE_S, OFFER_S = 3, 5


class Outcome:
    def __init__(self):
        self.sent = time.monotonic()
        self.status = self.retry_after = self.first = None
        self.whole = False


async def ask(port):
    outcome = Outcome()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(stream_request(TOKENS).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    got = b""
    while piece := await reader.read(65536):
        got += piece
        if outcome.first is None and b"data: " in got:
            outcome.first = time.monotonic()
    writer.close()
    head = got.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:])
    outcome.status = int(head[0].split()[1])
    outcome.retry_after = headers.get("Retry-After")
    outcome.whole = b"data: [DONE]" in got
    return outcome


async def requests_per_second(port):
    """What a few clients get done that ask again as soon as they are served."""
    done, until = 0, time.monotonic() + MEASURE_S

    async def client():
        nonlocal done
        while time.monotonic() < until:
            outcome = await ask(port)
            assert outcome.whole, outcome.status
            done += 1
    await asyncio.gather(*(client() for _ in range(PLACES * 2)))
    return done / MEASURE_S


async def offer(port, per_second):
    """Requests at that rate, whatever becomes of those before them."""
    clients, start = [], time.monotonic()
    while (now := time.monotonic() - start) < OFFER_S:
        while len(clients) < now * per_second:
            clients.append(asyncio.create_task(ask(port)))
        await asyncio.sleep(0.002)
    return await asyncio.wait_for(asyncio.gather(*clients), 60)


def most_out_of_order(one):
    """By how many places a request was begun earlier or later than it came. Ids are numbers in order of arrival."""
    ids = re.findall(r"\[prefill 0\] request_begun .*?\brequest=([0-9a-f]+)", one.log_text())
    begun = [int(number[16:], 16) for number in ids]
    assert len(begun) == len(set(begun)) > QUEUE, begun
    return max(abs(place - sorted_place) for sorted_place, place in
               enumerate(sorted(range(len(begun)), key=begun.__getitem__)))


def ten_times_overload_is_refused_honestly():
    with PlainServer(SPILLWAY, MODEL, "--max-sequences", str(PLACES), "--queue-max", str(QUEUE),
                     "--log-level", "debug") as one:
        rate = asyncio.run(requests_per_second(one.port))
        pid = one.pid("gateway")
        before = memory_kib(pid)
        outcomes = asyncio.run(offer(one.port, 10 * rate))
        served = [outcome for outcome in outcomes if outcome.status == 200]
        # 429 by the queue; where the cores are busy, 503 by the limit of connections before that.
        refused = [outcome for outcome in outcomes if outcome.status in (429, 503)]
        grown = memory_kib(pid) - before
        print(f"        {rate:.1f} requests a second; of {len(outcomes)} at ten times that {len(served)} served, "
              f"{grown} KiB grown")
        assert len(served) + len(refused) == len(outcomes), Counter(outcome.status for outcome in outcomes)
        assert any(outcome.status == 429 for outcome in refused)
        assert len(refused) > len(outcomes) / 2 and len(served) >= rate * OFFER_S / 4 + QUEUE, (len(served), len(refused))
        assert all(outcome.whole for outcome in served), "an admitted request did not finish"
        places = most_out_of_order(one)
        assert places <= OVERTAKEN_MAX, f"an admitted request lost its place by {places}"
        assert all(1 <= int(outcome.retry_after) <= 60 for outcome in refused)
        assert grown < 32 << 10, f"the gateway grew by {grown} KiB"
        wait_nothing_left(one)


if __name__ == "__main__":
    sys.exit(server.run_tests([two_thousand_idle_streams_are_pinged_and_cost_little,
                               ten_times_overload_is_refused_honestly]))
