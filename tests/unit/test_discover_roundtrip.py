"""A node recorded and read again gives the same facts."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from cwai_bench.checks import CHECKS, sources_for
from cwai_bench.discover import read_node, record_node
from cwai_bench.errors import UsageError
from cwai_bench.judge import check_facts
from cwai_bench.model import Facts, Reading
from cwai_bench.sources import Call, Command, File, Source


def soon() -> float:
    return time.monotonic() + 20.0


def without_durations(facts: Facts) -> dict[str, Reading]:
    return {k: msgspec.structs.replace(r, duration=0.0) for k, r in facts.readings.items()}


def test_a_recorded_node_reads_as_it_was(tmp_path: Path) -> None:
    sources: set[Source] = {
        *sources_for(CHECKS),
        File("proc/no/such/file"),
        File("sys/class/net/*/speed"),  # of a link that is down: EINVAL
        File("proc/sys/kernel/*"),  # some of these can only be written
        File("sys/no/such/*"),
        File("sys/class"),  # a folder
        Command("uname", "-a"),
        Command("sh", "-c", "exit"),
        Command("no-such-command-at-all"),
        Command("sleep", "5", timeout=0.2),
        Call("no_such_call"),
    }
    live = record_node(tmp_path / "node", sources, node="node1", deadline=soon())
    again = read_node("", tmp_path / "node", sources, soon())

    assert again.recorded
    assert not live.recorded
    assert (again.node, again.taken, again.privileged) == ("node1", live.taken, live.privileged)
    assert without_durations(again) == without_durations(live)
    # What went wrong is part of what was recorded.
    assert again.readings["$ sleep 5"].status == "timeout"
    assert again.readings["$ no-such-command-at-all"].status == "missing"
    assert again.readings["proc/no/such/file"].status == "missing"
    assert again.readings["sys/class"].status == "error"
    assert again.readings["call:no_such_call"].status == "error"


def test_a_recorded_node_is_judged_as_it_was(tmp_path: Path) -> None:
    live = record_node(tmp_path / "node", sources_for(CHECKS), node="node1", deadline=soon())
    again = read_node("", tmp_path / "node", sources_for(CHECKS), soon())
    assert check_facts([again], CHECKS) == check_facts([live], CHECKS)


def test_a_folder_that_is_no_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recorded node"):
        read_node("", tmp_path, [File("proc/meminfo")], soon())
    for broken in ("{", '{"more": ' + "[" * 50_000 + "]" * 50_000 + "}"):
        (tmp_path / "node.json").write_text(broken)
        with pytest.raises(UsageError, match="cannot be read"):
            read_node("", tmp_path, [File("proc/meminfo")], soon())


def test_recording_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        record_node(tmp_path, [File("proc/meminfo")])
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_mounted_host_root_is_read_without_node_json(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4 kB\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hostname").write_text("node9\n")
    facts = read_node("", tmp_path, [File("proc/meminfo"), Call("limits")], soon())
    assert facts.node == "node9"
    assert facts.readings["proc/meminfo"].text == "MemTotal: 4 kB\n"
    assert facts.readings["call:limits"].status == "missing"
