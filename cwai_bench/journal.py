"""The journal: what was measured, on disk, as it was measured.

One append-only JSON-lines file per writer, kept on the node while the run lasts; merged on read; a finished run is
published by renaming its folder into the store. No locks, no database: safe on a shared file system.

::

    SPOOL/RUN_ID/WRITER.jsonl          while it runs, on each node
    STORE/RUN_ID/journal/WRITER.jsonl  all of them, afterwards
    STORE/RUN_ID/journal/absent.jsonl  the nodes from which none came, and why
    STORE/RUN_ID/report.json, …        what the judge and the renderers made of it

A file that ends in the middle of a line is a run that was killed: all lines before it count.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from cwai_bench.errors import NoVerdictError, UsageError
from cwai_bench.model import (
    SCHEMA_READ,
    SCHEMA_VERSION,
    Facts,
    FactsRecord,
    Measurement,
    NodeEnd,
    NodeRecord,
    PairResults,
    PathFault,
    RankEvent,
    Record,
    Run,
    RunHeader,
    RunStatus,
    Transfer,
)
from cwai_bench.text import Text

ABSENT = "absent.jsonl"
RUN_ID = re.compile(r"^\d{8}T\d{6}Z-[a-z]+-[0-9a-f]{6}$")
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def new_run_id(run_type: str, now: float | None = None) -> str:
    """``20260131T235959Z-run-1a2b3c``: sorts by time, says the type, is unique."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    return f"{stamp}-{run_type}-{secrets.token_hex(3)}"


def file_name(node: str, unique: str) -> str:
    """A safe file name for a node's journal: a host name is hostile text."""
    return f"{re.sub(r'[^A-Za-z0-9._-]', '_', node)[:64]}-{unique}.jsonl"


def spool_dir() -> Path:
    """Where journals live while a run lasts: on the node itself, private to the user. Never in $HOME, often shared."""
    chosen = os.environ.get("CWAI_BENCH_SPOOL")
    path = Path(chosen) if chosen else Path("/var/tmp") / f"cwai-bench-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat(follow_symlinks=False)
    except OSError as e:
        raise NoVerdictError(
            Text("cannot use the spool folder {p}: {e}", "无法使用暂存目录 {p}：{e}").fill(p=path, e=e.strerror),
            Text("set CWAI_BENCH_SPOOL to a local folder that you can write", "将 CWAI_BENCH_SPOOL 设为可写的本地目录"),
        ) from e
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise NoVerdictError(
            Text("the spool folder {p} belongs to someone else", "暂存目录 {p} 属于其他用户").fill(p=path),
            Text("set CWAI_BENCH_SPOOL to a folder of your own", "将 CWAI_BENCH_SPOOL 设为自己的目录"),
        )
    return path


def default_store() -> Path:
    """The store of the user: ``$XDG_STATE_HOME/cwai-bench`` (``~/.local/state/cwai-bench``)."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "cwai-bench"


class Writer:
    """Appends records to one journal. Each record is one ``write`` of one line.

    A disk that refuses does not end the run: lines are kept in memory too (``lines``), and ``trouble`` says why.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[bytes] = []
        self.trouble: Text | None = None
        self._fd: int | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as e:
            self._give_up(e)

    def write(self, record: Record) -> None:
        self.write_line(msgspec.json.encode(record))

    def write_line(self, line: bytes) -> None:
        """``line`` is one encoded record without its newline."""
        self.lines.append(line)
        if self._fd is None:
            return
        data = line + b"\n"
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as e:
            self._give_up(e)

    def _give_up(self, e: OSError) -> None:
        self.trouble = Text(
            "the journal {p} could not be written ({e}); its records were kept in memory",
            "日志 {p} 无法写入（{e}），记录保存在内存中",
        ).fill(p=self.path, e=e.strerror)
        self.close()

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class JournalFile(msgspec.Struct, frozen=True):
    """One journal as read. ``notes`` say what could not be read; ``closed``: it ends as a finished one does."""

    header: RunHeader
    records: list[Record]
    closed: bool
    notes: list[Text]


def parse(data: bytes, name: str) -> JournalFile:
    """Read one journal. Raises UsageError when not even its header can be read."""
    records: list[Record] = []
    notes: list[Text] = []
    lines = data.split(b"\n")
    tail = lines.pop()
    if tail:
        notes.append(Text("{n}: the last record is cut short", "{n}：最后一条记录不完整").fill(n=name))
    for number, line in enumerate(lines, 1):
        try:
            records.append(_decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            notes.append(
                Text("{n}: line {i} cannot be read: {e}", "{n}：第 {i} 行无法读取：{e}").fill(n=name, i=number, e=e)
            )
    if not records or not isinstance(records[0], RunHeader):
        raise UsageError(
            Text("{n} is not a journal of cwai-bench", "{n} 不是 cwai-bench 的日志文件").fill(n=name),
            Text(
                "give a run id, or a run folder: cwai-bench history list",
                "请给出运行编号或运行目录：cwai-bench history list",
            ),
        )
    header = records[0]
    if header.schema not in SCHEMA_READ:
        raise UsageError(
            Text(
                "{n}: journal version {v} is not supported (this is version {s})",
                "{n}：不支持日志版本 {v}（本工具为版本 {s}）",
            ).fill(n=name, v=header.schema, s=SCHEMA_VERSION),
            Text("use the cwai-bench that wrote it: {v}", "请使用写出它的 cwai-bench：{v}").fill(v=header.version),
        )
    return JournalFile(header, records, isinstance(records[-1], NodeEnd), notes)


def absent(header: RunHeader, ends: Iterable[NodeEnd]) -> bytes:
    """The journal of the nodes that have none, by the process that waited for them: each ``NodeEnd`` says why."""
    records: list[Record] = [msgspec.structs.replace(header, node="", writer=""), *ends]
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def merge(files: Iterable[JournalFile], *, finished: float | None = None, stopped: int = 0) -> Run:
    """All journals of one run as one :class:`Run`. A node counts as lost when a journal says so and none is its own.
    ``stopped``: the signal by which a person stopped the whole run, whatever the ranks were told by.

    Raises UsageError when there is no journal at all.
    """
    parts = sorted(files, key=lambda f: min((r.rank for r in f.records if isinstance(r, RankEvent)), default=1 << 30))
    if not parts:
        raise UsageError(Text("there is no journal to read", "没有可读取的日志"))
    head = parts[0].header
    facts = _whole(r.facts for f in parts for r in f.records if isinstance(r, FactsRecord))
    measurements = [r for f in parts for r in f.records if isinstance(r, Measurement)]
    pairs = [r for f in parts for r in f.records if isinstance(r, PairResults)]
    transfers = [r for f in parts for r in f.records if isinstance(r, Transfer)]
    path_faults = [r for f in parts for r in f.records if isinstance(r, PathFault)]
    events = sorted((r for f in parts for r in f.records if isinstance(r, RankEvent)), key=lambda e: e.time)
    ends = [r for f in parts for r in f.records if isinstance(r, NodeEnd)]
    own = {f.header.node for f in parts}
    why_lost = {e.node: e for e in ends if e.lost is not None and e.node not in own}
    lost = [NodeRecord(e.node, [], False, False, e.lost, e.reason_code) for e in why_lost.values()]
    nodes = [
        NodeRecord(
            f.header.node,
            sorted({r.rank for r in f.records if isinstance(r, RankEvent) and r.state == "started"}),
            True,
            f.closed,
            _joined(f.notes),
        )
        for f in parts
        if f.header.node
    ] + lost
    last = max(
        [head.started]
        + [e.time for e in ends]
        + [e.time for e in events]
        + [m.started + m.duration for m in measurements]
        + [f.taken for f in facts]
    )
    interrupted = stopped or max((e.interrupted for e in ends), default=0)
    gone = any(e.state in ("died", "stalled", "lost", "failed", "overdue") for e in events)
    status: RunStatus = "complete"
    if gone or lost or not all(f.closed for f in parts):
        status = "partial"
    elif interrupted:
        status = "terminated"
    settings = dict(head.settings)
    if stopped or (
        interrupted and not gone
    ):  # after a death the launcher interrupts the others: that is no interruption
        settings["interrupted"] = interrupted
    return Run(
        run_id=head.run_id,
        run_type=head.run_type,
        command=head.command,
        version=head.version,
        started=head.started,
        finished=finished if finished is not None else last,
        utc_offset=head.utc_offset,
        status=status,
        world_size=head.world_size,
        plan=head.plan,
        environment=head.environment,
        settings=settings,
        nodes=nodes,
        facts=facts,
        measurements=measurements,
        events=events,
        pairs=pairs,
        transfers=transfers,
        path_faults=path_faults,
    )


def _whole(parts: Iterable[Facts]) -> list[Facts]:
    """The facts of each node as one: what its scripts said comes bit by bit, after what was read."""
    found: dict[str, Facts] = {}
    for part in parts:
        known = found.get(part.node)
        readings = part.readings if known is None else known.readings | part.readings
        found[part.node] = msgspec.structs.replace(known or part, readings=readings)
    return list(found.values())


def _joined(notes: list[Text]) -> Text | None:
    return Text("; ".join(n.en for n in notes), "；".join(n.zh for n in notes)) if notes else None


def read_folder(folder: Path) -> list[JournalFile]:
    """All journals of a run folder (published or spooled). A broken one among others becomes a note of its own."""
    where = folder / "journal" if (folder / "journal").is_dir() else folder
    try:
        paths = sorted(where.glob("*.jsonl"))
        blobs = [(p.name, p.read_bytes()) for p in paths]
    except OSError as e:
        raise UsageError(
            Text("cannot read {p}: {e}", "无法读取 {p}：{e}").fill(p=folder, e=e.strerror),
            Text("check its permissions", "请检查其权限"),
        ) from e
    if not blobs:
        raise UsageError(
            Text("{p} holds no journal", "{p} 中没有日志").fill(p=folder),
            Text(
                "give a run id or a run folder: cwai-bench history list",
                "请给出运行编号或运行目录：cwai-bench history list",
            ),
        )
    return [parse(data, name) for name, data in blobs]


def publish(store: Path, run_id: str, files: dict[str, bytes]) -> Path:
    """Put a finished run into the store, whole or not at all. ``files``: relative name → content.

    Publishing a run again replaces its files one by one. Raises NoVerdictError naming the store when it refuses.
    """
    final = store / run_id
    try:
        store.mkdir(parents=True, exist_ok=True)
        if final.is_dir():
            for name, data in files.items():
                _replace(final / name, data)
            return final
        incoming = store / f".incoming-{run_id}-{secrets.token_hex(3)}"
        try:
            for name, data in files.items():
                path = incoming / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as f:
                    f.write(data)
                    f.flush()
                    os.fsync(f.fileno())
            incoming.rename(final)
        except OSError:
            shutil.rmtree(incoming, ignore_errors=True)
            raise
    except OSError as e:
        hint = (
            Text(
                "free some space, or choose another store with --store DIR",
                "请清理磁盘空间，或用 --store DIR 选择其他目录",
            )
            if e.errno in (errno.ENOSPC, errno.EDQUOT)
            else Text("choose a store that you can write: --store DIR", "请用 --store DIR 选择可写的目录")
        )
        raise NoVerdictError(
            Text("the run could not be written to the store {p}: {e}", "无法将本次运行写入存储目录 {p}：{e}").fill(
                p=store, e=e.strerror
            ),
            hint,
        ) from e
    return final


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(3)}")
    fresh.write_bytes(data)
    fresh.replace(path)
