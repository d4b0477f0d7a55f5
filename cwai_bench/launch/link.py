"""A rank's line to its keeper: records go out as they are made, a thread beats, signals are reported as they arrive.

Signals are seen through the interpreter's wake-up pipe, which C code writes to at once: so the keeper learns that
this rank was told to stop even while the main thread is blocked inside MPI. That is how a victim of the launcher is
told from the rank that died first.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType

import msgspec

from cwai_bench.errors import Interrupted, NoVerdictError, UsageError
from cwai_bench.launch import keeper, wire
from cwai_bench.launch.order import Opening
from cwai_bench.model import RankState, Record, Scalar
from cwai_bench.text import Text

JOIN_SECONDS = 15.0
VERDICT_SECONDS = 120.0


class Link:
    """``beat_item`` and ``note`` say where the rank is; the thread tells the keeper twice a second."""

    def __init__(self, sock: socket.socket, rank: int, welcome: keeper.Welcome) -> None:
        self.rank = rank
        self.peer = welcome.peer
        self.version = welcome.version
        self.refusal = welcome.refusal
        self._sock = sock
        self._lock = threading.Lock()
        self._item = ""
        self._deadline = time.monotonic() + 120.0
        self._progress: dict[str, Scalar] = {}
        self._over = threading.Event()
        self._waker: socket.socket | None = None
        self._interrupted = 0

    # ---- joining

    @classmethod
    def join(cls, key: str, rank: int, node: str, *, starter: bool, lock: bool) -> Link:
        """Reach the keeper ``key`` of this node, starting it when nobody has. Call before MPI and before any thread."""
        name = "\0" + key
        if starter:
            keeper.start(name, node, lock)
        end = time.monotonic() + JOIN_SECONDS
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                sock.connect(name)
                sock.settimeout(JOIN_SECONDS)
                wire.send_sync(sock, keeper.Hello(rank, os.getpid()))
                welcome = wire.receive_sync(sock, keeper.to_rank)
                if isinstance(welcome, keeper.Welcome):
                    sock.settimeout(None)
                    return cls(sock, rank, welcome)
            except (OSError, wire.WireError):
                pass
            sock.close()
            if time.monotonic() > end:
                raise NoVerdictError(
                    Text("the keeper of {n} did not answer", "节点 {n} 的守护进程没有响应").fill(n=node),
                    Text("look for keeper-*.log in the spool folder", "请查看暂存目录中的 keeper-*.log"),
                )
            time.sleep(0.02)

    def watch_signals(self) -> None:
        """Report SIGINT, SIGTERM and SIGHUP to the keeper, and raise :class:`Interrupted` in the main thread."""
        woken, self._waker = socket.socketpair()
        woken.settimeout(keeper.BEAT_SECONDS)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._beat, args=(woken,), name="beat", daemon=True).start()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if not self._interrupted:
            self._interrupted = number
            raise Interrupted(number)

    # ---- talking

    def send(self, message: keeper.FromRank) -> None:
        try:
            with self._lock:
                wire.send_sync(self._sock, message)
        except OSError as e:
            raise NoVerdictError(
                Text("the keeper of this node is gone", "本节点的守护进程已退出"),
                Text("look for keeper-*.log in the spool folder", "请查看暂存目录中的 keeper-*.log"),
            ) from e

    def open(self, opening: Opening, ranks: list[int]) -> None:
        self.send(keeper.Open(opening, ranks))

    def record(self, record: Record) -> None:
        self.send(keeper.Entry(msgspec.Raw(msgspec.json.encode(record))))

    def at(self, item: str, seconds: float) -> None:
        """From now on this rank is in ``item``, which should be over in ``seconds``."""
        self._item, self._deadline, self._progress = item, time.monotonic() + seconds, {}
        self.send(keeper.Beat(item, seconds, {}))

    def note(self, progress: dict[str, Scalar]) -> None:
        """How far the item got; sent with the next beat."""
        self._progress = progress

    def _beat(self, woken: socket.socket) -> None:
        from cwai_bench import native

        reached: Callable[[], Mapping[str, Scalar]] = native.progress
        try:
            reached()
        except UsageError:  # the compiled module is missing: whoever needs it will say so
            reached = dict
        while not self._over.is_set():
            try:
                for number in woken.recv(64):
                    if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                        if reached is not dict:
                            native.stop()
                        self.send(keeper.SignalSeen(number))
            except TimeoutError:
                pass
            except (OSError, NoVerdictError):
                return
            try:
                progress = {**reached(), **self._progress}
                self.send(keeper.Beat(self._item, self._deadline - time.monotonic(), progress))
            except NoVerdictError:
                return

    # ---- leaving

    def leave(self, state: RankState, detail: Text | None = None, interrupted: int = 0) -> keeper.Verdict:
        """Say that this rank is done, wait for the verdict of the whole run, and hang up."""
        self._over.set()
        if self._waker is not None:
            signal.set_wakeup_fd(-1)
            self._waker.close()
        try:
            self.send(keeper.Bye(state, detail, interrupted))
            return self._verdict()
        finally:
            self.close()

    def close(self) -> None:
        """Hang up without a word, as a process that dies does."""
        self._sock.close()

    def _verdict(self) -> keeper.Verdict:
        self._sock.settimeout(VERDICT_SECONDS)
        try:
            while (message := wire.receive_sync(self._sock, keeper.to_rank)) is not None:
                if isinstance(message, keeper.Verdict):
                    return message
        except (OSError, wire.WireError) as e:
            return keeper.Verdict(None, Text("no verdict: {e}", "没有结论：{e}").fill(e=e))
        return keeper.Verdict(None, Text("the keeper of this node is gone", "本节点的守护进程已退出"))


def key_of(job: str) -> str:
    """The name of a job's keeper: the same for all its ranks on a node, guessable by nobody else's job."""
    return f"cwai-bench-{os.getuid()}-{hashlib.sha256(job.encode()).hexdigest()[:24]}"
