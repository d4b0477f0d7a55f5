"""Two ends of a transfer: TCP, memory, RDMA messages; and queue pairs, driven by themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cwai_bench.native.door import translated

if TYPE_CHECKING:
    from cwai_bench.native.door import Samples

DEFAULT_PORT = 18515
PORT_ATTEMPTS = 64
TOKEN_BYTES = 32

T = TypeVar("T")


@dataclass(frozen=True)
class Bandwidth:
    """What *this* end received, on its own clock; in two-way runs only while it was sending as well.

    ``samples`` are bytes per second, one per interval; ``elapsed`` is in seconds. ``wrong`` bytes of the
    verification pass differ, the first at ``first_bad`` (-1: none). ``peer_bytes`` and ``peer_elapsed`` are what
    the other end received.
    """

    samples: Samples
    bytes: int
    messages: int
    elapsed: float
    warmup_messages: int
    wrong: int
    first_bad: int
    peer_bytes: int
    peer_elapsed: float
    memory: str = "host"
    """Of RDMA: how the NIC reached this end's memory: host; of a GPU dma-buf or peermem."""
    posting: str = ""
    """Of RDMA: how requests got to the NIC: ``ibv_wr`` (built in the queue pair) where the device has that, else
    ``ibv_post_send``."""


@dataclass(frozen=True)
class Latency:
    """``samples`` are seconds of full round trips; empty on the end that answers. ``wrong``: as in Bandwidth."""

    samples: Samples
    wrong: int
    first_bad: int


class Connection:
    """One end of a connection with one or more lanes (TCP: sockets). One run at a time; one thread drives one end."""

    def __init__(self, end: Any) -> None:
        # Results are numpy arrays. Loaded at the end of the first run, its BLAS threads would disturb the second.
        import numpy  # noqa: F401

        self._end = end

    @property
    def transport(self) -> str:
        return str(self._end.transport)

    @property
    def lanes(self) -> int:
        return int(self._end.lanes)

    @property
    def local(self) -> str:
        """This end for a person, as ``127.0.0.1:40312``."""
        return str(self._end.local)

    @property
    def remote(self) -> str:
        return str(self._end.remote)

    def bandwidth(
        self,
        *,
        size: int,
        sends: bool = False,
        receives: bool = False,
        duration: float = 1.0,
        messages: int = 0,
        warmup: float = 0.1,
        warmup_messages: int = 0,
        interval: float = 0.05,
        verify: bool = True,
        seed: int = 1,
        cpu: int = -1,
        timeout: float = 30.0,
    ) -> Bandwidth:
        """Keep all lanes busy with messages of ``size`` bytes. Both ends call it with the same values, except for
        ``sends`` and ``receives``: what one sends the other receives.

        Counted are ``duration`` seconds, or ``messages`` messages, whichever ends first (0: no such limit), after
        ``warmup`` seconds and ``warmup_messages`` messages. ``verify`` sends one message of data seeded with ``seed``
        per lane afterwards and compares it. ``cpu`` pins the thread (-1: not).
        """
        with translated():
            return Bandwidth(
                **self._end.bandwidth(
                    size=size,
                    sends=sends,
                    receives=receives,
                    duration=duration,
                    messages=messages,
                    warmup=warmup,
                    warmup_messages=warmup_messages,
                    interval=interval,
                    verify=verify,
                    seed=seed,
                    cpu=cpu,
                    timeout=timeout,
                )
            )

    def latency(
        self,
        *,
        size: int = 64,
        initiates: bool,
        iterations: int = 2000,
        duration: float = 0.0,
        warmup: int = 100,
        verify: bool = True,
        seed: int = 1,
        cpu: int = -1,
        timeout: float = 30.0,
    ) -> Latency:
        """Full round trips of ``size`` bytes on the first lane, one at a time. Both ends call it with the same values;
        ``initiates`` is true on one of them. ``duration`` (seconds; 0: no limit) may end it before ``iterations``."""
        with translated():
            return Latency(
                **self._end.latency(
                    size=size,
                    initiates=initiates,
                    iterations=iterations,
                    duration=duration,
                    warmup=warmup,
                    verify=verify,
                    seed=seed,
                    cpu=cpu,
                    timeout=timeout,
                )
            )

    def close(self) -> None:
        """Let it go; the peer's run ends with an error. UsageError while a run is going on."""
        with translated():
            self._end.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Listener:
    """A listening TCP port. ``port`` is the one that was free: the one asked for, or one of the next."""

    def __init__(self, *, address: str = "127.0.0.1", port: int = DEFAULT_PORT, attempts: int = PORT_ATTEMPTS) -> None:
        with translated() as module:
            self._listener = module.Listener(address=address, port=port, attempts=attempts)

    @property
    def address(self) -> str:
        return str(self._listener.address)

    @property
    def port(self) -> int:
        return int(self._listener.port)

    @property
    def strangers(self) -> list[tuple[str, str]]:
        """(address, why) of those who connected and were dropped; why is one of silent, closed, magic, version,
        token, lane. At most 16 are kept."""
        return list(self._listener.strangers())

    def accept(self, *, token: bytes, lanes: int = 1, spin: bool = False, timeout: float = 10.0) -> Connection:
        """Wait for the peer that brings ``token`` (32 bytes) and all ``lanes``."""
        with translated():
            return Connection(self._listener.accept(token=token, lanes=lanes, spin=spin, timeout=timeout))


def listen(*, address: str = "127.0.0.1", port: int = DEFAULT_PORT, attempts: int = PORT_ATTEMPTS) -> Listener:
    """Listen on a numeric ``address``. When ``port`` is taken the next ones are tried, ``attempts`` in all; port 0
    lets the system choose."""
    return Listener(address=address, port=port, attempts=attempts)


def connect(
    *,
    address: str,
    port: int,
    token: bytes,
    lanes: int = 1,
    spin: bool = False,
    source: str = "",
    timeout: float = 10.0,
) -> Connection:
    """Connect ``lanes`` sockets to a numeric address, from ``source`` when given. ``token`` (32 bytes) is that of the
    listener; it keeps runs apart and is no secret. ``spin``: wait by asking again and again, not asleep."""
    with translated() as module:
        return Connection(
            module.connect(
                address=address, port=port, token=token, lanes=lanes, spin=spin, source=source, timeout=timeout
            )
        )


def verbs_over(
    control: Connection,
    *,
    device: str,
    port: int = 1,
    gid_index: int = -1,
    lanes: int = 1,
    service_level: int = 0,
    traffic_class: int = 0,
    timeout_exponent: int = 14,
    retries: int = 7,
    spin: bool = True,
    timeout: float = 10.0,
) -> Connection:
    """RDMA between the nodes that a TCP connection joins: both ends call it on theirs, each with its own ``device``.

    ``lanes`` are reliable queue pairs; messages go by RDMA write. ``gid_index`` below 0: of RoCE v2 with an IPv4
    address, if there is one. A packet's answer is waited for 4.096 us · 2^``timeout_exponent``, ``retries`` times.
    ``control`` is used up: it stays open underneath, to tell when the other end has gone.
    """
    with translated() as module:
        return Connection(
            module.verbs_over(
                control=control._end,
                device=device,
                port=port,
                gid_index=gid_index,
                lanes=lanes,
                service_level=service_level,
                traffic_class=traffic_class,
                timeout_exponent=timeout_exponent,
                retries=retries,
                spin=spin,
                timeout=timeout,
            )
        )


class QueuePairs:
    """One end of queue pairs over which RDMA itself is measured (:func:`queue_pairs`). One run at a time.

    ``mtu`` is bytes of a packet, as both ends agreed; ``link_layer`` is InfiniBand or Ethernet; ``roce`` v1, v2, or
    empty where there is none.
    """

    def __init__(self, pairs: Any) -> None:
        import numpy  # noqa: F401 (as in Connection)

        self._pairs = pairs
        self.device = str(pairs.device)
        self.port = int(pairs.port)
        self.gid_index = int(pairs.gid_index)
        self.gid = str(pairs.gid)
        self.mtu = int(pairs.mtu)
        self.link_layer = "Ethernet" if pairs.ethernet else "InfiniBand"
        self.roce = ("v2" if pairs.v2 else "v1") if pairs.ethernet else ""
        self.remote = str(pairs.remote)

    def bandwidth(
        self,
        *,
        verb: str = "write",
        size: int,
        initiates: bool,
        two_way: bool = False,
        duration: float = 1.0,
        messages: int = 0,
        warmup: float = 0.1,
        warmup_messages: int = 0,
        interval: float = 0.05,
        verify: bool = True,
        seed: int = 1,
        cpu: int = -1,
        timeout: float = 30.0,
    ) -> Bandwidth:
        """``verb`` is write, read or send; both ends call it with the same values but for ``initiates``.

        The end that initiates counts what was acknowledged; the other one's result is empty. ``two_way``: both
        initiate, and each counts only while both do. Duration, messages, warm-up, interval and seed are those of
        :meth:`Connection.bandwidth`; ``wrong`` is of both ends.
        """
        with translated():
            return Bandwidth(
                **self._pairs.bandwidth(
                    verb=verb,
                    size=size,
                    initiates=initiates,
                    two_way=two_way,
                    duration=duration,
                    messages=messages,
                    warmup=warmup,
                    warmup_messages=warmup_messages,
                    interval=interval,
                    verify=verify,
                    seed=seed,
                    cpu=cpu,
                    timeout=timeout,
                )
            )

    def latency(
        self,
        *,
        verb: str = "write",
        size: int = 2,
        initiates: bool,
        iterations: int = 2000,
        duration: float = 0.0,
        warmup: int = 100,
        verify: bool = True,
        seed: int = 1,
        cpu: int = -1,
        timeout: float = 30.0,
    ) -> Latency:
        """Full round trips on one queue pair: a message there and one back (write, send), or one read. Both ends spin.
        Otherwise as :meth:`Connection.latency`."""
        with translated():
            return Latency(
                **self._pairs.latency(
                    verb=verb,
                    size=size,
                    initiates=initiates,
                    iterations=iterations,
                    duration=duration,
                    warmup=warmup,
                    verify=verify,
                    seed=seed,
                    cpu=cpu,
                    timeout=timeout,
                )
            )

    def close(self) -> None:
        """Let them go; the peer's run ends with an error. UsageError while a run is going on."""
        with translated():
            self._pairs.close()

    def __enter__(self) -> QueuePairs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def queue_pairs(
    control: Connection,
    *,
    device: str,
    port: int = 1,
    gid_index: int = -1,
    count: int = 1,
    mtu: int = 0,
    service_level: int = 0,
    traffic_class: int = 0,
    timeout_exponent: int = 14,
    retries: int = 7,
    depth: int = 128,
    post_list: int = 0,
    inline: int = -1,
    relaxed_ordering: bool = False,
    huge_pages: bool = False,
    cold: bool = False,
    gpu: str = "",
    timeout: float = 10.0,
) -> QueuePairs:
    """Queue pairs between the nodes that a TCP connection joins: both ends call it on theirs, by the same values but
    for the device, its port and its GID.

    ``count`` (1 to 128) of them work together, each with up to ``depth`` messages in flight (of large ones fewer).
    ``mtu`` in bytes (0: as both ports carry). ``post_list`` messages go to the NIC at a time (0: as suits their size);
    messages of up to ``inline`` bytes go along in their request (-1: in latency runs, as the device allows).
    ``huge_pages`` takes memory of 2 MiB pages; ``cold`` sends from memory larger than the last cache. ``gpu``: the
    messages' memory is that of the NVIDIA GPU at this PCI address (empty: the host's); bandwidth alone. The rest is as
    in :func:`verbs_over`.
    """
    with translated() as module:
        return QueuePairs(
            module.queue_pairs(
                control=control._end,
                device=device,
                port=port,
                gid_index=gid_index,
                count=count,
                mtu=mtu,
                service_level=service_level,
                traffic_class=traffic_class,
                timeout_exponent=timeout_exponent,
                retries=retries,
                depth=depth,
                post_list=post_list,
                inline_size=inline,
                relaxed_ordering=relaxed_ordering,
                huge_pages=huge_pages,
                cold=cold,
                gpu=gpu,
                timeout=timeout,
            )
        )


def memory_pair(*, lanes: int = 1, spin: bool = False) -> tuple[Connection, Connection]:
    """Two ends in this process, joined by memory; each is driven by a thread of its own (:func:`both`)."""
    with translated() as module:
        first, second = module.memory_pair(lanes=lanes, spin=spin)
        return Connection(first), Connection(second)


def both(first: Callable[[], T], second: Callable[[], T]) -> tuple[T, T]:
    """Run the two ends of a connection within this process, each on a thread. The first error is raised."""
    outcome: list[T | BaseException] = []

    def other() -> None:
        try:
            outcome.append(second())
        except BaseException as error:  # raised below, on the caller's thread
            outcome.append(error)

    thread = threading.Thread(target=other, name="cwai-other-end")
    thread.start()
    try:
        mine = first()
    finally:
        thread.join()
    theirs = outcome[0]
    if isinstance(theirs, BaseException):
        raise theirs
    return mine, theirs
