"""What a rank does, from joining its keeper to the verdict."""

from __future__ import annotations

import os
import secrets
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from cwai_bench import __version__, journal
from cwai_bench.errors import CwaiError, DeviceError, Interrupted, NoVerdictError, UsageError
from cwai_bench.group import Group, SoloGroup
from cwai_bench.launch import world
from cwai_bench.launch.environment import environment
from cwai_bench.launch.link import Link, key_of
from cwai_bench.launch.order import Front, Opening, Order, Outcome, Peer
from cwai_bench.model import Facts, FactsRecord, Measurement, Plan, ProbeSpec, RankEvent, RunHeader, Subject
from cwai_bench.plan import Choice, make_plan
from cwai_bench.probes import PROBES, Context, World
from cwai_bench.render import labels
from cwai_bench.render.units import size
from cwai_bench.text import Text, plain

START_SECONDS = 120.0
MEET_SECONDS = 60.0
DISCOVER_SECONDS = 30.0
FRONT_VARIABLE = "CWAI_BENCH_FRONT"


@dataclass(frozen=True)
class Task:
    """``root``: a recorded node instead of this one. ``node``: the name of the node that is looked at."""

    choice: Choice
    order: Order
    node: str
    root: Path | None = None


class Progress(Protocol):
    """Where rank 0 says what it is doing. Other ranks are silent."""

    def plan(self, plan: Plan, run_id: str, size: int, nodes: int) -> None: ...
    def begin(self, number: int, total: int, title: Text, expected: float) -> None: ...
    def end(self, number: int, total: int, title: Text) -> None: ...
    def say(self, text: Text) -> None: ...


class AgreedError(Exception):
    """All ranks have come to the same refusal; rank 0 says it."""

    def __init__(self, error: CwaiError, rank: int) -> None:
        super().__init__(str(error))
        self.error, self.rank = error, rank


class _Hello(msgspec.Struct):
    version: str
    peer: Peer
    refusal: Text | None


def front_of_environment() -> Front | None:
    """The process that started mpirun for us, if one did."""
    raw = os.environ.get(FRONT_VARIABLE)
    return msgspec.json.decode(raw, type=Front) if raw else None


def run(task: Task, progress: Progress) -> Outcome:
    """Do the task as the rank that this process is; return the verdict of the whole run.

    Raises AgreedError when all ranks refuse, NoVerdictError when there is no verdict, Interrupted when it was told to
    stop and nothing could be concluded any more.
    """
    told = world.launched()
    link = Link.join(
        key_of(told.job), told.rank, task.node, starter=told.local_rank in (0, None), lock=task.root is None
    )
    link.watch_signals()
    link.at("start", START_SECONDS)
    try:
        group = _work(task, told, link, progress)
    except Interrupted as e:
        verdict = link.leave("signalled", interrupted=e.number)
        if verdict.outcome is None:
            raise
    except AgreedError as e:
        link.leave("finished")
        if not told.alone:
            world.finish_mpi()
        raise e.error if e.rank == 0 else SystemExit(e.error.exit_code) from None
    except Exception as e:
        show = e.show if isinstance(e, CwaiError) else None
        detail = Text(show("en"), show("zh")) if show else plain(traceback.format_exc(limit=-3))
        link.leave("failed", detail)
        if told.alone:
            raise
        _abort_mpi(e)
        raise
    else:
        verdict = link.leave("finished")
        del group
    if verdict.outcome is None:
        raise NoVerdictError(verdict.trouble or Text("no verdict", "没有结论"))
    return verdict.outcome


def _abort_mpi(error: Exception) -> None:
    """Others may wait for this rank inside MPI: end the job."""
    from mpi4py import MPI

    traceback.print_exception(type(error), error, error.__traceback__)
    if MPI.Is_initialized() and not MPI.Is_finalized():
        MPI.COMM_WORLD.Abort(error.exit_code if isinstance(error, CwaiError) else 3)


def _work(task: Task, told: world.Launched, link: Link, progress: Progress) -> Group:
    group, peers = _meet(task, told, link)
    node = group.nodes[group.rank]
    loud = group.rank == 0
    try:
        plan = make_plan(task.choice, World(group.size, _unique(group.nodes), group.comm is not None))
    except UsageError as e:
        raise AgreedError(e, group.rank) from e
    opening = _opening(task, group, peers, plan)
    mine = [r for r in range(group.size) if group.nodes[r] == node]
    link.open(opening, mine)
    total = len(plan.probes) + bool(plan.checks)
    if loud:
        progress.plan(plan, opening.header.run_id, group.size, len(peers))
    number = 0
    if plan.checks:
        number += 1
        title = Text("server check", "服务器检测")
        if loud:
            progress.begin(number, total, title, 1.0)
        link.at("discover", DISCOVER_SECONDS)
        if group.rank in group.leaders:
            _discover(task, node, plan, link)
        group.barrier()
        if loud:
            progress.end(number, total, title)
    for spec in plan.probes:
        number += 1
        if loud:
            progress.begin(number, total, label(spec), spec.expected)
        _measure(spec, group, node, link)
        if loud:
            progress.end(number, total, label(spec))
    link.at("finish", MEET_SECONDS)
    if group.comm is not None:
        world.finish_mpi()
    return group


def _meet(task: Task, told: world.Launched, link: Link) -> tuple[Group, list[Peer]]:
    """The group of all ranks and the keepers of its nodes, once all agree that the run can be."""
    mine = _Hello(link.version, link.peer, link.refusal)
    comm: Any = None
    if not told.alone:
        try:
            comm = world.start_mpi(told)
        except UsageError as e:
            raise AgreedError(e, told.rank) from e
        comm = comm.Dup()
        link.at("meet", MEET_SECONDS)
        hellos = [msgspec.json.decode(h, type=_Hello) for h in comm.allgather(msgspec.json.encode(mine))]
    else:
        hellos = [mine]
    refusal = _refusal(hellos)
    if refusal is not None:
        raise AgreedError(refusal, told.rank)
    peers = list({h.peer.id: h.peer for h in hellos}.values())
    names = _distinct(peers)
    nodes = tuple(names[h.peer.id] for h in hellos)
    group: Group = SoloGroup(nodes[0]) if comm is None else world.MpiGroup(comm, nodes)
    return group, [msgspec.structs.replace(p, node=names[p.id]) for p in peers]


def _refusal(hellos: list[_Hello]) -> CwaiError | None:
    versions = {h.version for h in hellos}
    if len(versions) > 1:
        ours = hellos[0].version
        other = [h for h in hellos if h.version != ours]
        return UsageError(
            Text(
                "{n} has cwai-bench {v}, rank 0 on {n0} has {v0}",
                "{n} 上的 cwai-bench 是 {v}，而 {n0}（rank 0）是 {v0}",
            ).fill(
                n=", ".join(dict.fromkeys(h.peer.node for h in other)),
                v=other[0].version,
                n0=hellos[0].peer.node,
                v0=ours,
            ),
            Text("install the same version on all nodes", "请在所有节点上安装同一版本"),
        )
    for hello in hellos:
        if hello.refusal is not None:
            return NoVerdictError(
                hello.refusal,
                Text("wait for it to end, or leave this node out", "请等待其结束，或不使用该节点"),
            )
    return None


def _distinct(peers: list[Peer]) -> dict[str, str]:
    """Keeper id → node name; nodes that share a host name are told apart by a number."""
    names: dict[str, str] = {}
    for peer in peers:
        name, number = peer.node, 2
        while name in names.values():
            name, number = f"{peer.node}#{number}", number + 1
        names[peer.id] = name
    return names


def _unique(nodes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(nodes))


def _opening(task: Task, group: Group, peers: list[Peer], plan: Plan) -> Opening:
    front = front_of_environment()
    now = time.time()
    draft = (
        [front.run_id, front.secret, now]
        if front
        else [journal.new_run_id(task.choice.run_type), secrets.token_hex(32), now]
    )
    run_id, secret, started = group.allgather(draft)[0]
    header = RunHeader(
        run_id=run_id,
        run_type=task.choice.run_type,
        node=group.nodes[group.rank],
        writer="",
        command=task.order.command,
        version=__version__,
        started=started,
        world_size=group.size,
        utc_offset=time.localtime(started).tm_gmtoff,
        plan=plan,
        environment=environment(),
        settings=task.order.settings,
    )
    return Opening(header, task.order, ([front.peer] if front else []) + peers, secret)


def read_facts(node: str, plan: Plan, root: Path | None = None) -> Facts:
    """What the checks of ``plan`` ask of this node, or of the recorded one in ``root``."""
    from cwai_bench import checks, discover

    return discover.read_node(
        node, root, checks.sources_for(plan.checks), deadline=time.monotonic() + DISCOVER_SECONDS - 5
    )


def _discover(task: Task, node: str, plan: Plan, link: Link) -> None:
    link.record(FactsRecord(read_facts(node, plan, task.root)))


def _measure(spec: ProbeSpec, group: Group, node: str, link: Link) -> None:
    """One probe. A device's refusal is a measurement too; a bug of ours ends the run."""
    link.at(spec.id, spec.deadline)
    link.record(_event(group, node, "item_begin", spec.id))
    started = time.time()

    def emit(measurement: Measurement) -> None:
        link.record(measurement)

    context = Context(group, spec, node, emit, link.note, time.monotonic() + spec.deadline)
    try:
        PROBES[spec.probe].measure(context)
    except DeviceError as e:
        emit(
            Measurement(
                metric=spec.probe,
                unit="1",
                subject=Subject("rank", f"{node}:{group.rank}"),
                samples=[],
                parameters=spec.parameters,
                started=started,
                duration=time.time() - started,
                node=node,
                rank=group.rank,
                spec=spec.id,
                status="error",
                reason_code="error",
                reason=e.message,
            )
        )
    group.barrier()
    link.record(_event(group, node, "item_end", spec.id))


_WAYS = {"one-way": labels.ONE_WAY, "two-way": labels.TWO_WAY}


def label(spec: ProbeSpec) -> Text:
    """The probe's title with what tells its specs apart."""
    given = spec.parameters
    told = [size(int(given["bytes"]))] if "bytes" in given else []
    told += [f"×{given['streams']}"] if given.get("streams", 1) != 1 else []
    parts = [spec.info.title, *map(plain, told), *filter(None, [_WAYS.get(str(given.get("direction")))])]
    return Text(" ".join(p.en for p in parts), " ".join(p.zh for p in parts))


def _event(group: Group, node: str, state: Any, item: str) -> RankEvent:
    return RankEvent(group.rank, node, time.time(), state, item, pid=os.getpid())
