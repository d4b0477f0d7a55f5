"""RDMA rows of the bench, inside the guest: ours and perftest in turn over one path of soft-RoCE.

``python -m tests.bench.rdma_job write|read|send|rate|latency PAIRS`` (of a verb its bandwidth): one JSON line for each
row.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.bench.pairs import Spread, alternate
from tests.bench.tcp import Ends, our_ends, pin

DEVICES = ("rxea0", "rxeb0")
SIZES = (4 << 10, 64 << 10, 1 << 20)
SECONDS = 1.0
TRIPS = 3000
PORT = 18600
LISTS = (8, 16, 32, 64)
TRIES = 4
FEWEST = 5
"""Messages that perftest takes."""


def perftest(tool: str, *options: object) -> list[float]:
    """The figures of the client's last row. Under emulation perftest now and then cannot calibrate its clock, or finds
    nobody listening: then it is run again."""
    words = [*map(str, options), "-F", "-p", str(PORT), "-u", "18"]
    said = ""
    for _ in range(TRIES):
        server = subprocess.Popen(
            [*pin(0), tool, "-d", DEVICES[1], *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            listening = ["ss", "-Hltn", f"sport = :{PORT}"]
            while server.poll() is None and not subprocess.run(listening, capture_output=True, check=True).stdout:
                time.sleep(0.02)
            client = [*pin(1), tool, "-d", DEVICES[0], *words, "10.0.0.2"]
            done = subprocess.run(client, capture_output=True, text=True, timeout=60, check=False)
            said = done.stdout + done.stderr
            rows = re.findall(r"^ \d+ +\d+ +[\d.]+ .*$", said, re.M)
            if done.returncode == 0 and rows and "Correlation" not in said:
                server.wait(timeout=60)
                return [float(word) for word in rows[-1].split()]
        except subprocess.TimeoutExpired as late:
            said = str(late)
        finally:
            server.kill()
            server.wait()
    raise RuntimeError(f"{tool} {' '.join(words)} gave no figure: {said[-1500:]}")


def messages(rate: float, size: int) -> int:
    """As many as take about a second at ``rate`` bytes per second."""
    return max(8, int(rate * SECONDS / size))


def row(what: str, chain: Any, pairs: int, **more: object) -> dict[str, object]:
    return {
        "what": what,
        "ours": Spread.of(chain.ours).median,
        "peer": Spread.of(chain.peer).median,
        "ratios": chain.ratios(),
        "controls": chain.controls(),
        "pairs": pairs,
        **more,
    }


def bandwidth_of(ends: Ends, verb: str, size: int, count: int) -> float:
    got = ends.rdma(DEVICES, count, "bandwidth", verb=verb, size=size, duration=SECONDS, warmup=0.0)
    return got["bytes"] / got["elapsed"]


def peer_bandwidth(verb: str, size: int, count: int, number: int, *options: object) -> float:
    """Bytes per second; perftest prints MiB and calls them MB."""
    return perftest(f"ib_{verb}_bw", "-s", size, "-q", count, "-n", number, *options)[3] * 2**20


def bandwidth(verb: str, ends: Ends, pairs: int) -> Iterator[dict[str, object]]:
    for size in SIZES:
        for count in (1, 4):
            number = max(FEWEST, messages(bandwidth_of(ends, verb, size, count), size) // count)
            chain = alternate(
                lambda: bandwidth_of(ends, verb, size, count),  # noqa: B023
                lambda: peer_bandwidth(verb, size, count, number),  # noqa: B023
                pairs,
                lambda: None,
            )
            yield row(f"{verb} {size} {count}", chain, pairs)


def rate(ends: Ends, pairs: int) -> Iterator[dict[str, object]]:
    size = 64
    number = messages(bandwidth_of(ends, "write", size, 1), size)
    lists = {length: peer_bandwidth("write", size, 1, number - number % length, "-l", length) for length in LISTS}
    best = max(lists, key=lambda length: lists[length])
    for what, options, count in (
        ("as it comes", (), number),
        (f"post list {best}", ("-l", best), number - number % best),
    ):
        chain = alternate(
            lambda: bandwidth_of(ends, "write", size, 1),
            lambda: peer_bandwidth("write", size, 1, count, *options),  # noqa: B023
            pairs,
            lambda: None,
        )
        yield row(f"rate {size} {what}", chain, pairs)


def latency(ends: Ends, pairs: int) -> Iterator[dict[str, object]]:
    for verb in ("write", "send"):
        late: list[float] = []
        peers: list[float] = []

        def ours(verb: str = verb, late: list[float] = late) -> float:
            got = ends.rdma(DEVICES, 1, "latency", verb=verb, size=2, iterations=TRIPS)
            late.append(got["p99"] / 2)
            return got["p50"] / 2

        def theirs(verb: str = verb, peers: list[float] = peers) -> float:
            # bytes, iterations, min, max, typical, average, deviation, 99 %, 99.9 %: microseconds
            figures = perftest(f"ib_{verb}_lat", "-s", 2, "-n", TRIPS)
            peers.append(figures[7] * 1e-6)
            return figures[4] * 1e-6

        chain = alternate(ours, theirs, pairs, lambda: None)
        yield row(f"{verb} 2", chain, pairs, p99=Spread.of(late).median, peer_p99=Spread.of(peers).median)


def main() -> None:
    rows: dict[str, Callable[[Ends, int], Iterator[dict[str, object]]]] = {
        **{verb: functools.partial(bandwidth, verb) for verb in ("write", "read", "send")},
        "rate": rate,
        "latency": latency,
    }
    measure = rows[sys.argv[1]]
    with our_ends() as ends:
        for found in measure(ends, int(sys.argv[2])):
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
