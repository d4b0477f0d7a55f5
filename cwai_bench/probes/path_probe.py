"""Small transfers from NIC to NIC over many flows, and who is to make which: to find out which part made a path fail.

:mod:`cwai_bench.path_fault` says which probes to make and what they mean; here they are made. A probe connects over TCP
from a local address and port to a remote one, sends 64 KiB and waits for a byte. Its source port is its entropy: what
switches hash a flow by. All leaders listen at all of their NICs, so that a third node can say whose fault it is.
Between RDMA ports it goes from and to the network interfaces on them: it sees cable, port, NIC and fabric as they do,
and not what only a queue pair would meet.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec

from cwai_bench.group import Group
from cwai_bench.model import PathFinding, PathProbe, PathProbes
from cwai_bench.probes.nic import Place, neighbours

PAYLOAD = 64 << 10
PATIENCE = 1.5
"""Seconds for each step of a probe: a SYN that was lost is sent again after one (RFC 6298)."""
FIRST_PORT = 20000
"""Source port of entropy 0: below those that Linux gives out by itself (net.ipv4.ip_local_port_range, from 32768)."""
ROUNDS = 6
ROUND_LIMIT = 512
"""Probes of one round, which is a few seconds where many of them fail."""
AT_ONCE = 32
_RESET = struct.pack("ii", 1, 0)
"""Close without TIME_WAIT (socket(7), SO_LINGER): the same source port is used again."""


@dataclass(frozen=True)
class Door:
    """Where an end (``node/NIC``) is: its place, and the rank that answers and asks for it."""

    end: str
    place: Place
    rank: int


Ways = Collection[tuple[str, str]]
"""Pairs of ends, from the first to the second."""


def located(
    group: Group,
    doors: Sequence[Door],
    seen: Sequence[PathProbe],
    *,
    joined: Ways,
    planted: Ways,
    deadline: float,
) -> tuple[list[PathFinding], int]:
    """What is at fault when transfers have ``seen`` this, and how many probes that took. Collective: all ranks come to
    the same. An end without a door is not probed.

    ``joined``: ends that are known to reach one another, beside those of one network; others are not asked to.
    ``planted``: paths that are cut for a rehearsal; probes of these fail as if they were. ``deadline``: monotonic time
    by which no new round begins.
    """
    from cwai_bench.path_fault import localise, plan

    places = {door.end: door.place for door in doors}

    def meet(one: str, other: str) -> bool:
        if one not in places or other not in places:
            return False
        near = (one, other) in joined or (other, one) in joined
        return near or neighbours([places[one]], [places[other]]) is not None

    probes = list(seen)
    with _answering([door for door in doors if door.rank == group.rank]) as ports:
        known: dict[str, int] = {end: port for told in group.allgather(ports) for end, port in told.items()}
        for _ in range(ROUNDS):
            left: float = min(group.allgather(deadline - time.monotonic()))
            wanted = plan([door.end for door in doors], probes, meet=meet, limit=ROUND_LIMIT) if left > 0 else []
            if not wanted:
                break
            mine = [each for each in wanted if _asker(doors, each.source) == group.rank]
            made = _made(mine, places, known, planted)
            told = group.allgather([msgspec.to_builtins(probe) for probe in made])
            probes += [msgspec.convert(raw, PathProbe) for of_rank in told for raw in of_rank]
    return localise(probes), len(probes) - len(seen)


def _asker(doors: Sequence[Door], end: str) -> int:
    return next(door.rank for door in doors if door.end == end)


def _made(
    wanted: Sequence[PathProbes], places: Mapping[str, Place], ports: Mapping[str, int], planted: Ways
) -> list[PathProbe]:
    """One after another from one source port, many beside one another."""

    def all_of(each: PathProbes, entropy: int) -> list[PathProbe]:
        cut = (each.source, each.target) in planted or (each.target, each.source) in planted
        found = []
        for _ in range(each.repeats):
            if cut or each.target not in ports:
                found.append(PathProbe(each.source, each.target, entropy, "failed"))
            elif (probe := _one(each, entropy, places, ports[each.target])) is not None:
                found.append(probe)
        return found

    jobs: list[Callable[[], list[PathProbe]]] = [
        lambda each=each, entropy=entropy: all_of(each, entropy)  # type: ignore[misc]
        for each in wanted
        for entropy in each.entropies
    ]
    if not jobs:
        return []
    with ThreadPoolExecutor(min(AT_ONCE, len(jobs))) as pool:
        return [probe for found in pool.map(lambda job: job(), jobs) for probe in found]


def _one(each: PathProbes, entropy: int, places: Mapping[str, Place], port: int) -> PathProbe | None:
    """None when somebody else has the source port: that says nothing of the path."""
    source, target = places[each.source].address, places[each.target].address
    begin = time.monotonic()
    try:
        with socket.socket(_family(source), socket.SOCK_STREAM) as line:
            line.settimeout(PATIENCE)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            line.bind((source, FIRST_PORT + entropy))
            line.connect((target, port))
            line.sendall(bytes(PAYLOAD))
            if line.recv(1) != b"!":
                return PathProbe(each.source, each.target, entropy, "failed")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return None
        return PathProbe(each.source, each.target, entropy, "failed")
    return PathProbe(each.source, each.target, entropy, "ok", PAYLOAD / (time.monotonic() - begin))


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET


@contextlib.contextmanager
def _answering(doors: Sequence[Door]) -> Iterator[dict[str, int]]:
    """A listener at each end of this rank while it lasts; its port, by the end's name. An address that cannot be
    listened at is an end that answers nothing."""
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        ports: dict[str, int] = {}
        threads: list[threading.Thread] = []
        for door in doors:
            listener = stack.enter_context(socket.socket(_family(door.place.address), socket.SOCK_STREAM))
            try:
                listener.bind((door.place.address, 0))
                listener.listen(1024)
            except OSError:
                continue
            listener.settimeout(0.05)
            ports[door.end] = listener.getsockname()[1]
            threads.append(threading.Thread(target=_answer, args=(listener, over), daemon=True))
        for thread in threads:
            thread.start()
        try:
            yield ports
        finally:
            over.set()
            for thread in threads:
                thread.join()


def _answer(listener: socket.socket, over: threading.Event) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while not over.is_set():
            try:
                line, _ = listener.accept()
            except OSError:  # nobody came for a while, or who came has gone
                continue
            pool.submit(_swallow, line)


def _swallow(line: socket.socket) -> None:
    with line, contextlib.suppress(OSError):
        line.settimeout(PATIENCE)
        left = PAYLOAD
        while left:
            got = len(line.recv(min(left, 1 << 16)))
            if not got:
                return
            left -= got
        line.sendall(b"!")
        line.recv(1)  # who asked closes first, so that no port of ours waits
