"""Running a command that only reads: in a session of its own, with nothing to read from, in the C locale, in time."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time

from cwai_bench.discover.tree import TEXT_LIMIT, bounded, decode, refused
from cwai_bench.model import Reading
from cwai_bench.sources import Command

PATH = ":".join(
    (
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "/usr/local/Ascend/driver/tools:/usr/local/Ascend/toolbox/latest/Ascend-DMI/bin:/opt/rocm/bin:/opt/amazon/efa/bin",
    )
)
"""Searched after the person's own PATH: reading tools live in sbin, which a user's PATH often lacks; hccn_tool,
ascend-dmi, rvs and fi_info live where their vendors install them."""
GRACE = 0.3
"""Seconds between SIGTERM and SIGKILL, and then until a process that does not die is left behind."""
STDERR_LIMIT = 4096

_abandoned: list[subprocess.Popen[bytes]] = []
"""Processes that SIGKILL did not end (they sit in a driver). Kept so that a later look can reap them."""


def run(command: Command, timeout: float) -> Reading:
    """The reading of ``command``: its standard output, its exit code, its standard error as the detail.

    ``missing`` when there is no such command; ``timeout`` when it had to be ended.
    """
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd="/",
            start_new_session=True,
        )
    except OSError as e:
        return refused(command.key, e)
    out, err, over, held = _collect(process, started + timeout)
    duration = time.monotonic() - started
    if held and not over:
        _kill_group(process.pid)
    if over:
        gone = end(process)
        detail = f"ended after {timeout:g} s" if gone else f"pid {process.pid} cannot be killed; left behind"
        return Reading(command.key, "timeout", decode(out[:TEXT_LIMIT]), detail, duration=duration)
    code = process.returncode
    reading = bounded(command.key, out, code, decode(err[:STDERR_LIMIT]).strip())
    return Reading(
        reading.source, "ok", reading.text, reading.detail, reading.exit_code, reading.truncated, round(duration, 4)
    )


def environment() -> dict[str, str]:
    """What a command is given of our own environment: the same answer whoever asks, in whatever language."""
    kept = {k: v for k, v in os.environ.items() if k in ("HOME", "USER", "LD_LIBRARY_PATH", "XDG_RUNTIME_DIR")}
    return kept | {"LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:{PATH}".lstrip(":")}


def _collect(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes, bool, bool]:
    """Standard output (at most TEXT_LIMIT + 1 bytes; the rest is drained) and standard error; whether time ran out;
    whether somebody else still holds the pipes."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        for stream, kept in ((process.stdout, out), (process.stderr, err)):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, kept)
        over = held = False
        while selector.get_map():
            # A grandchild may hold the pipes open long after the command itself has ended: do not wait for that one.
            ended = process.poll() is not None
            left = deadline - time.monotonic()
            if left <= 0:
                over = not ended
                break
            ready = selector.select(min(left, 0.05))
            if not ready and ended:
                held = True
                break
            for key, _ in ready:
                part = os.read(key.fd, 1 << 16)
                if not part:
                    selector.unregister(key.fileobj)
                elif len(key.data) <= TEXT_LIMIT:
                    key.data.extend(part)
    if not over:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            over = True
    process.stdout.close()
    process.stderr.close()
    return bytes(out[: TEXT_LIMIT + 1]), bytes(err), over, held


def end(process: subprocess.Popen[bytes]) -> bool:
    """End a process that leads its own group: SIGTERM, then SIGKILL. False when it outlived both."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        _kill_group(process.pid, sign)
        try:
            process.wait(GRACE)
            break
        except subprocess.TimeoutExpired:
            continue
    else:
        _abandoned.append(process)
        return False
    # What it started may have ignored SIGTERM and lived on in the same group.
    _kill_group(process.pid)
    return True


def _kill_group(group: int, sign: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, sign)
