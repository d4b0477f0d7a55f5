"""The multipath engine over links of known rate between two hosts: how much of what they can carry it carries.

The yardstick is the ceiling: the sum of the nominal rates, times the payload in a full frame (1448 of 1514 bytes). Of
a link that is cut, slowed or comes and goes in mid-transfer, the least time that could have been is reckoned from what
had been delivered by then and from what is left (``_least``). Within a repetition everything runs in random order:
ours, the policies that look at no rate, the best link alone, and the kernel's own MPTCP. Before it plain iperf3 goes
over all links at once; where that falls under 0.93 of the nominal rates the machine was busy with something else, and
the repetition is done again; how often is said.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

from tests.bench.pairs import Spread
from tests.bench.program import measured
from tests.bench.table import Row
from tests.bench.tcp import Progress
from tests.lab import path_program
from tests.lab.paths import MEGABIT, Paths

SIZE = 512 << 20
REPETITIONS = 7
QUIET = 0.93
"""Of the nominal rates, of plain iperf3 on all links together; 0.94 to 0.95 on a quiet machine."""
MOST_AGAIN = 14
TROUBLE_AT = 2.0
UNEQUAL = (400.0, 200.0, 100.0, 50.0)
LIMIT = 120.0
MPTCP = 262  # IPPROTO_MPTCP, linux/in.h

_MPTCP_SERVER = f"""
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, {MPTCP})
server.bind(("", 0)); server.listen(1)  # of one address only, it would refuse the other links
print(server.getsockname()[1], flush=True)
one, _ = server.accept()
left, piece = int(sys.argv[1]), bytearray(1 << 20)
while left:
    left -= one.recv_into(piece)
one.sendall(b"!")
one.recv(1)
"""
_MPTCP_CLIENT = f"""
import socket, sys, time
one = socket.socket(socket.AF_INET, socket.SOCK_STREAM, {MPTCP})
one.connect((sys.argv[1], int(sys.argv[2])))
left, piece = int(sys.argv[3]), bytes(1 << 20)
begin = time.monotonic()
while left:
    left -= one.send(piece[:left])
one.recv(1)
print(time.monotonic() - begin)
"""


@dataclass(frozen=True)
class Transfer:
    """``size`` bytes in ``seconds``, of which ``again`` went twice; ``sent`` is what the sending end saw."""

    seconds: float
    again: int
    sent: dict[str, Any]


def steady(rates: tuple[float, ...], progress: Progress) -> Iterator[Row]:
    """Nothing happens to the links, of so many Mb/s."""
    name = "/".join(f"{rate:g}" for rate in rates) + " Mb/s"
    with Paths(rates) as paths:
        _mptcp(paths)
        kinds: dict[str, Callable[[], Transfer]] = {
            "ours": partial(_ours, paths),
            "MPTCP": partial(_over_mptcp, paths),
        }
        if rates == UNEQUAL:
            kinds["round robin"] = partial(_ours, paths, policy="round_robin")
            kinds["best link alone"] = partial(_ours, paths, policy="single")
        seen, again = _repeat(paths, kinds, progress(f"multipath, {name}", REPETITIONS))
        shares = {kind: [SIZE / one.seconds / paths.ceiling for one in all_] for kind, all_ in seen.items()}
    spread = Spread.of(shares["ours"])
    peers = ", ".join(f"{kind} {median(of):.3f}" for kind, of in shares.items() if kind != "ours")
    twice = max(one.again for one in seen["ours"]) / SIZE
    yield Row(
        f"multipath, links of {name}, share of the ceiling",
        f"{spread.median:.3f}",
        "≥ 0.97",
        spread.median >= 0.97,
        peers,
        spread,
        note=f"sent twice at most {twice:.2%}; {again} repetitions done again",
    )
    yield Row(f"multipath, links of {name}, bytes sent twice", f"{twice:.2%}", "≤ 2 %", twice <= 0.02)


def faults(progress: Progress) -> Iterator[Row]:
    """The fastest link is cut, slowed down eightfold, or comes and goes once a second."""
    with Paths(UNEQUAL) as paths:
        for what, wanted in (("cut", 0.95), ("slowed eightfold", 0.95), ("up and down at 1 Hz", 0.90)):
            kinds: dict[str, Callable[[], Transfer]] = {
                "ours": partial(_in_trouble, paths, what),
            }
            seen, again = _repeat(paths, kinds, progress(f"multipath, fastest link {what}", REPETITIONS))
            shares = Spread.of([_least(paths, what, one.sent) / one.seconds for one in seen["ours"]])
            yield Row(
                f"multipath, fastest link {what}, share of what could be",
                f"{shares.median:.3f}",
                f"≥ {wanted}",
                shares.median >= wanted,
                ratio=shares,
                note=f"{again} repetitions done again",
            )
            if what == "cut":
                late = Spread.of([one.sent["recovered"] - one.sent["trouble"] for one in seen["ours"]])
                yield Row(
                    "multipath, from the cut until the last byte of it had come another way",
                    f"{late.median * 1e3:.0f} ms",
                    "≤ 250 ms",
                    late.median <= 0.25,
                    note=f"{late.p10 * 1e3:.0f} to {late.p90 * 1e3:.0f} ms",
                )


def loopback(progress: Progress) -> Iterator[Row]:
    """Eight paths of memory: what the engine costs beside the checksum and the copy."""
    progress("multipath, eight paths of memory", 1)
    pairs = measured("cwai_multipath_bench", "loopback")
    ratio = Spread.of([bare / ours for ours, bare in pairs])
    yield Row(
        "multipath, eight paths of memory, share of a plain copy with its CRC-32C",
        f"{ratio.median:.3f}",
        "≥ 0.95",
        ratio.median >= 0.95,
        f"a loop on one CPU {(256 << 20) / Spread.of([bare for _, bare in pairs]).median / 1e9:.1f} GB/s",
        ratio,
        Spread.of([second / first for (_, first), (_, second) in pairwise(pairs)]),
    )


def decision(progress: Progress) -> Iterator[Row]:
    """What it costs to choose what a path sends next, and to hear that it was delivered; eight paths, no I/O."""
    progress("multipath, a scheduling decision", 1)
    took = Spread.of([one for (one,) in measured("cwai_multipath_bench", "decision")])
    yield Row(
        "multipath, a scheduling decision",
        f"{took.median:.0f} ns",
        "< 150 ns",
        took.median < 150,
        note=f"{took.p10:.0f} to {took.p90:.0f} ns",
    )


def stranded(progress: Progress) -> Iterator[Row]:
    """Queue pairs of a stand-in NIC that goes silent, told by nothing but silence."""
    progress("multipath, a silent NIC", 1)
    took = Spread.of([one for (one,) in measured("cwai_multipath_bench", "stranded")])
    yield Row(
        "multipath, from a stand-in NIC's silence until the last byte of it had come another way",
        f"{took.median * 1e3:.0f} ms",
        "≤ 50 ms",
        took.median <= 0.05,
        note=f"{took.p10 * 1e3:.0f} to {took.p90 * 1e3:.0f} ms",
    )


def _repeat(
    paths: Paths, kinds: dict[str, Callable[[], Transfer]], tick: Callable[[], None]
) -> tuple[dict[str, list[Transfer]], int]:
    """What each kind gave in each repetition, and how many repetitions the machine was too busy for."""
    order, again = random.Random(1), 0
    seen: dict[str, list[Transfer]] = {kind: [] for kind in kinds}
    while any(len(of) < REPETITIONS for of in seen.values()):
        if _iperf3(paths) < QUIET:
            again += 1
            if again > MOST_AGAIN:
                raise RuntimeError(f"plain iperf3 fell under {QUIET} of the links' rates {again} times: a busy machine")
            continue
        for kind in order.sample(sorted(kinds), len(kinds)):
            seen[kind].append(kinds[kind]())
        tick()
    return seen, again


def _ours(paths: Paths, during: Callable[[float], None] | None = None, **options: Any) -> Transfer:
    """``during`` is called beside it with the time at which it was started."""

    def start(side: int, what: str, arguments: dict[str, Any]) -> subprocess.Popen[str]:
        command = [*paths.enter(side), sys.executable, path_program.__file__, what, json.dumps(arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with ExitStack() as live:
        receiver = start(1, "receive", {"addresses": paths.right, "bytes": SIZE, "timeout": LIMIT})
        live.callback(receiver.kill)
        assert receiver.stdout is not None
        routes = list(zip(paths.left, paths.right, json.loads(receiver.stdout.readline()), strict=True))
        sender = start(0, "send", {"routes": routes, "bytes": SIZE, "timeout": LIMIT, **options})
        live.callback(sender.kill)
        if during:
            during(time.monotonic())
        sent = json.loads(sender.communicate(timeout=LIMIT)[0])
        received = json.loads(receiver.communicate(timeout=LIMIT)[0])
    if received["wrong"] or received["complete"] != 1 or sent["ended"]:
        raise ValueError(f"it did not arrive as it was sent: {sent['ended']}, {received['wrong']} bytes wrong")
    return Transfer(sent["times"][0], sum(path["again"] for path in sent["paths"]), sent)


def _in_trouble(paths: Paths, what: str) -> Transfer:
    happened: list[float] = []

    def during(begin: float) -> None:
        time.sleep(TROUBLE_AT)
        if what == "cut":
            paths.cut(0)
        elif what == "slowed eightfold":
            paths.shape(0, paths.rates[0] / 8)
        happened.append(time.monotonic())
        if what == "up and down at 1 Hz":
            # As long as what is left could take over the steady links.
            while time.monotonic() < begin + SIZE / paths.ceiling_of(1, 2, 3):
                paths.cut(0)
                time.sleep(0.5)
                paths.heal(0)
                time.sleep(0.5)

    try:
        done = _ours(paths, during)
    finally:
        paths.heal(0)
        paths.shape(0, paths.rates[0])
    done.sent["trouble"] = happened[0] - done.sent["start"]
    return done


def _least(paths: Paths, what: str, sent: dict[str, Any]) -> float:
    """Seconds that it takes if from the trouble on all that is left goes at the full rate of what is left."""
    steps = int(sent["trouble"] / sent["step"])
    before = sum(sum(path["timeline"][:steps]) for path in sent["paths"])
    after = paths.ceiling_of(1, 2, 3)
    if what == "slowed eightfold":
        after += paths.ceiling_of(0) / 8
    return float(sent["trouble"]) + (SIZE - before) / after


def _iperf3(paths: Paths) -> float:
    """Share of the nominal rates that plain TCP carries on all links together."""
    with ExitStack() as live:
        for address in paths.right:
            server = subprocess.Popen(
                [*paths.enter(1), "iperf3", "--server", "--one-off", "--bind", address], stdout=subprocess.DEVNULL
            )
            live.callback(server.wait)
            live.callback(server.kill)
        time.sleep(0.3)
        clients = [
            subprocess.Popen(
                [*paths.enter(0), "iperf3", "--json", "--time", "2", "--omit", "1", "--client", address],
                stdout=subprocess.PIPE,
                text=True,
            )
            for address in paths.right
        ]
        said = [json.loads(client.communicate(timeout=30)[0]) for client in clients]
    rates = [one["end"]["sum_received"]["bits_per_second"] / 8 for one in said]
    return float(sum(rates) / (sum(paths.rates) * MEGABIT))


def _mptcp(paths: Paths) -> None:
    for side in range(2):
        _run(paths, side, "ip mptcp limits set subflows 8 add_addr_accepted 8")
    for i in range(1, len(paths.rates)):
        _run(paths, 1, f"ip mptcp endpoint add {paths.right[i]} dev b{i} signal")


def _over_mptcp(paths: Paths) -> Transfer:
    server = subprocess.Popen(
        [*paths.enter(1), sys.executable, "-c", _MPTCP_SERVER, str(SIZE)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        command = [*paths.enter(0), sys.executable, "-c", _MPTCP_CLIENT, paths.right[0], port, str(SIZE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
        return Transfer(float(done.stdout), 0, {})
    finally:
        with suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)
        server.kill()
        server.wait()


def _run(paths: Paths, side: int, command: str) -> None:
    subprocess.run([*paths.enter(side), *command.split()], check=True, capture_output=True, timeout=10)
