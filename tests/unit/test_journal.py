"""The journal survives what happens to files: cut lines, strangers' files, full disks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest

from cwai_bench import journal
from cwai_bench.errors import NoVerdictError, UsageError
from cwai_bench.model import SCHEMA_VERSION, Measurement, NodeEnd, Plan, RankEvent, Record, RunHeader, Subject
from cwai_bench.text import Text

FORMATS = Path(__file__).resolve().parents[1] / "fixtures" / "formats"


def header(node: str = "n1", run_id: str = "20260101T000000Z-run-00aa11") -> RunHeader:
    return RunHeader(
        run_id=run_id,
        run_type="run",
        node=node,
        writer="w",
        command=["cwai-bench", "run"],
        version="0",
        started=100.0,
        world_size=2,
        utc_offset=0,
        plan=Plan([], [], [], 1.0),
        environment={},
    )


def measurement(rank: int, node: str) -> Measurement:
    return Measurement(
        metric="m.time",
        unit="s",
        subject=Subject("rank", f"{node}:{rank}"),
        samples=[0.5, 1.5],
        parameters={"bytes": 8},
        started=101.0,
        duration=2.0,
        node=node,
        rank=rank,
    )


def written(path: Path, *records: Record) -> bytes:
    writer = journal.Writer(path)
    for record in records:
        writer.write(record)
    writer.close()
    assert writer.trouble is None
    return path.read_bytes()


def event(rank: int, node: str, state: str, time: float = 101.0) -> RankEvent:
    return msgspec.convert({"type": "rank", "rank": rank, "node": node, "time": time, "state": state}, type=RankEvent)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    data = written(tmp_path / "a.jsonl", header(), measurement(0, "n1"), NodeEnd("n1", 104.0))
    read = journal.parse(data, "a")
    assert read.closed
    assert read.notes == []
    assert read.records[1] == measurement(0, "n1")


def test_a_cut_line_costs_only_itself(tmp_path: Path) -> None:
    data = written(tmp_path / "a.jsonl", header(), measurement(0, "n1"), measurement(1, "n1"))
    read = journal.parse(data[:-7], "a")
    assert [r for r in read.records if isinstance(r, Measurement)] == [measurement(0, "n1")]
    assert not read.closed
    assert "cut short" in read.notes[0].en


@pytest.mark.parametrize("junk", [b"\x00\xff junk", b'{"type":"end","more":' + b"[" * 50_000 + b"]" * 50_000 + b"}"])
def test_junk_between_good_lines_is_noted_and_passed_over(tmp_path: Path, junk: bytes) -> None:
    first = written(tmp_path / "a.jsonl", header())
    data = first + junk + b"\n" + msgspec.json.encode(measurement(0, "n1")) + b"\n"
    read = journal.parse(data, "a.jsonl")
    assert len(read.records) == 2
    assert "line 2" in read.notes[0].en


@pytest.mark.parametrize("data", [b"", b"hello\n", b'{"type":"end","node":"n","time":1.0}\n'])
def test_a_file_that_is_no_journal_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"x\.jsonl is not a journal"):
        journal.parse(data, "x.jsonl")


def test_a_future_version_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "a.jsonl", msgspec.structs.replace(header(), schema=99))
    with pytest.raises(UsageError, match="version 99"):
        journal.parse(data, "a")


def test_a_journal_of_the_first_format_still_reads() -> None:
    data = (FORMATS / "journal-1.jsonl").read_bytes()
    run = journal.merge([journal.parse(data, "journal-1.jsonl")])
    assert b'"schema":1' in data
    assert [m.counters for m in run.measurements] == [{}]
    assert run.schema == SCHEMA_VERSION


def test_counters_of_both_ends_survive_the_journal(tmp_path: Path) -> None:
    """None: they moved or may have, and nobody knows by how much."""
    counters: dict[str, dict[str, int | None]] = {"n1/mlx5_0": {"link_downed": 1}, "n2/mlx5_0": {"symbol_error": None}}
    watched = msgspec.structs.replace(measurement(0, "n1"), counters=counters)
    (read,) = [
        r
        for r in journal.parse(written(tmp_path / "a.jsonl", header(), watched), "a").records
        if isinstance(r, Measurement)
    ]
    assert read.counters == counters


def test_merge_keeps_everything_and_says_what_is_missing(tmp_path: Path) -> None:
    one = journal.parse(
        written(tmp_path / "1", header("n1"), event(0, "n1", "started"), measurement(0, "n1"), NodeEnd("n1", 110.0)),
        "1",
    )
    two = journal.parse(written(tmp_path / "2", header("n2"), event(1, "n2", "started"), measurement(1, "n2")), "2")
    why = Text("its journal never came", "未收到其日志")
    absent = journal.absent(header(), [NodeEnd(n, 109.0, lost=why, reason_code="node_lost") for n in ("n2", "n3")])
    run = journal.merge([two, one, journal.parse(absent, journal.ABSENT)])
    assert [(n.name, n.ranks, n.present, n.complete) for n in run.nodes] == [
        ("n1", [0], True, True),
        ("n2", [1], True, False),
        ("n3", [], False, False),
    ]
    assert (run.nodes[2].note, run.nodes[2].reason_code) == (why, "node_lost")
    assert {m.rank for m in run.measurements} == {0, 1}
    assert run.status == "partial"
    assert run.finished == 110.0


def test_a_run_is_complete_only_without_losses(tmp_path: Path) -> None:
    good = journal.parse(written(tmp_path / "1", header(), event(0, "n1", "started"), NodeEnd("n1", 1.0)), "1")
    assert journal.merge([good]).status == "complete"
    died = journal.parse(
        written(tmp_path / "2", header(), event(0, "n1", "started"), event(0, "n1", "died"), NodeEnd("n1", 1.0)), "2"
    )
    assert journal.merge([died]).status == "partial"
    ended = journal.parse(
        written(tmp_path / "4", header(), event(0, "n1", "died"), NodeEnd("n1", 1.0, interrupted=15)), "4"
    )
    assert "interrupted" not in journal.merge([ended]).settings, (
        "the launcher's SIGTERM after a death is no interruption"
    )
    stopped = journal.parse(written(tmp_path / "3", header(), NodeEnd("n1", 1.0, interrupted=15)), "3")
    assert journal.merge([stopped]).status == "terminated"


def test_a_full_disk_keeps_the_records_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = journal.Writer(tmp_path / "a.jsonl")
    writer.write(header())

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    writer.write(measurement(0, "n1"))
    monkeypatch.undo()
    writer.write(measurement(1, "n1"))
    assert len(writer.lines) == 3
    assert writer.trouble is not None
    assert "No space left" in writer.trouble.en


def test_publish_is_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = journal.publish(tmp_path / "store", "r1", {"report.json": b"{}", "journal/a.jsonl": b"x"})
    assert (folder / "journal" / "a.jsonl").read_bytes() == b"x"
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(NoVerdictError, match="could not be written"):
        journal.publish(blocked, "r1", {"report.json": b"{}"})
    with pytest.raises(NoVerdictError):
        journal.publish(tmp_path / "store", "r2", {"a": b"1", "a/b": b"2"})
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["r1"]


def test_publishing_again_replaces(tmp_path: Path) -> None:
    journal.publish(tmp_path, "r1", {"report.json": b"old", "journal/a.jsonl": b"x"})
    folder = journal.publish(tmp_path, "r1", {"report.json": b"new"})
    assert (folder / "report.json").read_bytes() == b"new"
    assert (folder / "journal" / "a.jsonl").exists()


def test_a_hostile_node_name_makes_a_harmless_file_name() -> None:
    assert journal.file_name("../../etc/<b>", "ab") == ".._.._etc__b_-ab.jsonl"


def test_a_spool_of_someone_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CWAI_BENCH_SPOOL", str(tmp_path))
    assert journal.spool_dir() == tmp_path
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(NoVerdictError, match="belongs to someone else"):
        journal.spool_dir()
