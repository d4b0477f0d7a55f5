"""The door to the password: it was typed once, stays in the memory of this process, and goes to ssh alone.

ssh runs askpass.py with a question; that brings the question here, over a unix socket in a folder of our own. Before
anything is answered the kernel says who asks (SO_PEERCRED): a process of this user whose parent we started, and we
start nothing but ssh. Only a question for the node's password is answered, never one of a jump host, for a key's
passphrase or about a host's key.

A wrong password, tried on every node at once, would lock the account everywhere. So one node tries it first and the
others wait until it is accepted somewhere; a node that says nothing of it (a login can hang) makes way for one more;
when two more nodes have refused than accepted it, no other gets it. An ssh that is not answered is ended, because it
would try the empty password instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from cwai_bench import journal
from cwai_bench.errors import CwaiError, UsageError
from cwai_bench.text import Text

MAX_REFUSALS = 2
"""More refusals than acceptances, and it is given up: pam_faillock(8) locks an account at the third, unless set."""
TRIAL_SECONDS = 15.0
"""How long the others wait for what comes of a trial: a refusal takes pam_unix(8) two seconds, a login rarely ten."""
QUESTION_SECONDS = 5.0
_PASSWORD = re.compile(
    r"(\([^()]*\) ?)?(\S+@\S+'s password|password( for \S+)?|(\S+@\S+ ?的)?(密码|口令))[:：]?\s*", re.IGNORECASE
)
"""As OpenSSH asks (``root@node1's password: ``), and as PAM does through it (``(root@node1) Password: ``)."""


class _GoneError(Exception):
    """The ssh that asked has ended."""


class Door:
    """Answers the ssh processes of a run while it is open (``async with``). ``environ`` is what they need to ask."""

    def __init__(self, password: str) -> None:
        self._password = password.encode()
        self._given: set[int] = set()
        self._trials: set[int] = set()
        self._tried_at = 0.0
        self._accepted = 0
        self._refusals: list[str] = []
        self._changed = asyncio.Event()
        self._reasons: dict[int, Text] = {}
        self._folders: list[Path] = []
        self._server: asyncio.AbstractServer | None = None
        self._core = resource.getrlimit(resource.RLIMIT_CORE)
        self.environ: dict[str, str] = {}

    async def __aenter__(self) -> Door:
        try:
            folder = Path(tempfile.mkdtemp(prefix="cwai-"))  # mode 0700
            self._folders.append(folder)
            self._server = await asyncio.start_unix_server(self._answer, path=folder / "door")
            self.environ = {
                "CWAI_BENCH_DOOR": str(folder / "door"),
                "SSH_ASKPASS": str(self._helper()),
                "SSH_ASKPASS_REQUIRE": "force",  # OpenSSH 8.4 and later; an older one asks it when there is a DISPLAY
                "DISPLAY": os.environ.get("DISPLAY") or ":0",
            }
        except BaseException:
            self._close()
            raise
        # No core dump of this process or of an ssh may hold the password.
        resource.setrlimit(resource.RLIMIT_CORE, (0, self._core[1]))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, self._core)
        self._close()

    def _close(self) -> None:
        self._password = b""
        if self._server is not None:
            self._server.close()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _helper(self) -> Path:
        """A program of one line: SSH_ASKPASS has no place for arguments. Where programs may be run, which is forbidden
        in the folders for temporary files of many a hardened machine. Raises UsageError."""
        program = Path(__file__).with_name("askpass.py")
        line = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I {shlex.quote(str(program))} "$1"\n'
        places: list[Path] = []
        with contextlib.suppress(CwaiError):
            places.append(journal.spool_dir())
        places += [Path(tempfile.gettempdir()), Path(os.environ.get("XDG_RUNTIME_DIR", "/dev/shm")), Path.home()]
        for place in places:
            with contextlib.suppress(OSError):
                folder = Path(tempfile.mkdtemp(prefix=".cwai-askpass-", dir=place))
                self._folders.append(folder)
                path = folder / "askpass"
                path.write_text(line)
                path.chmod(0o700)
                if os.access(path, os.X_OK):  # says no on a file system mounted noexec, too
                    return path
        raise UsageError(
            Text("no folder allows a program to be run from it: {p}", "以下目录均不允许执行程序：{p}").fill(
                p=", ".join(map(str, places))
            ),
            Text(
                "set CWAI_BENCH_SPOOL to a folder of yours that is not mounted noexec, or use a key",
                "将 CWAI_BENCH_SPOOL 设为未以 noexec 挂载的目录，或改用密钥",
            ),
        )

    # ---- what the collector tells

    def accepted(self, pid: int) -> None:
        """The node has let ``pid`` in."""
        if pid in self._given:
            self._accepted += 1
        self._settle(pid)

    def over(self, pid: int, node: str, *, refused: bool) -> Text | None:
        """``pid``, the ssh to ``node``, has ended. Why it was not answered, where that was so."""
        if pid in self._given and refused:
            self._refusals.append(node)
        self._settle(pid)
        self._given.discard(pid)
        return self._reasons.pop(pid, None)

    def _settle(self, pid: int) -> None:
        self._trials.discard(pid)
        self._changed.set()

    # ---- what ssh asks

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asker = self._peer(writer)
            parent = _parent(asker)
            pid = _ours(parent)
            if pid is None:
                return
            try:
                raw = await asyncio.wait_for(reader.readuntil(b"\0"), QUESTION_SECONDS)
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError, ConnectionError):
                return
            question = "".join(c for c in raw[:-1].decode(errors="replace") if c.isprintable())
            if not _PASSWORD.fullmatch(question):
                self._reasons.setdefault(
                    pid,
                    Text(
                        "ssh asked {q!r}: only a question for a password is answered", "ssh 询问 {q!r}：仅回答密码询问"
                    ).fill(q=question[:200]),
                )
            elif (why := _JUMP if parent != pid else await self._why_not(pid, asker)) is not None:
                self._reasons[pid] = why
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            else:
                self._given.add(pid)
                writer.write(self._password)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
        except _GoneError:
            pass
        finally:
            writer.close()

    def _peer(self, writer: asyncio.StreamWriter) -> int:
        """The process at the other end; 0 when it is another user's."""
        sock: socket.socket = writer.get_extra_info("socket")
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _gid = struct.unpack("3i", raw)
        return int(pid) if uid == os.getuid() else 0

    async def _why_not(self, pid: int, asker: int) -> Text | None:
        """Wait until ``pid`` may have the password, or say why it may not. Raises _GoneError when it has ended, of
        which nobody would ever say what came of it."""
        if pid in self._given:
            return Text("the password was refused", "密码被拒绝")
        while True:
            if _parent(asker) != pid:
                raise _GoneError
            if len(self._refusals) - self._accepted >= MAX_REFUSALS:
                return Text(
                    "the password was not tried here: {n} refused it", "未在此节点尝试密码：已被 {n} 拒绝"
                ).fill(n=", ".join(self._refusals))
            if self._accepted:
                return None
            patience = None
            if len(self._refusals) + len(self._trials) < MAX_REFUSALS:
                patience = self._tried_at + TRIAL_SECONDS - time.monotonic() if self._trials else 0.0
                if patience <= 0:
                    self._trials.add(pid)
                    self._tried_at = time.monotonic()
                    return None
            self._changed.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), patience)


_JUMP = Text(
    "a jump host asks for a password, and the nodes' one is not for it: give it a key",
    "跳板机要求输入密码，而节点密码不会用于跳板机：请为其配置密钥",
)


def _ours(pid: int) -> int | None:
    """The child of ours that ``pid`` is, or that it descends from (the ssh to a jump host); None for a stranger."""
    for _ in range(8):
        if not pid or (parent := _parent(pid)) == os.getpid():
            return pid or None
        pid = parent
    return None


def _parent(pid: int) -> int:
    """The process that started ``pid``, or 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


__all__ = ["Door"]
