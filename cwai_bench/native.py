"""The only door to the compiled module: what moves bytes and what stands inside a timed region.

Keyword-only numbers and strings go in; numpy arrays and plain counters come out, in SI units. Every call drops the GIL
for as long as it works, looks at the stop flag (:func:`stop`) and has a time limit. Importing this module costs
nothing: the compiled one is loaded by the first call.

Errors: :class:`~cwai_bench.errors.UsageError` for what the caller got wrong, :class:`~cwai_bench.errors.DeviceError`
(with errno and the vendor's code) for what the system, a library or a peer refused,
:class:`~cwai_bench.errors.DeadlineError` when time ran out, :class:`Stopped` after :func:`stop`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cwai_bench import __version__
from cwai_bench.errors import CwaiError, DeadlineError, DeviceError, NoVerdictError, UsageError
from cwai_bench.text import Text, plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float64]

DEFAULT_PORT = 18515
PORT_ATTEMPTS = 64
TOKEN_BYTES = 32

T = TypeVar("T")


class Stopped(NoVerdictError):
    """A run ended early because :func:`stop` was called."""


# ------------------------------------------------------------------------------------------- the door


@cache
def _native() -> ModuleType:
    try:
        from cwai_bench import _native as module  # noqa: TID251 (this is the door)
    except ImportError as error:
        raise UsageError(
            Text(
                "the compiled part of cwai_bench is missing or cannot be loaded: {why}",
                "cwai_bench 的编译模块缺失或无法加载：{why}",
            ).fill(why=error),
            Text("install the package: pip install .", "请安装本软件包：pip install ."),
        ) from error
    if module.__version__ != __version__:
        raise UsageError(
            Text(
                "the compiled part of cwai_bench is version {native}, the rest is {python}",
                "cwai_bench 的编译模块版本为 {native}，其余部分为 {python}",
            ).fill(native=module.__version__, python=__version__),
            Text("install the package again: pip install .", "请重新安装本软件包：pip install ."),
        )
    return module


_TRY_AGAIN = Text("see whether the peer is still up, then run it again", "请检查对端是否仍在运行，然后重试")
_ADDRESS_HINT = Text(
    "`ip -brief address` lists the addresses of this node; choose one with --interface",
    "用 `ip -brief address` 查看本节点地址，并用 --interface 指定",
)
_SAME_VERSION = Text("install the same version on all nodes", "请在所有节点安装相同版本")

_FAULTS: dict[str, tuple[type[CwaiError], Text, Text | None]] = {
    "invalid": (UsageError, Text("not a possible value: {subject}", "取值无效：{subject}"), None),
    "in_use": (
        UsageError,
        Text("a run is going on over this connection", "该连接上正有测试在进行"),
        Text("wait for it to end, or open another connection", "请等待其结束，或另建连接"),
    ),
    "address": (
        DeviceError,
        Text("{subject} is no address that this node can use ({why})", "{subject} 不是本节点可用的地址（{why}）"),
        _ADDRESS_HINT,
    ),
    "ports_taken": (
        DeviceError,
        Text("no free port from {subject} on", "从 {subject} 起没有空闲端口"),
        Text("choose another port with --port", "请用 --port 指定其他端口"),
    ),
    "listen": (
        DeviceError,
        Text("cannot listen on {subject}: {why}", "无法监听 {subject}：{why}"),
        Text("choose another port with --port", "请用 --port 指定其他端口"),
    ),
    "connect": (
        DeviceError,
        Text("cannot connect to {subject}: {why}", "无法连接 {subject}：{why}"),
        Text(
            "see whether a firewall between the nodes blocks this port, and whether the address can be reached",
            "请检查节点间防火墙是否拦截该端口，以及该地址是否可达",
        ),
    ),
    "rejected": (
        DeviceError,
        Text(
            "{subject} is somebody else: it turned our greeting down ({why})",
            "{subject} 不是本次测试的对端：它拒绝了握手（{why}）",
        ),
        _SAME_VERSION,
    ),
    "peer_closed": (
        DeviceError,
        Text("{subject} ended the connection in the middle of the run", "{subject} 在测试中途断开了连接"),
        _TRY_AGAIN,
    ),
    "transfer": (
        DeviceError,
        Text("the transfer with {subject} failed: {why}", "与 {subject} 的传输失败：{why}"),
        _TRY_AGAIN,
    ),
    "misconfigured": (
        DeviceError,
        Text(
            "between {subject} a NIC refused memory or a request: {why}",
            "{subject} 之间，网卡拒绝了内存或请求：{why}",
        ),
        Text(
            "no path is at fault: run the same version at both ends, and see `ulimit -l`, IOMMU and ACS settings",
            "并非路径故障：请确认两端版本一致，并检查 `ulimit -l`、IOMMU 与 ACS 设置",
        ),
    ),
    "device": (
        DeviceError,
        Text("the RDMA device {subject} cannot be used: {why}", "RDMA 设备 {subject} 不可用：{why}"),
        Text(
            "`rdma link show` lists devices and their states; as root, or with access to /dev/infiniband?",
            "用 `rdma link show` 查看设备与状态；确认以 root 运行或可访问 /dev/infiniband",
        ),
    ),
    "disagreed": (
        UsageError,
        Text(
            "the two ends were not asked to do the same; they differ in: {subject}",
            "两端的测试参数不一致，差异在于：{subject}",
        ),
        Text("give both ends the same options", "请在两端使用相同的选项"),
    ),
    "garbled": (
        DeviceError,
        Text(
            "a control record from {subject} arrived broken (its checksum is wrong)",
            "来自 {subject} 的控制信息已损坏（校验和错误）",
        ),
        Text("check cables, NIC and memory of both nodes", "请检查两端节点的线缆、网卡和内存"),
    ),
    "deadline": (
        DeadlineError,
        Text("time ran out before the run was over", "测试未能在时限内完成"),
        Text(
            "allow more time with --item-timeout, or see whether the peer hangs",
            "请用 --item-timeout 放宽时限，或检查对端是否挂起",
        ),
    ),
    "stopped": (Stopped, Text("the run was stopped", "测试已被停止"), None),
    "pinning": (
        DeviceError,
        Text("the thread cannot be pinned to {subject}: {why}", "无法将线程绑定到 {subject}：{why}"),
        Text("choose a CPU that this process may use (taskset -p $$)", "请选择本进程可用的 CPU（taskset -p $$）"),
    ),
    "library": (
        DeviceError,
        Text("the library {subject} cannot be used: {why}", "库 {subject} 不可用：{why}"),
        Text("`cwai-bench devices` tells what can be loaded here", "用 `cwai-bench devices` 查看此处可加载的库"),
    ),
    "no_mpi": (
        DeviceError,
        Text("no MPI library is loaded in this process", "本进程没有加载任何 MPI 库"),
        Text("start it with mpirun, or with -np N", "请用 mpirun 或 -np N 启动"),
    ),
    "unknown_mpi": (
        DeviceError,
        Text(
            "the binary interface of this MPI is not known: {subject} ({why})",
            "不认识此 MPI 的二进制接口：{subject}（{why}）",
        ),
        Text("use Open MPI, MPICH, or one with the ABI of MPICH", "请使用 Open MPI、MPICH 或兼容 MPICH ABI 的实现"),
    ),
    "mpi": (
        DeviceError,
        Text("{subject} failed: {why}", "{subject} 失败：{why}"),
        Text("look at the output of mpirun on that node", "请查看该节点上 mpirun 的输出"),
    ),
    "unsupported": (
        DeviceError,
        Text("{subject} cannot do {why}", "{subject} 不支持 {why}"),
        Text("choose another operation, type or reduction", "请选择其他操作、数据类型或归约方式"),
    ),
    "mixed": (
        DeviceError,
        Text(
            "the ranks have loaded different versions of {subject}: {why}", "各进程加载的 {subject} 版本不一致：{why}"
        ),
        Text("load the same library on all nodes", "请在所有节点加载相同的库"),
    ),
    "collective": (
        DeviceError,
        Text("{subject} failed: {why}", "{subject} 失败：{why}"),
        Text(
            "look at the log of the library (for NCCL: NCCL_DEBUG=INFO) on that node",
            "请查看该节点上通信库的日志（NCCL：NCCL_DEBUG=INFO）",
        ),
    ),
}


@contextmanager
def _translated() -> Iterator[ModuleType]:
    """Yields the compiled module; its errors leave as ours, with a message in both languages."""
    module = _native()
    try:
        yield module
    except module.Error as error:
        kind, message, next_step = _FAULTS[error.fault]
        said = error.vendor_code or (os.strerror(error.errno) if error.errno else "")
        text = message.fill(subject=error.subject, why=plain(said))
        if issubclass(kind, DeviceError):
            raise kind(text, next_step, errno=error.errno, vendor_code=error.vendor_code) from None
        raise kind(text, next_step) from None


# -------------------------------------------------------------------------------- stop, progress, clock


def stop() -> None:
    """Ask every native run of this process to end; each then raises :class:`Stopped`. Callable from any thread.

    The flag stays set: later runs end at once as well, until :func:`clear_stop`. Note that a Python signal handler
    runs on the main thread only, and not while a native run occupies it; use a thread that reads the signal
    wake-up pipe.
    """
    _native().stop()


def clear_stop() -> None:
    """Take :func:`stop` back."""
    _native().clear_stop()


def progress() -> dict[str, str | int]:
    """How far the present run has got: ``phase`` (idle, connect, agree, warmup, timed, verify, close), ``what``
    (bandwidth, latency, all_reduce, …), ``size`` in bytes, ``iteration``. Callable from any thread."""
    view: dict[str, str | int] = _native().progress()
    return view


def clock() -> dict[str, float]:
    """``resolution`` and ``overhead`` of the native clock in seconds, measured now (under a millisecond)."""
    view: dict[str, float] = _native().clock()
    return view


def crc32c(data: bytes, seed: int = 0) -> int:
    """CRC-32C of ``data``; ``seed`` is the CRC of what came before."""
    value: int = _native().crc32c(data=data, seed=seed)
    return value


# --------------------------------------------------------------------------------- what is on this machine


@dataclass(frozen=True)
class Address:
    """One address of one network interface. ``prefix`` is in bits; ``up`` means up and with carrier."""

    name: str
    address: str
    prefix: int
    v6: bool
    up: bool
    loopback: bool


def interfaces() -> list[Address]:
    """Every address of every network interface, in the system's order."""
    with _translated() as module:
        return [Address(**entry) for entry in module.interfaces()]


@dataclass(frozen=True)
class Backend:
    """What could carry bytes or run a collective: built into this version? loadable? device present?

    ``detail`` says why not, or what is there.
    """

    name: str
    built: bool
    loadable: bool
    present: bool
    detail: Text


def _detail(raw: dict[str, Any]) -> Text:
    parts: list[Text] = []
    if not raw["built"]:
        parts.append(Text("not built in this version", "本版本未内置"))
    if raw["library"] and not raw["loadable"]:
        parts.append(
            Text("{library} cannot be loaded: {why}", "无法加载 {library}：{why}").fill(
                library=raw["library"], why=raw["loader"]
            )
        )
    elif raw["library"]:
        parts.append(Text("{library} loads", "{library} 可加载").fill(library=raw["library"]))
    if raw["devices"]:
        parts.append(Text("devices: {names}", "设备：{names}").fill(names=", ".join(raw["devices"])))
    elif not raw["present"]:
        parts.append(Text("no device", "没有设备"))
    if not parts:
        parts.append(Text("in every build", "始终内置"))
    return Text("; ".join(p.en for p in parts), "；".join(p.zh for p in parts))


def backends() -> list[Backend]:
    """tcp, loopback, mpi, verbs, cuda, nccl, hccl: what of each is here. Loads libraries, starts none of them."""
    directories = [str(Path(sys.prefix) / "lib")]
    with _translated() as module:
        return [
            Backend(raw["name"], raw["built"], raw["loadable"], raw["present"], _detail(raw))
            for raw in module.backends(mpi_directories=directories)
        ]


# ------------------------------------------------------------------------------------ moving bytes


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
        with _translated():
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
        with _translated():
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
        with _translated():
            self._end.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Listener:
    """A listening TCP port. ``port`` is the one that was free: the one asked for, or one of the next."""

    def __init__(self, *, address: str = "127.0.0.1", port: int = DEFAULT_PORT, attempts: int = PORT_ATTEMPTS) -> None:
        with _translated() as module:
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
        with _translated():
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
    with _translated() as module:
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
    with _translated() as module:
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
        with _translated():
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
        with _translated():
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
        with _translated():
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
    with _translated() as module:
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
    with _translated() as module:
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


# --------------------------------------------------------------------------------------- multipath


POLICIES = ("single", "round_robin", "equal", "weighted", "pull")
"""How work is divided among paths: all over the first usable one; run after run in turn; equal shares of a transfer;
shares by weight; whoever has room, which is ours (cpp/multipath/scheduler.hpp)."""
BLOCK = 64 << 10


@dataclass(frozen=True)
class RdmaPort:
    """The NIC at one end of a path that is RDMA: ``device`` as in /sys/class/infiniband. ``gid_index`` below 0: of
    RoCE v2 with an IPv4 address, if there is one, looked up each time that the path is connected. A packet's answer is
    waited for 4.096 us · 2^``timeout_exponent``, ``retries`` times."""

    device: str
    port: int = 1
    gid_index: int = -1
    timeout_exponent: int = 14
    retries: int = 3


@dataclass(frozen=True)
class _Pace:
    """How a transport is driven where the caller does not say."""

    connections: int
    horizon: float
    stall: float
    duplicates: float


_TCP = _Pace(connections=1, horizon=0.02, stall=0.1, duplicates=0.02)
_RDMA = _Pace(connections=8, horizon=0.002, stall=0.005, duplicates=0.0)
"""RDMA answers in microseconds. What a queue pair was told to read or write cannot be turned aside, so a copy that
overtakes it costs that queue pair: none is sent of what only is slow."""


def _nics(nics: Sequence[RdmaPort | None]) -> list[tuple[str, int, int, int, int]]:
    return [
        (nic.device, nic.port, nic.gid_index, nic.timeout_exponent, nic.retries) if nic else ("", 1, -1, 14, 3)
        for nic in nics
    ]


def _pace(nics: Sequence[RdmaPort | None]) -> _Pace:
    return _RDMA if any(nics) else _TCP


@dataclass(frozen=True)
class PlantedFault:
    """A fault put on the sending end of a path for a rehearsal, from ``begin`` to ``end`` (seconds after the first
    byte): ``cut`` (nothing leaves, nobody is told), ``reset`` (the connection breaks), ``slow`` (to ``rate`` bytes per
    second), ``corrupt`` (one message, at ``begin``, has a bit flipped)."""

    path: int
    kind: Literal["cut", "reset", "slow", "corrupt"]
    begin: float
    end: float = 0.0
    rate: float = 0.0


@dataclass(frozen=True)
class PathEvent:
    """Something that happened to a path. ``at``: seconds after the first byte (of a receiver: after its start).

    ``state`` from then on: healthy, suspect, failed, probing, probation. ``cause``: connected, answered, delivered,
    stalled, silent, error, garbled, corrupt, refused; ``code`` is errno or 0. ``connection``: which one of the path's.
    """

    at: float
    path: int
    state: str
    cause: str
    code: int
    connection: int = 0


@dataclass(frozen=True)
class PathSent:
    """Of one path, in bytes: given to it (``sent``), of that what it ``delivered`` first, what another path had been
    given before (``again``), what was taken back from it (``lost``). ``timeline``: bytes that it delivered first, in
    each step. ``state``: at the end, of its connection that is best off; ``connected``: at the beginning, by one at
    least."""

    sent: int
    delivered: int
    again: int
    lost: int
    stalls: int
    failures: int
    state: str
    connected: bool
    timeline: NDArray[np.uint64]


@dataclass(frozen=True)
class MultipathSent:
    """What the sending end saw. ``times``: seconds of each complete transfer, from when the other end was ready for it
    until all of it was there.

    ``delivered``: bytes in all. ``start``: of the first byte, by ``time.monotonic()``. ``step``: seconds, of the
    timelines. ``recovered``: seconds from the start until all was delivered that a path had lost, 0 when none had.
    ``ended``: what ended it early; all figures are up to then.
    """

    times: Samples
    delivered: int
    start: float
    step: float
    recovered: float
    paths: tuple[PathSent, ...]
    events: tuple[PathEvent, ...]
    ended: Text | None


@dataclass(frozen=True)
class PathReceived:
    """Of one path: ``bytes`` that came, of these those that were there already (``twice``); messages whose checksum was
    wrong (``corrupt``), connections that ended in the middle of one (``broken``)."""

    bytes: int
    twice: int
    corrupt: int
    broken: int


@dataclass(frozen=True)
class MultipathReceived:
    """What the receiving end saw. ``wrong``: bytes that are not what was sent, in all ``complete`` transfers;
    ``first_bad``: index of the first of them, -1 for none."""

    complete: int
    wrong: int
    first_bad: int
    paths: tuple[PathReceived, ...]
    events: tuple[PathEvent, ...]
    ended: Text | None


class PathListeners:
    """A listening TCP port for each path, at numeric ``addresses``; ``ports`` are in their order.

    ``nics``: of each path the NIC at this end, by which it is RDMA, or None; the ends of such a path meet over TCP.
    """

    def __init__(self, addresses: Sequence[str], nics: Sequence[RdmaPort | None] = ()) -> None:
        self._connections = _pace(nics).connections
        with _translated() as module:
            self._listeners = module.PathListeners(addresses=list(addresses), nics=_nics(nics))

    @property
    def ports(self) -> list[int]:
        return list(self._listeners.ports)

    def receive(
        self,
        *,
        token: bytes,
        bytes: int,
        transfers: int = 1,
        block: int = BLOCK,
        connections: int | None = None,
        seed: int = 0,
        timeout: float = 60.0,
    ) -> MultipathReceived:
        """Receive ``transfers`` of ``bytes`` from :func:`multipath_send`, told alike, over all paths that come, and
        compare each byte."""
        with _translated():
            raw = self._listeners.receive(
                token=token,
                bytes=bytes,
                transfers=transfers,
                block=block,
                connections=self._connections if connections is None else connections,
                seed=seed,
                timeout=timeout,
            )
        return MultipathReceived(
            raw["complete"],
            raw["wrong"],
            raw["first_bad"],
            tuple(PathReceived(**path) for path in raw["paths"]),
            tuple(PathEvent(**event) for event in raw["events"]),
            _ended(raw),
        )


def multipath_send(
    *,
    routes: Sequence[tuple[str, str, int]],
    nics: Sequence[RdmaPort | None] = (),
    token: bytes,
    bytes: int,
    policy: str = "pull",
    weights: Sequence[float] = (),
    transfers: int = 1,
    block: int = BLOCK,
    connections: int | None = None,
    longest_run: int = 16,
    horizon: float | None = None,
    stall: float | None = None,
    duplicates: float | None = None,
    resend: bool = True,
    faults: Sequence[PlantedFault] = (),
    seed: int = 0,
    connect_timeout: float = 2.0,
    timeout: float = 60.0,
) -> MultipathSent:
    """Send ``transfers`` of ``bytes``, one after another, over ``routes``: (local address or "", remote address, port).

    ``nics``: of each path the NIC at this end, by which it is RDMA, or None. ``connections`` of each path (1 to 128),
    the same number at both ends; None: 1, or 8 where there is RDMA. ``horizon``: seconds of work that a connection
    holds (None: 0.02, RDMA 0.002); ``stall``: seconds of silence after which what it holds goes to others (None: 0.1,
    RDMA 0.005); ``duplicates``: share of bytes sent twice at the end of transfers, since another connection would be
    later with them (None: 0.02, RDMA none); without ``resend`` the first connection that breaks ends it all. A path
    that is not there within ``connect_timeout`` is left out, and tried again.
    """
    pace = _pace(nics)
    with _translated() as module:
        raw = module.multipath_send(
            routes=list(routes),
            nics=_nics(nics),
            token=token,
            policy=policy,
            weights=list(weights),
            bytes=bytes,
            transfers=transfers,
            block=block,
            connections=pace.connections if connections is None else connections,
            longest_run=longest_run,
            horizon=pace.horizon if horizon is None else horizon,
            stall=pace.stall if stall is None else stall,
            duplicates=pace.duplicates if duplicates is None else duplicates,
            resend=resend,
            rehearsals=[(f.path, f.kind, f.begin, f.end, f.rate) for f in faults],
            seed=seed,
            connect_timeout=connect_timeout,
            timeout=timeout,
        )
    return MultipathSent(
        raw["times"],
        raw["delivered"],
        raw["start"],
        raw["step"],
        raw["recovered"],
        tuple(PathSent(**path) for path in raw["paths"]),
        tuple(PathEvent(**event) for event in raw["events"]),
        _ended(raw),
    )


def _ended(raw: Any) -> Text | None:
    fault, subject, code = raw["ended"]
    if not fault:
        return None
    _kind, message, _next = _FAULTS[fault]
    return message.fill(subject=subject, why=os.strerror(code) if code else "")


# ------------------------------------------------------------------------------------ collectives


OPERATIONS = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "broadcast",
    "reduce",
    "alltoall",
    "alltoallv",
    "gather",
    "scatter",
    "sendrecv",
)
ELEMENTS = {
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "float8_e4m3": 1,
    "float8_e5m2": 1,
}
"""Every type of element with its size in bytes; which of them a library knows is told by :meth:`Collective.can`."""
REDUCTIONS = ("sum", "prod", "max", "min", "avg", "premulsum")


@dataclass(frozen=True)
class CollectiveMember:
    """What one member of the group, driven by this process, saw of a point.

    ``wrong`` elements arrived wrong in a call of its own before the timed ones, the first at ``first_bad`` (-1: none);
    None where nothing was verified. By isolated iteration, in seconds: ``device``, what its card says the operation
    took (empty where there is no card), and ``lateness``, by how much it came later than the first of all members.
    """

    rank: int
    wrong: int | None
    first_bad: int
    device: Samples
    lateness: Samples


@dataclass(frozen=True)
class CollectivePoint:
    """One operation at one size. ``bytes`` is the size that was used, ``count`` the elements of a block.

    ``times`` are seconds of each isolated iteration: from leaving the barrier to the completion of this process's part;
    of these, ``posts`` until the call came back. ``pipelined`` is the mean of ``pipelined_iterations`` posted one after
    another, as nccl-tests has it, ``graphed`` the same of one CUDA graph; 0 where not measured.
    """

    bytes: int
    count: int
    warmup: int
    times: Samples
    posts: Samples
    members: tuple[CollectiveMember, ...]
    pipelined: float
    graphed: float
    pipelined_iterations: int


class Collective:
    """A group of one collective library, over which operations are verified and timed. Made by :func:`over_mpi`,
    :func:`over_loopback`; one thread of each process drives it, and all processes call the same methods."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self.named = ""
        """What it is called, where somebody knows better than the library's own number."""
        self.cards: tuple[str, ...] = ()
        """The card of each member of this process, as facts call it; empty where data is in the host's memory."""

    @property
    def size(self) -> int:
        """Members of the group, over all processes."""
        return int(self._group.size)

    @property
    def members(self) -> tuple[int, ...]:
        """Those that this process drives."""
        return tuple(self._group.members)

    @property
    def library(self) -> str:
        """As it names itself, with its version."""
        # MPI says a line of many words: the first part tells which it is.
        return self.named or " ".join(str(self._group.library).partition(",")[0].split())

    @property
    def broken(self) -> bool:
        """True after an operation was aborted: the group can do nothing more."""
        return bool(self._group.broken)

    @property
    def clock(self) -> tuple[float, float]:
        """Seconds that this process's clock is behind that of process 0, and by how much that may be wrong."""
        behind, uncertainty = self._group.clock
        return float(behind), float(uncertainty)

    @property
    def buffers(self) -> tuple[list[int], list[int]]:
        """Addresses of what each member of this process sends and receives."""
        send, receive = self._group.buffers
        return send, receive

    def can(self, operation: str, *, dtype: str = "float32", reduction: str = "sum", in_place: bool = False) -> bool:
        """Whether the library has this; the reduction counts only where there is one."""
        with _translated():
            return bool(self._group.can(operation=operation, dtype=dtype, reduction=reduction, in_place=in_place))

    def measure(
        self,
        operation: str,
        *,
        bytes: int,
        dtype: str = "float32",
        reduction: str = "sum",
        root: int = 0,
        in_place: bool = False,
        iterations: int = 0,
        least: int = 5,
        most: int = 2000,
        limit: float = 0.05,
        warmup: int = 5,
        verify: bool = True,
        seed: int = 1,
        isolated: bool = True,
        pipelined: bool = False,
        graph: bool = False,
        late: float = 0.0,
        timeout: float = 60.0,
    ) -> CollectivePoint:
        """Every process calls it with the same values, but for ``late``: by so many seconds this one comes later to
        each isolated iteration (a rehearsal). ``iterations`` 0: as many as fit into ``limit`` seconds, at least
        ``least`` and at most ``most``; the slowest process decides for all. Raises DeviceError for what the library
        cannot do (:meth:`can`) or refused."""
        with _translated():
            found = self._group.measure(
                operation=operation,
                dtype=dtype,
                reduction=reduction,
                root=root,
                in_place=in_place,
                bytes=bytes,
                iterations=iterations,
                least=least,
                most=most,
                limit=limit,
                warmup=warmup,
                verify=verify,
                seed=seed,
                isolated=isolated,
                pipelined=pipelined,
                graph=graph,
                late=late,
                timeout=timeout,
            )
        nothing = self._nothing()
        return CollectivePoint(
            bytes=found["bytes"],
            count=found["count"],
            warmup=found["warmup"],
            times=found["times"],
            posts=found["posts"],
            members=tuple(
                CollectiveMember(
                    rank,
                    found["wrong"][i] if verify else None,
                    found["first_bad"][i] if verify else -1,
                    found["device"][i] if found["device"] else nothing,
                    found["lateness"][i] if found["lateness"] else nothing,
                )
                for i, rank in enumerate(self.members)
            ),
            pipelined=found["pipelined"],
            graphed=found["graphed"],
            pipelined_iterations=found["pipelined_iterations"],
        )

    @staticmethod
    def _nothing() -> Samples:
        import numpy as np

        return np.empty(0)


def over_mpi(comm: Any, *, largest: int, reductions: dict[str, Any] | None = None) -> Collective:
    """The collectives of the MPI that mpi4py has loaded, over a duplicate of ``comm``. Collective.

    ``largest`` bytes is the most that a point may ask for: the buffers are made once. ``reductions``: mpi4py Ops by our
    names, in place of MPI's own, for a test that wants wrong answers.
    """
    with _translated() as module:
        return Collective(module.Collective.mpi(mpi=_mpi_handles(comm, reductions or {}), largest=largest))


def over_nccl(
    comm: Any,
    *,
    cards: Sequence[int],
    largest: int,
    library: str = "",
    sharp: bool | None = None,
    registered: bool = False,
    timeout: float = 60.0,
) -> Collective:
    """The collectives of NCCL, or of a library with its binary interface, over ``cards``: ordinals of the GPUs that
    this process sees; a member of the group each. Collective over ``comm``, None for one process alone.

    ``library`` is a path, empty for libnccl.so.2 as the loader, or this Python's own packages, have it. ``sharp``: with
    or without it, None as the library will have it. ``registered``: its buffers are made known to it beforehand.
    """
    if not library and not any(b.loadable for b in backends() if b.name == "nccl"):
        library = _packaged("nvidia/nccl/lib/libnccl.so.2")
    with _translated() as module:
        return Collective(
            module.Collective.nccl(
                mpi=None if comm is None else _mpi_handles(comm, {}),
                cards=list(cards),
                library=library,
                collnet=-1 if sharp is None else int(sharp),
                registered=registered,
                largest=largest,
                timeout=timeout,
            )
        )


def npus() -> int:
    """How many Ascend NPUs this process sees; DeviceError or LibraryError without the runtime of their toolkit."""
    with _of_card(_SEE_NPU) as module:
        return int(module.npus())


def hccl_path(library: str = "") -> str:
    """The path of the libhccl that :func:`over_hccl` would use, which is loaded."""
    with _of_card(_SEE_NPU) as module:
        return str(module.hccl_path(library=library))


def over_hccl(comm: Any, *, cards: Sequence[int], largest: int, library: str = "", timeout: float = 60.0) -> Collective:
    """The collectives of HCCL over ``cards``: ordinals of the NPUs that this process sees; a member of the group each.
    Collective over ``comm``, None for one process alone. ``library`` is a path, empty for libhccl.so as the loader, or
    the toolkit that ``ASCEND_HOME_PATH`` names, has it."""
    with _of_card(_SEE_NPU) as module:
        return Collective(
            module.Collective.hccl(
                mpi=None if comm is None else _mpi_handles(comm, {}),
                cards=list(cards),
                library=library,
                largest=largest,
                timeout=timeout,
            )
        )


def _packaged(relative: str) -> str:
    """A library of NVIDIA's Python packages beside this Python; empty where there is none."""
    import sysconfig

    path = Path(sysconfig.get_path("purelib")) / relative
    return str(path) if path.exists() else ""


def net_plugin() -> Path:
    """The packaged net plugin of NCCL, ``libnccl-net-cwai.so``. Raises UsageError when it is not there."""
    plugin = Path(str(_native().__file__)).parent / "lib" / "libnccl-net-cwai.so"
    if plugin.is_file():
        return plugin
    raise UsageError(
        Text("{p} is missing", "缺少 {p}").fill(p=plugin),
        Text("install the package again: pip install .", "请重新安装本软件包：pip install ."),
    )


def over_loopback(members: int, *, largest: int) -> Collective:
    """``members`` in this process, done by the CPU: for a machine without MPI, and for tests."""
    with _translated() as module:
        return Collective(module.Collective.loopback(members=members, largest=largest))


def _mpi_handles(comm: Any, reductions: dict[str, Any]) -> dict[str, Any]:
    """What the compiled module needs of mpi4py. MPI has no standard types for the small floats."""
    from mpi4py import MPI

    handle = MPI._handleof
    elements = {
        "int8": MPI.INT8_T,
        "uint8": MPI.UINT8_T,
        "int16": MPI.INT16_T,
        "uint16": MPI.UINT16_T,
        "int32": MPI.INT32_T,
        "uint32": MPI.UINT32_T,
        "int64": MPI.INT64_T,
        "uint64": MPI.UINT64_T,
        "float32": MPI.FLOAT,
        "float64": MPI.DOUBLE,
    }
    ops = {"sum": MPI.SUM, "prod": MPI.PROD, "max": MPI.MAX, "min": MPI.MIN, **reductions}
    return {
        "comm": handle(comm),
        "elements": {name: handle(kind) for name, kind in elements.items()},
        "reductions": {name: handle(op) for name, op in ops.items()},
        "byte": handle(MPI.BYTE),
        "min": handle(MPI.MIN),
        "max": handle(MPI.MAX),
        "errors_return": handle(MPI.ERRORS_RETURN),
    }


# ----------------------------------------------------------------------------------------------- GPUs


@contextmanager
def _of_card(next_step: Text | None = None) -> Iterator[ModuleType]:
    """As :func:`_translated`; what the driver or a library of it refused is said of the card."""
    with _translated() as module:
        try:
            yield module
        except module.Error as error:
            if error.fault != "device":
                raise
            raise DeviceError(
                Text("{subject} failed: {why}", "{subject} 失败：{why}").fill(
                    subject=error.subject, why=plain(error.vendor_code)
                ),
                next_step
                or Text(
                    "see nvidia-smi and the kernel log (dmesg | grep -i xid), and whether others use the card",
                    "请查看 nvidia-smi 与内核日志（dmesg | grep -i xid），以及该卡是否被其他程序占用",
                ),
                vendor_code=error.vendor_code,
            ) from None


_SEE_NPU = Text(
    "see npu-smi info and the logs of CANN (~/ascend/log), and whether others use the card",
    "请查看 npu-smi info 与 CANN 日志（~/ascend/log），以及该卡是否被其他程序占用",
)


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU that this process sees (CUDA_VISIBLE_DEVICES has its say). ``pci`` as in sysfs; bytes.

    ``capability`` is the compute capability, ``9.0``.
    """

    ordinal: int
    name: str
    pci: str
    memory_total: int
    memory_free: int
    multiprocessors: int
    capability: str
    l2_bytes: int


def gpus() -> list[Gpu]:
    """All of them; none where the driver has none. DeviceError where there is no driver, or it does not start."""
    with _of_card() as module:
        return [
            Gpu(capability=f"{told.pop('major')}.{told.pop('minor')}", **told)
            for told in ({**entry} for entry in module.gpus())
        ]


@dataclass(frozen=True)
class GpuCopy:
    """``samples`` are bytes per second that arrived, each way where it went both ways at once. ``wrong`` words of 8
    bytes were not as they should be afterwards, the first at ``first_bad`` (-1: none). ``direct``: of peers, without
    the host between them."""

    samples: Samples
    wrong: int
    first_bad: int
    direct: bool = True


def gpu_copy(
    *,
    gpu: int,
    bytes: int,
    streams: int = 1,
    duration: float = 0.2,
    least: int = 5,
    most: int = 10_000,
    seed: int = 1,
    timeout: float = 30.0,
) -> GpuCopy:
    """Copies of ``bytes`` (a multiple of 16) within a GPU's memory, in ``streams`` parts at once. The memory reads and
    writes each byte: it moves twice what the samples say."""
    with _of_card() as module:
        return GpuCopy(
            **module.gpu_copy(
                gpu=gpu,
                bytes=bytes,
                streams=streams,
                duration=duration,
                least=least,
                most=most,
                seed=seed,
                timeout=timeout,
            )
        )


def gpu_host_copy(
    *,
    gpu: int,
    direction: str,
    bytes: int,
    duration: float = 0.2,
    least: int = 5,
    most: int = 10_000,
    seed: int = 1,
    timeout: float = 30.0,
) -> GpuCopy:
    """Between page-locked memory of the host and a GPU. ``direction``: there (to the GPU), back, both at once."""
    with _of_card() as module:
        return GpuCopy(
            **module.gpu_host_copy(
                gpu=gpu,
                direction=direction,
                bytes=bytes,
                duration=duration,
                least=least,
                most=most,
                seed=seed,
                timeout=timeout,
            )
        )


def gpu_peer_copy(
    *,
    source: int,
    target: int,
    direction: str = "there",
    bytes: int,
    duration: float = 0.2,
    least: int = 5,
    most: int = 10_000,
    seed: int = 1,
    timeout: float = 30.0,
) -> GpuCopy:
    """From one GPU to another (``there``), or ``both`` ways at once."""
    with _of_card() as module:
        return GpuCopy(
            **module.gpu_peer_copy(
                source=source,
                target=target,
                direction=direction,
                bytes=bytes,
                duration=duration,
                least=least,
                most=most,
                seed=seed,
                timeout=timeout,
            )
        )


@dataclass(frozen=True)
class GpuGemm:
    """``samples`` are floating-point operations per second. Not ``supported``: the library has no such product for this
    GPU. ``tried`` algorithms, of which the fastest was taken; ``transposed``: its first factor lies row by row."""

    supported: bool
    library: str
    samples: Samples
    tried: int
    transposed: bool


def gpu_gemm(
    *,
    gpu: int,
    libraries: list[str],
    precision: str,
    size: int = 8192,
    duration: float = 0.2,
    least: int = 3,
    most: int = 10_000,
    seed: int = 1,
    timeout: float = 30.0,
) -> GpuGemm:
    """The product of two square matrices of random numbers. ``precision``: fp64, fp32, tf32, bf16, fp16, fp8.
    ``libraries``: names or paths of cuBLASLt, of which the first that loads is used."""
    with _of_card() as module:
        return GpuGemm(
            **module.gpu_gemm(
                gpu=gpu,
                libraries=libraries,
                precision=precision,
                size=size,
                duration=duration,
                least=least,
                most=most,
                seed=seed,
                timeout=timeout,
            )
        )


@dataclass(frozen=True)
class GpuCompute:
    """What became of the same product again and again.

    ``products`` were compared bit by bit with the first; in the last of them ``wrong`` words of 8 bytes differ. Of
    ``sampled`` elements of the first product that the CPU computed as well ``beyond`` are farther off than rounding
    explains; ``worst`` is the largest distance as a share of that bound. ``row`` and ``column`` (-1: none) are of the
    first bad element: what it was at ``first``, ``later``, and as the CPU has it.
    """

    supported: bool
    library: str
    products: int
    sampled: int
    beyond: int
    worst: float
    wrong: int
    row: int
    column: int
    first: float
    later: float
    exact: float


def gpu_compute(
    *,
    gpu: int,
    libraries: list[str],
    precision: str,
    size: int = 8192,
    duration: float = 0.5,
    least: int = 3,
    most: int = 1_000_000,
    seed: int = 1,
    timeout: float = 30.0,
) -> GpuCompute:
    """Whether a GPU computes the same each time, and the right thing. Arguments are those of :func:`gpu_gemm`."""
    with _of_card() as module:
        return GpuCompute(
            **module.gpu_compute(
                gpu=gpu,
                libraries=libraries,
                precision=precision,
                size=size,
                duration=duration,
                least=least,
                most=most,
                seed=seed,
                timeout=timeout,
            )
        )


@dataclass(frozen=True)
class GpuMemoryCheck:
    """``bytes`` of memory were written and read back ``passes`` times, the slowest at ``slowest`` bytes per second.
    ``wrong`` words of 8 bytes differ, the first at the offset ``first_bad`` (-1: none), where ``found`` was read for
    ``expected``."""

    bytes: int
    passes: int
    slowest: float
    wrong: int
    first_bad: int
    expected: int
    found: int


def gpu_memory(
    *, gpu: int, share: float = 0.9, passes: int = 4, seed: int = 1, timeout: float = 30.0
) -> GpuMemoryCheck:
    """Writes ``share`` of the memory that is free and reads it back; every second pass turns all bits over."""
    with _of_card() as module:
        return GpuMemoryCheck(**module.gpu_memory(gpu=gpu, share=share, passes=passes, seed=seed, timeout=timeout))
