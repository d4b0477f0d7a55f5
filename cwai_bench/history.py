"""Runs of the past: those in the store, and those that never got there and still lie in the spool."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from cwai_bench import journal
from cwai_bench.errors import CwaiError, NoVerdictError, UsageError
from cwai_bench.model import Report, Run, RunStatus, Status
from cwai_bench.text import Text

PUBLISHED = "report.json"


class Entry(msgspec.Struct, frozen=True):
    """One run. ``gate`` is None for a run that was never judged (``status`` partial or running)."""

    run_id: str
    run_type: str
    started: float
    finished: float
    status: RunStatus
    nodes: int
    gate: Status | None
    exit_code: int | None
    folder: Path
    note: Text | None = None


class _Saved(msgspec.Struct):
    """What of report.json a listing needs; the rest is skipped."""

    run_id: str
    run_type: str
    started: float
    finished: float
    status: RunStatus
    nodes: list[msgspec.Raw]
    gate: _Gate


class _Gate(msgspec.Struct):
    status: Status
    exit_code: int


def entries(store: Path, run_type: str | None = None) -> list[Entry]:
    """Newest first. A run whose files cannot be read is listed with a note, not left out."""
    found: dict[str, Entry] = {}
    for place in (journal.spool_dir(), store):
        try:
            folders = sorted(p for p in place.iterdir() if p.is_dir() and journal.RUN_ID.match(p.name))
        except FileNotFoundError:
            continue
        except OSError as e:
            raise UsageError(
                Text("cannot read the store {p}: {e}", "无法读取存储目录 {p}：{e}").fill(p=place, e=e.strerror),
                Text(
                    "check its permissions, or give another with --store DIR",
                    "请检查权限，或用 --store DIR 指定其他目录",
                ),
            ) from e
        found |= {folder.name: entry(folder) for folder in folders}
    chosen = [e for e in found.values() if run_type is None or e.run_type == run_type]
    return sorted(chosen, key=lambda e: e.run_id, reverse=True)


def entry(folder: Path) -> Entry:
    """What is known of the run in ``folder``."""
    run_type = folder.name.split("-")[1] if journal.RUN_ID.match(folder.name) else ""
    blank = Entry(folder.name, run_type, 0.0, 0.0, "error", 0, None, None, folder)
    try:
        if (folder / PUBLISHED).exists():
            saved = msgspec.json.decode((folder / PUBLISHED).read_bytes(), type=_Saved)
            return Entry(
                folder.name,
                saved.run_type,
                saved.started,
                saved.finished,
                saved.status,
                len(saved.nodes),
                saved.gate.status,
                saved.gate.exit_code,
                folder,
            )
        run = journal.merge(journal.read_folder(folder))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
        return msgspec.structs.replace(blank, note=Text("cannot be read: {e}", "无法读取：{e}").fill(e=e))
    except CwaiError as e:
        return msgspec.structs.replace(blank, note=e.message)
    return Entry(folder.name, run.run_type, run.started, run.finished, "partial", len(run.nodes), None, None, folder)


def find(name: str, store: Path) -> Entry:
    """The run called ``name``: an id, the unique end or beginning of one, ``last``, or a folder. Raises UsageError."""
    path = Path(name)
    if path.is_dir():
        return entry(path.absolute())
    every = entries(store)
    if name == "last" and every:
        return every[0]
    matches = [e for e in every if e.run_id == name] or [
        e for e in every if e.run_id.endswith(name) or e.run_id.startswith(name)
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(
            Text("{n!r} fits {c} runs", "{n!r} 匹配 {c} 次运行").fill(n=name, c=len(matches)),
            Text("give the whole id, such as {r}", "请给出完整编号，例如 {r}").fill(r=matches[0].run_id),
        )
    raise UsageError(
        Text("there is no run {n!r} in {s}", "{s} 中没有运行 {n!r}").fill(n=name, s=store),
        Text("list them: cwai-bench history list", "查看列表：cwai-bench history list"),
    )


def saved_run(name: str, store: Path) -> Run:
    """What the run called ``name`` has recorded, of all its nodes. Raises UsageError."""
    return journal.merge(journal.read_folder(find(name, store).folder))


def report_of(found: Entry, decode: Callable[[bytes], Report]) -> Report | None:
    """The saved report of a run, or None when it was never judged."""
    path = found.folder / PUBLISHED
    return decode(path.read_bytes()) if path.exists() else None


def delete(found: Entry) -> None:
    """Remove a run for good. Raises NoVerdictError when the store refuses."""
    try:
        shutil.rmtree(found.folder)
    except OSError as e:
        raise NoVerdictError(
            Text("cannot delete {p}: {e}", "无法删除 {p}：{e}").fill(p=found.folder, e=e.strerror),
            Text("check its permissions", "请检查其权限"),
        ) from e
