"""Small transfers over the loopback interface that find out what made a path fail."""

from __future__ import annotations

import threading
import time

import pytest

from cwai_bench.model import PathFinding, PathProbe
from cwai_bench.probes.nic import Place
from cwai_bench.probes.path_probe import Door, Ways, located
from tests.unit.ranks import Meeting, Rank


def found(doors: list[Door], seen: list[PathProbe], planted: Ways = ()) -> tuple[list[PathFinding], int]:
    """What two ranks come to, which must be the same."""
    meeting = Meeting(("n1", "n2"))
    said: list[tuple[list[PathFinding], int]] = []

    def run(rank: int) -> None:
        deadline = time.monotonic() + 60
        said.append(located(Rank(meeting, rank), doors, seen, joined=(), planted=planted, deadline=deadline))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 2
    assert said[0] == said[1]
    return said[0]


def doors(last: str = "127.0.0.4") -> list[Door]:
    return [
        Door("n1/a", Place("a", "127.0.0.1", 8, 0.0), 0),
        Door("n1/b", Place("b", "127.0.0.2", 8, 0.0), 0),
        Door("n2/a", Place("a", "127.0.0.3", 8, 0.0), 1),
        Door("n2/b", Place("b", last, 8, 0.0), 1),
    ]


FAILED = [PathProbe("n1/b", "n2/b", 1 << 16, "failed"), PathProbe("n1/a", "n2/a", (1 << 16) + 1, "ok")]


def test_a_path_that_is_well_by_now_is_not_accused() -> None:
    findings, probes = found(doors(), FAILED)
    assert findings == []
    assert probes >= 8


def test_an_end_that_answers_nobody_is_told_from_the_others() -> None:
    # 192.0.2.0/24 is for documentation (RFC 5737): nobody has it, and nobody can listen at it here.
    unreachable = [*doors()[:3], Door("n2/b", Place("b", "192.0.2.7", 8, 0.0), 1)]
    findings, _ = found(unreachable, [PathProbe("n1/b", "n2/b", 1 << 16, "failed")] * 3)
    assert findings
    assert all("n2/b" in finding.ends for finding in findings)


def test_a_path_that_is_cut_for_a_rehearsal_is_named() -> None:
    (finding,), _ = found(doors(), FAILED, planted={("n1/b", "n2/b")})
    assert (finding.kind, finding.ends) == ("path", ["n1/b", "n2/b"])
    assert finding.confidence > 0.98


def test_nothing_that_failed_needs_no_probe() -> None:
    assert found(doors(), FAILED[1:]) == ([], 0)


@pytest.mark.parametrize("planted", [(), {("n1/b", "n2/b")}])
def test_time_that_is_over_makes_no_probes(planted: Ways) -> None:
    group = Rank(Meeting(("n1",)), 0)
    _, probes = located(group, doors()[:2], FAILED[:1], joined=(), planted=planted, deadline=0.0)
    assert probes == 0
