"""TCP over loopback: bandwidth against iperf3, round trips against sockperf.

Both ends are processes of one thread each, the receiving (answering) one on the first CPU that we may use and the other
on the second, for us and for the peers alike. iperf3's figure and ours are what the receiver got, from the first byte
on. Our verification pass comes after the timed part.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.pairs import Spread, alternate
from tests.bench.table import Row, missing

PAIRS = 15
FEWEST_PAIRS, MOST_PAIRS, ERROR = 31, 61, 0.015
"""Bandwidth scatters and drifts: more pairs, until the median ratio is known to 1.5 %."""
SECONDS = 1  # iperf3 knows whole seconds only
ROUND_TRIP_SECONDS = 0.5  # sockperf reports this much of the second that it is asked for
PEER_TIMEOUT = 30.0

Progress = Callable[[str, int], Callable[[], None]]
"""Told what is measured and in how many steps; gives back what is to be called after each step."""


def bandwidth(progress: Progress) -> Iterator[Row]:
    for size, name in ((64 << 10, "64 KiB"), (1 << 20, "1 MiB")):
        for streams in (1, 4):
            what = f"TCP bandwidth, {name}, {streams} stream{'s' * (streams > 1)}"
            wanted = "≥ 0.95"
            if not shutil.which("iperf3"):
                yield missing(what, "apt-get install iperf3", wanted)
                continue
            with our_ends() as ours, iperf3_server() as port:

                def we(size: int = size, streams: int = streams, ends: Ends = ours) -> float:
                    return ends.bandwidth(size, streams)

                def they(size: int = size, streams: int = streams, port: int = port) -> float:
                    return iperf3(port, size, streams)

                chain = alternate(
                    we, they, FEWEST_PAIRS, progress(what, 2 * FEWEST_PAIRS + 1), most=MOST_PAIRS, error=ERROR
                )
            ratio = Spread.of(chain.ratios())
            yield Row(
                what,
                f"{Spread.of(chain.ours).median * 8 / 1e9:.1f} Gb/s",
                wanted,
                ratio.median >= 0.95,
                f"iperf3 {Spread.of(chain.peer).median * 8 / 1e9:.1f} Gb/s",
                ratio,
                Spread.of(chain.controls()),
            )


def latency(progress: Progress) -> Iterator[Row]:
    for spin in (False, True):
        what = f"TCP round trip, 64 B, p50, both {'spinning' if spin else 'blocking'}"
        wanted = "≤ 1.05"
        if not shutil.which("sockperf"):
            yield missing(what, "apt-get install sockperf", wanted)
            continue
        with our_ends() as ours, sockperf_server(spin) as port:

            def we(spin: bool = spin, ends: Ends = ours) -> float:
                return ends.round_trip(64, spin)

            def they(spin: bool = spin, port: int = port) -> float:
                return sockperf(port, 64, spin)

            chain = alternate(we, they, PAIRS, progress(what, 2 * PAIRS + 1))
        ratio = Spread.of(chain.ratios())
        yield Row(
            what,
            f"{Spread.of(chain.ours).median * 1e6:.2f} us",
            wanted,
            ratio.median <= 1.05,
            f"sockperf {Spread.of(chain.peer).median * 1e6:.2f} us",
            ratio,
            Spread.of(chain.controls()),
        )


# ------------------------------------------------------------------------------------------------ ours


class Ends:
    """Our two ends. They stay; each measurement has a new connection, as the peers' have."""

    def __init__(self, listening: subprocess.Popen[str], connecting: subprocess.Popen[str]) -> None:
        self._listening = listening
        self._connecting = connecting

    def bandwidth(self, size: int, lanes: int) -> float:
        """Bytes per second that arrived. Raises ValueError when any of them was wrong."""
        received, _sent = self._measure(lanes, False, "bandwidth", size=size, duration=float(SECONDS), warmup=0.0)
        if received["wrong"]:
            raise ValueError(f"{received['wrong']:.0f} bytes arrived wrong")
        return received["bytes"] / received["elapsed"]

    def round_trip(self, size: int, spin: bool) -> float:
        """Median round trip in seconds."""
        parameters: dict[str, Any] = {
            "size": size,
            "iterations": 10_000_000,
            "duration": ROUND_TRIP_SECONDS,
            "verify": True,
        }
        _answered, initiated = self._measure(1, spin, "latency", **parameters)
        return initiated["p50"]

    def rdma(self, devices: tuple[str, str], pairs: int, run: str, **parameters: Any) -> dict[str, float]:
        """What the end that initiates found, which is on the first of ``devices``."""
        rdma = {"devices": devices, "options": {"timeout_exponent": 18, "timeout": 30.0}}
        answered, initiated = self._measure(pairs, False, run, rdma, timeout=60.0, **parameters)
        if answered.get("wrong") or initiated.get("wrong"):
            raise ValueError("bytes arrived wrong")
        return initiated

    def _measure(
        self, lanes: int, spin: bool, run: str, rdma: dict[str, Any] | None = None, **parameters: Any
    ) -> tuple[dict[str, float], dict[str, float]]:
        order = {"lanes": lanes, "spin": spin, "run": run, "parameters": parameters, **(rdma or {})}
        _tell(self._listening, order)
        _tell(self._connecting, order | {"port": _hear(self._listening)["port"]})
        return _hear(self._listening), _hear(self._connecting)


@contextmanager
def our_ends() -> Iterator[Ends]:
    command = [sys.executable, "-m", "tests.bench.end"]
    ends = [
        subprocess.Popen([*pin(cpu), *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for cpu in (0, 1)
    ]
    try:
        yield Ends(*ends)
    finally:
        for end in ends:
            end.kill()
            end.communicate()


def _tell(end: subprocess.Popen[str], order: dict[str, Any]) -> None:
    assert end.stdin is not None
    end.stdin.write(json.dumps(order) + "\n")
    end.stdin.flush()


def _hear(end: subprocess.Popen[str]) -> dict[str, Any]:
    assert end.stdout is not None
    line = end.stdout.readline()
    if not line:
        raise RuntimeError("an end of ours died; see its message above")
    answer: dict[str, Any] = json.loads(line)
    return answer


# ----------------------------------------------------------------------------------------------- peers


def pin(cpu: int) -> list[str]:
    """Start of a command that runs on the ``cpu``-th CPU that we may use; nothing where we may use one only."""
    allowed = sorted(os.sched_getaffinity(0))
    return ["taskset", "--cpu-list", str(allowed[cpu])] if len(allowed) > 1 else []


@contextmanager
def iperf3_server() -> Iterator[int]:
    port = _free_port()
    with _server(["iperf3", "--server", "--bind", "127.0.0.1", "--port", str(port)], port):
        yield port


def iperf3(port: int, size: int, streams: int) -> float:
    """Bytes per second that iperf3's server received."""
    load = ["--length", str(size), "--parallel", str(streams), "--time", str(SECONDS)]
    said = _client(["iperf3", "--client", "127.0.0.1", "--port", str(port), *load, "--json"])
    return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 8


@contextmanager
def sockperf_server(spin: bool) -> Iterator[int]:
    port = _free_port()
    with _server(["sockperf", "server", "--tcp", "-i", "127.0.0.1", "-p", str(port), *_spinning(spin)], port):
        yield port


def sockperf(port: int, size: int, spin: bool) -> float:
    """Median full round trip in seconds."""
    load = ["-i", "127.0.0.1", "-p", str(port), "-m", str(size), "-t", "1", *_spinning(spin)]
    said = _client(["sockperf", "ping-pong", "--tcp", "--full-rtt", *load])
    found = re.search(r"percentile 50\.000 = +([0-9.]+)", said)
    if found is None:
        raise ValueError(f"sockperf printed no median: {said[-1000:]}")
    return float(found[1]) / 1e6


def _spinning(spin: bool) -> list[str]:
    return ["--nonblocked"] if spin else []


def _client(command: list[str]) -> str:
    done = subprocess.run([*pin(1), *command], capture_output=True, text=True, timeout=PEER_TIMEOUT)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {(done.stdout + done.stderr)[-1000:]}")
    return done.stdout


@contextmanager
def _server(command: list[str], port: int) -> Iterator[None]:
    server = subprocess.Popen([*pin(0), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PEER_TIMEOUT
        while not _listens(port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} does not listen")
            time.sleep(0.05)
        yield
    finally:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    """Looked up in the kernel's table: to connect would be a client to a server that serves one."""
    sockets = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(local.endswith(f":{port:04X}") and state == "0A" for _, local, _, state, *_ in sockets)
