"""Two hosts with several links between them, each of a known rate: what the multipath tests and benches run on.

A host is a network namespace that hangs on a process and is gone with it. Link ``i`` joins 10.66.i.1 (on ``left``) and
10.66.i.2 (on ``right``) by a veth pair, shaped on both sides by a token bucket (tc-tbf(8)); ``cut`` takes its left
interface down, as a pulled cable does.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

FRAME, SEGMENT = 1514, 1448
"""Bytes of a full Ethernet frame, and of TCP payload in it (IPv4, timestamps): no TCP is faster than their ratio."""
MEGABIT = 1e6 / 8
BURST, QUEUE = "128k", "20ms"
SETUP_DEADLINE = 10.0


class Paths:
    """``rates``: of each link, in Mb/s. ``hosts``: processes whose network namespaces are to be joined, in place of two
    of its own. Use it in a ``with``; needs root."""

    def __init__(self, rates: Sequence[float], hosts: Sequence[int] = ()) -> None:
        self.rates = list(rates)
        self.left = [f"10.66.{i}.1" for i in range(len(rates))]
        self.right = [f"10.66.{i}.2" for i in range(len(rates))]
        self._live = ExitStack()
        self._pids: list[int] = list(hosts)

    @property
    def ceiling(self) -> float:
        """Bytes of payload per second that all links together can carry."""
        return sum(self.rates) * MEGABIT * SEGMENT / FRAME

    def ceiling_of(self, *links: int) -> float:
        return sum(self.rates[i] for i in links) * MEGABIT * SEGMENT / FRAME

    def __enter__(self) -> Paths:
        try:
            self._build()
        except BaseException:
            self._live.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.close()

    def enter(self, side: int) -> list[str]:
        """What goes before a command that shall run on the left (0) or the right (1) host."""
        return ["nsenter", "-t", str(self._pids[side]), "-n"]

    def shape(self, link: int, rate: float) -> None:
        """From now on the link carries ``rate`` Mb/s each way."""
        for side, name in enumerate("ab"):
            what = f"dev {name}{link} root tbf rate {rate}mbit burst {BURST} latency {QUEUE}"
            self._run(side, f"tc qdisc replace {what}")

    def cut(self, link: int) -> None:
        self._run(0, f"ip link set a{link} down")

    def swallow(self, link: int) -> None:
        """From now on nothing that the left host sends over the link arrives, and nobody is told: what is larger than
        the bucket is dropped."""
        self._run(0, f"tc qdisc replace dev a{link} root tbf rate 1kbit burst 10b latency 1ms")

    def heal(self, link: int) -> None:
        self._run(0, f"ip link set a{link} up")

    def _build(self) -> None:
        for _ in "ab" if not self._pids else "":
            host = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL)
            self._live.callback(host.wait)
            self._live.callback(host.kill)
            self._pids.append(host.pid)
        own, deadline = Path("/proc/self/ns/net").readlink(), time.monotonic() + SETUP_DEADLINE
        while any(Path(f"/proc/{pid}/ns/net").readlink() == own for pid in self._pids):
            if time.monotonic() > deadline:
                raise TimeoutError("unshare --net made no network namespace: it needs root")
            time.sleep(0.01)
        for side in range(2):
            self._run(side, "ip link set lo up")
        for i, rate in enumerate(self.rates):
            pair = f"a{i} netns {self._pids[0]} type veth peer name b{i} netns {self._pids[1]}"
            _check(f"ip link add {pair}".split())
            for side, name in enumerate("ab"):
                self._run(side, f"ip address add 10.66.{i}.{side + 1}/24 dev {name}{i}")
                self._run(side, f"ip link set {name}{i} up")
            self.shape(i, rate)

    def _run(self, side: int, command: str) -> None:
        _check([*self.enter(side), *command.split()])


def _check(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SETUP_DEADLINE, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
