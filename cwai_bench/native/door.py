"""How the compiled module is reached: loaded once, and its errors told in both languages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from cwai_bench import __version__
from cwai_bench.errors import CwaiError, DeadlineError, DeviceError, NoVerdictError, UsageError
from cwai_bench.text import Text, plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float64]


class Stopped(NoVerdictError):
    """A run ended early because :func:`stop` was called."""


@cache
def compiled() -> ModuleType:
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

FAULTS: dict[str, tuple[type[CwaiError], Text, Text | None]] = {
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
def translated() -> Iterator[ModuleType]:
    """Yields the compiled module; its errors leave as ours, with a message in both languages."""
    module = compiled()
    try:
        yield module
    except module.Error as error:
        kind, message, next_step = FAULTS[error.fault]
        said = error.vendor_code or (os.strerror(error.errno) if error.errno else "")
        text = message.fill(subject=error.subject, why=plain(said))
        if issubclass(kind, DeviceError):
            raise kind(text, next_step, errno=error.errno, vendor_code=error.vendor_code) from None
        raise kind(text, next_step) from None


@contextmanager
def of_card(next_step: Text | None = None) -> Iterator[ModuleType]:
    """As :func:`translated`; what the driver or a library of it refused is said of the card."""
    with translated() as module:
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


SEE_NPU = Text(
    "see npu-smi info and the logs of CANN (~/ascend/log), and whether others use the card",
    "请查看 npu-smi info 与 CANN 日志（~/ascend/log），以及该卡是否被其他程序占用",
)


def stop() -> None:
    """Ask every native run of this process to end; each then raises :class:`Stopped`. Callable from any thread.

    The flag stays set: later runs end at once as well, until :func:`clear_stop`. Note that a Python signal handler
    runs on the main thread only, and not while a native run occupies it; use a thread that reads the signal
    wake-up pipe.
    """
    compiled().stop()


def clear_stop() -> None:
    """Take :func:`stop` back."""
    compiled().clear_stop()


def progress() -> dict[str, str | int]:
    """How far the present run has got: ``phase`` (idle, connect, agree, warmup, timed, verify, close), ``what``
    (bandwidth, latency, all_reduce, …), ``size`` in bytes, ``iteration``. Callable from any thread."""
    view: dict[str, str | int] = compiled().progress()
    return view


def clock() -> dict[str, float]:
    """``resolution`` and ``overhead`` of the native clock in seconds, measured now (under a millisecond)."""
    view: dict[str, float] = compiled().clock()
    return view


def crc32c(data: bytes, seed: int = 0) -> int:
    """CRC-32C of ``data``; ``seed`` is the CRC of what came before."""
    value: int = compiled().crc32c(data=data, seed=seed)
    return value
