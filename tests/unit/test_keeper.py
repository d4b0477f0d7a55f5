"""Keepers on their own: real processes and sockets, ranks played by the test."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cwai_bench import journal
from cwai_bench.launch import keeper
from cwai_bench.launch.link import Link
from cwai_bench.launch.order import Opening, Order, Outcome, Peer
from cwai_bench.model import Measurement, Plan, RankEvent, RunHeader, Subject
from cwai_bench.render import report_from_json
from tests.unit.test_judge_run import spec

SECRET = "ab" * 32
RUN_ID = "20260101T000000Z-check-00aa11"


class Nodes:
    """Keepers of nodes that exist only by name, and a place for what they write."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.env = {**os.environ, "CWAI_BENCH_SPOOL": str(folder / "spool")}
        self.spool = folder / "spool"
        self.started: list[subprocess.Popen[bytes]] = []

    def keeper(self, node: str, *, lock: bool = False) -> str:
        key = f"cwai-test-{os.getpid()}-{os.urandom(4).hex()}"
        code = (
            "import asyncio, sys; from cwai_bench.launch.keeper import Keeper; "
            "asyncio.run(Keeper('\\0' + sys.argv[1], sys.argv[2], sys.argv[3] == 'True').run())"
        )
        self.started.append(subprocess.Popen([sys.executable, "-c", code, key, node, str(lock)], env=self.env))
        return key

    def opening(self, roster: list[Peer]) -> Opening:
        header = RunHeader(
            run_id=RUN_ID,
            run_type="check",
            node="",
            writer="",
            command=["cwai-bench", "check"],
            version="0",
            started=time.time(),
            world_size=len(roster),
            utc_offset=0,
            plan=Plan([], [], [], 1.0),
            environment={},
        )
        order = Order("check", ["cwai-bench", "check"], str(self.store), "en", [], with_report=True)
        return Opening(header, order, roster, SECRET)

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path)
    yield nodes
    nodes.close()


def joined(key: str, rank: int) -> Link:
    return Link.join(key, rank, "n", starter=False, lock=False)


def measured(rank: int, node: str) -> Measurement:
    return Measurement(
        metric="m.time",
        unit="s",
        subject=Subject("rank", f"{node}:{rank}"),
        samples=[1.0],
        parameters={},
        started=time.time(),
        duration=1.0,
        node=node,
        rank=rank,
    )


def all_leave(links: list[Link]) -> list[keeper.Verdict]:
    verdicts: dict[int, keeper.Verdict] = {}

    def leave(link: Link) -> None:
        verdicts[link.rank] = link.leave("finished")

    threads = [threading.Thread(target=leave, args=(link,)) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [verdicts[link.rank] for link in links]


def test_two_keepers_make_one_report_and_all_ranks_hear_of_it(nodes: Nodes) -> None:
    links = [joined(nodes.keeper(f"n{i}"), i) for i in range(2)]
    opening = nodes.opening([link.peer for link in links])
    for rank, link in enumerate(links):
        link.open(opening, [rank])
        link.record(measured(rank, f"n{rank}"))
    verdicts = all_leave(links)
    outcomes = [v.outcome for v in verdicts]
    assert outcomes[0] is not None
    assert outcomes[0] == outcomes[1]
    report = report_from_json((nodes.store / RUN_ID / "report.json").read_bytes())
    assert [(n.name, n.ranks, n.complete) for n in report.nodes] == [("n0", [0], True), ("n1", [1], True)]
    assert len(report.measurements) == 2
    assert not (nodes.spool / RUN_ID).exists()


def test_the_next_keeper_merges_when_the_first_is_gone(nodes: Nodes) -> None:
    """The first node loses its power: its keeper is killed, journal and all. The second writes the report."""
    links = [joined(nodes.keeper(f"n{i}"), i) for i in range(2)]
    opening = nodes.opening([link.peer for link in links])
    for rank, link in enumerate(links):
        link.open(opening, [rank])
    links[1].record(measured(1, "n1"))
    nodes.started[0].kill()
    links[0].close()
    monotonic = time.monotonic()
    verdict = links[1].leave("finished")
    assert time.monotonic() - monotonic < keeper.NORMAL_WAIT + 15
    assert verdict.outcome is not None
    report = report_from_json((nodes.store / RUN_ID / "report.json").read_bytes())
    assert {n.name: n.present for n in report.nodes} == {"n0": False, "n1": True}
    assert report.status == "partial"
    assert verdict.outcome.exit_code != 0


def test_a_rank_that_goes_without_a_word_died(nodes: Nodes) -> None:
    key = nodes.keeper("n0")
    links = [joined(key, rank) for rank in range(2)]
    opening = nodes.opening([links[0].peer])
    for link in links:
        link.open(opening, [0, 1])
        link.at("some.item#0", 60.0)
    links[1].close()
    verdict = links[0].leave("finished")
    assert verdict.outcome is not None
    events = report_from_json(verdict.outcome.report.encode()).events
    assert [(e.rank, e.item) for e in events if e.state == "died"] == [(1, "some.item#0")]


BEATING = """
import sys, time, msgspec
from cwai_bench.launch import keeper
from cwai_bench.launch.link import Link
from cwai_bench.launch.order import Opening
key, rank, opening, iteration = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
link = Link.join(key, rank, "n", starter=False, lock=False)
link.open(msgspec.json.decode(opening, type=Opening), [rank])
while True:
    at = {"phase": "timed", "what": "all_reduce", "size": 4096, "iteration": iteration}
    link.send(keeper.Beat("mpi.all_reduce#0", 60.0, at))
    time.sleep(0.2)
"""
"""A process that is a rank of a collective: it beats, at one iteration of one size for ever."""


def stuck_ranks(nodes: Nodes, iterations: list[int]) -> list[int]:
    """One rank on each of so many nodes, at these iterations, that do not get any further; their processes."""
    keys = [nodes.keeper(f"n{i}") for i in range(len(iterations))]
    first = [joined(key, 100 + i) for i, key in enumerate(keys)]  # only to learn where the keepers are
    opening = nodes.opening([link.peer for link in first])
    sweep = msgspec.structs.replace(spec("mpi.all_reduce", 0), parameters={"operation": "all_reduce"})
    header = msgspec.structs.replace(opening.header, plan=Plan([], [sweep], [], 1.0), world_size=len(keys))
    told = msgspec.json.encode(msgspec.structs.replace(opening, header=header)).decode()
    ranks = [
        subprocess.Popen([sys.executable, "-c", BEATING, key, str(rank), told, str(at)], stderr=subprocess.DEVNULL)
        for rank, (key, at) in enumerate(zip(keys, iterations, strict=True))
    ]
    nodes.started += ranks
    end = time.monotonic() + 20
    while len(list(nodes.spool.glob(f"{RUN_ID}/*.jsonl"))) < len(keys):
        assert time.monotonic() < end, "the ranks did not begin"
        time.sleep(0.05)
    for link in first:
        link.send(keeper.Bye("finished"))
        link.close()
    return [rank.pid for rank in ranks]


def stalled(nodes: Nodes) -> RankEvent:
    report = nodes.store / RUN_ID / "report.json"
    end = time.monotonic() + 20
    while not report.exists():
        assert time.monotonic() < end, "no report"
        time.sleep(0.05)
    (event,) = [e for e in report_from_json(report.read_bytes()).events if e.state == "stalled"]
    return event


@pytest.mark.parametrize("stopped", [0, 1], ids=["beside the first keeper", "on another node"])
def test_a_rank_that_is_stopped_is_named_by_what_all_keepers_say(nodes: Nodes, stopped: int) -> None:
    ranks = stuck_ranks(nodes, [7, 7])
    os.kill(ranks[stopped], signal.SIGSTOP)
    at = time.time()
    event = stalled(nodes)
    assert event.time - at < 10
    assert (event.rank, event.node, event.item) == (stopped, f"n{stopped}", "mpi.all_reduce#0")
    assert event.detail is not None
    assert "stopped (state T)" in event.detail.en
    assert "iteration 7" in event.detail.en


def test_a_rank_that_lags_behind_is_named_with_where_the_others_are(nodes: Nodes) -> None:
    stuck_ranks(nodes, [7, 6, 7])
    event = stalled(nodes)
    assert (event.rank, event.node) == (1, "n1")
    assert event.detail is not None
    assert "iteration 6" in event.detail.en
    assert "the others at all_reduce of 4 KiB, timed, iteration 7" in event.detail.en


def test_one_run_at_a_time_on_a_node(nodes: Nodes) -> None:
    first = joined(nodes.keeper("n0", lock=True), 0)
    assert first.refusal is None
    first.open(nodes.opening([first.peer]), [0])
    first.record(measured(0, "n0"))
    time.sleep(0.2)
    second = joined(nodes.keeper("n0", lock=True), 0)
    assert second.refusal is not None
    assert RUN_ID in second.refusal.en
    assert RUN_ID in second.refusal.zh
    holder = keeper.holder_of_node()
    assert holder is not None
    assert holder.run_id == RUN_ID
    assert holder.pid == nodes.started[0].pid
    second.leave("finished")
    first.leave("finished")
    for process in nodes.started:
        process.wait(20)
    assert keeper.holder_of_node() is None


def test_strangers_on_the_port_cost_nothing(nodes: Nodes) -> None:
    link = joined(nodes.keeper("n0"), 0)
    link.open(nodes.opening([link.peer]), [0])
    strangers = []
    for junk in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 64, b"\x00" * 4096):
        stranger = socket.create_connection(("127.0.0.1", link.peer.port), 5)
        stranger.sendall(junk)
        strangers.append(stranger)
    verdict = link.leave("finished")
    assert verdict.outcome is not None
    for stranger in strangers:
        stranger.close()


def test_the_verdict_says_what_could_not_be_written(nodes: Nodes) -> None:
    nodes.store.write_text("a file where the store should be")
    link = joined(nodes.keeper("n0"), 0)
    link.open(nodes.opening([link.peer]), [0])
    link.record(measured(0, "n0"))
    outcome = link.leave("finished").outcome
    assert outcome is not None
    assert str(nodes.store) in outcome.trouble
    assert outcome.exit_code == 3
    assert outcome.summary
    kept = list((nodes.spool / RUN_ID).glob("*.jsonl"))
    assert len(kept) == 1
    assert journal.parse(kept[0].read_bytes(), "kept").closed


def test_a_spool_that_cannot_be_written_is_told_and_loses_nothing(nodes: Nodes) -> None:
    link = joined(nodes.keeper("n0"), 0)
    nodes.spool.mkdir(mode=0o700, exist_ok=True)
    (nodes.spool / RUN_ID).write_text("a file where the run's folder should be")
    link.open(nodes.opening([link.peer]), [0])
    link.record(measured(0, "n0"))
    outcome = link.leave("finished").outcome
    assert outcome is not None
    assert "kept in memory" in outcome.trouble
    report = report_from_json((nodes.store / RUN_ID / "report.json").read_bytes())
    assert len(report.measurements) == 1


def test_criteria_that_break_in_the_keeper_lose_nothing(nodes: Nodes) -> None:
    link = joined(nodes.keeper("n0"), 0)
    opening = nodes.opening([link.peer])
    opening = msgspec.structs.replace(opening, order=msgspec.structs.replace(opening.order, criteria="]["))
    link.open(opening, [0])
    verdict = link.leave("finished")
    assert verdict.outcome is None
    assert verdict.trouble is not None
    assert RUN_ID in verdict.trouble.en
    assert list((nodes.spool / RUN_ID).glob("*.jsonl"))


def test_stopping_the_keeper_concludes_the_run(nodes: Nodes) -> None:
    link = joined(nodes.keeper("n0"), 0)
    link.open(nodes.opening([link.peer]), [0])
    link.record(measured(0, "n0"))
    time.sleep(0.2)
    asked = threading.Timer(0.1, nodes.started[0].terminate)
    asked.start()
    end = time.monotonic() + 20
    while not (nodes.store / RUN_ID / "report.json").exists() and time.monotonic() < end:
        if time.monotonic() > end - 19.5:
            link.close()  # as a rank that the keeper has ended
        time.sleep(0.05)
    report = report_from_json((nodes.store / RUN_ID / "report.json").read_bytes())
    assert report.status in ("terminated", "partial")
    assert len(report.measurements) == 1


def test_a_verdict_that_is_larger_than_the_lines_buffer_arrives_whole() -> None:
    """What asyncio has not yet handed to the kernel must not end with the keeper's process."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    fits = held = ours.send(bytes(1 << 24))
    while held:
        held -= len(theirs.recv(min(held, 1 << 16)))
    outcome = Outcome("run", 0, "PASS", "", "", "", [], report="x" * (fits + 30_000))
    received = bytearray()

    def rank() -> None:
        time.sleep(0.2)
        while part := theirs.recv(8192):
            received.extend(part)
            time.sleep(0.001)

    async def tell() -> None:
        node = keeper.Keeper("\0cwai-test-none", "node1", lock=False)
        node.ranks[0] = keeper._Rank(0, os.getpid(), (await asyncio.open_connection(sock=ours))[1])
        node.ranks[0].bye = keeper.Bye("finished", None, 0)
        node.merger.outcome = outcome
        await node._tell_ranks()

    listening = threading.Thread(target=rank)
    listening.start()
    asyncio.run(tell())
    listening.join(10.0)
    theirs.close()
    assert len(received) > len(outcome.report)
    assert keeper.to_rank.decode(received[4:]) == keeper.Verdict(outcome, None)


def test_a_run_that_is_just_leaving_is_waited_for_and_one_that_stays_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOCK", f"\0cwai-bench-test-{os.getpid()}")
    monkeypatch.setattr(keeper, "LEAVING_SECONDS", 0.5)

    async def runs() -> None:
        first = await keeper.hold_node(lambda: "first")
        with pytest.raises(OSError, match="in use"):
            await keeper.hold_node(lambda: "second")
        asyncio.get_running_loop().call_later(0.2, first.close)
        second = await keeper.hold_node(lambda: "second")
        second.close()

    asyncio.run(runs())
