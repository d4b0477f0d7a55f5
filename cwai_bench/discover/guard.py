"""The guard of one script or vendor's test: runs it, ends it, and answers with its reading. See ``script.py``."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from cwai_bench.discover.script import LINGER_SECONDS, Job
from cwai_bench.discover.tree import bounded, refused
from cwai_bench.model import Reading

LOOK_SECONDS = 0.05
DRAIN_SECONDS = 0.5
"""Seconds in which the rest of the output is taken once the script has ended."""
PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """One job comes in on standard input, which stays open for as long as the script is wanted."""
    line = sys.stdin.buffer.readline()
    if not line:
        return
    # Whoever started us hangs up, and that ends the script. Not SIG_IGN: the script would inherit it, and miss SIGTERM.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    # What outlives its parent within the script becomes a child of ours, and can be found.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    reading = carry_out(msgspec.json.decode(line, type=Job), wanted=0)
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(msgspec.json.encode(reading))
        sys.stdout.buffer.flush()


def carry_out(job: Job, wanted: int) -> Reading:
    """Run the script to its end, to its limit, or until the other end of the pipe ``wanted`` is closed."""
    started = time.monotonic()
    try:
        held = [_in_memory(job.text.encode())] if job.text else []
        process = subprocess.Popen(
            [*(f"/proc/self/fd/{fd}" for fd in held), *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=job.environ,
            cwd="/",
            start_new_session=True,
            pass_fds=held,
        )
    except OSError as e:
        first = job.text.split("\n", 1)[0][:200] or job.arguments[0]
        return msgspec.structs.replace(refused(job.source, e), detail=f"{first}: {os.strerror(e.errno or 0)}")
    except ValueError as e:  # an argument that no program can be given
        return Reading(job.source, "error", detail=str(e))
    output, ended = _collect(process, started + job.limit, wanted, job.keep)
    left_behind = [pid for pid, state in _children() if ended and state != "Z"]
    if not ended:
        _signal_session(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(job.grace)
    _signal_session(process.pid, signal.SIGKILL)
    immortal = _end_children(process, time.monotonic() + LINGER_SECONDS)
    details = [] if ended else [f"ended after {job.limit:g} s"]
    if left_behind:
        details.append(f"{len(left_behind)} of its processes were left behind and were ended")
    if immortal:
        details.append(f"cannot be killed: pid {', '.join(map(str, immortal))}")
    reading = bounded(job.source, output, process.returncode, "; ".join(details), job.keep)
    duration = round(time.monotonic() - started, 4)
    if ended:
        return msgspec.structs.replace(reading, duration=duration)
    return msgspec.structs.replace(reading, status="timeout", exit_code=None, duration=duration)


MFD_EXEC = 0x10
"""Linux include/uapi/linux/memfd.h: to be executed, also where vm.memfd_noexec makes that the exception."""


def _in_memory(data: bytes) -> int:
    """A descriptor of a file in memory that holds ``data`` and that nobody can write any more. Raises OSError.

    It is opened again for reading alone: a file that is open for writing cannot be executed.
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        writable = os.memfd_create("cwai-bench-script", flags | MFD_EXEC)
    except OSError:  # a kernel before 6.3 does not know the flag, and needs none
        writable = os.memfd_create("cwai-bench-script", flags)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(writable, view) :]
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(writable, fcntl.F_ADD_SEALS, seals)
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)


def _collect(process: subprocess.Popen[bytes], deadline: float, wanted: int, keep: int) -> tuple[bytes, bool]:
    """The output, one byte more than is kept at most (the rest is drained), and whether the script came to its end."""
    assert process.stdout is not None
    out = bytearray()
    over = False
    with selectors.DefaultSelector() as selector:
        selector.register(wanted, selectors.EVENT_READ)
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            # Something in the background may hold the pipe open: what counts is that the script itself has ended.
            if not over and process.poll() is not None:
                over, deadline = True, min(deadline, time.monotonic() + DRAIN_SECONDS)
            left = deadline - time.monotonic()
            if left <= 0:
                return bytes(out), over
            ready = {key.fd for key, _ in selector.select(min(left, LOOK_SECONDS))}
            if wanted in ready and not os.read(wanted, 4096):
                return bytes(out), over
            if process.stdout.fileno() not in ready:
                if over:
                    return bytes(out), True
                continue
            part = os.read(process.stdout.fileno(), 1 << 16)
            out += part[: max(0, keep + 1 - len(out))]
            if not part:
                selector.unregister(process.stdout)


def _end_children(process: subprocess.Popen[bytes], deadline: float) -> list[int]:
    """Kill and reap all children of this process: the script and whatever it left behind. Those that SIGKILL did not
    end by ``deadline``: they sit in a driver."""
    while True:
        process.poll()
        alive = {pid for pid, _ in _children()}
        for pid in alive:
            _kill(pid)
            if pid != process.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        if not alive or time.monotonic() > deadline:
            return sorted(alive)
        time.sleep(0.01)


def _children() -> list[tuple[int, str]]:
    """The processes whose parent this process is, each with its state."""
    own, found = os.getpid(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, IndexError, ValueError):
                state, parent, *_ = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(parent) == own:
                    found.append((int(entry.name), state))
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _signal_session(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


if __name__ == "__main__":
    main()
