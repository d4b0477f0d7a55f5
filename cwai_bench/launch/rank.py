"""What a rank does, from joining its keeper to the verdict."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from cwai_bench import __version__, journal
from cwai_bench.checks import CHECKS, LongRun, long_run
from cwai_bench.discover.script import OVERHEAD_SECONDS, VENDOR_GRACE, run_command
from cwai_bench.discover.script import run as run_script
from cwai_bench.errors import CwaiError, DeviceError, Interrupted, NoVerdictError, UsageError
from cwai_bench.group import Group, SoloGroup
from cwai_bench.launch import keeper, wire, world
from cwai_bench.launch.environment import environment
from cwai_bench.launch.link import Link, key_of
from cwai_bench.launch.order import Front, Opening, Order, Outcome, Peer
from cwai_bench.model import (
    Emitted,
    Facts,
    FactsRecord,
    Measurement,
    Plan,
    ProbeSpec,
    RankEvent,
    Reading,
    RunHeader,
    ScriptSpec,
    Subject,
)
from cwai_bench.plan import Choice, chosen_nodes, make_plan
from cwai_bench.probes import PROBES, Context, Rails, World, cards, gpu, hca
from cwai_bench.probes.disturbance import Watch
from cwai_bench.render import labels
from cwai_bench.render.units import size
from cwai_bench.scripts import Script
from cwai_bench.text import Text, plain

START_SECONDS = 120.0
MEET_SECONDS = 60.0
DISCOVER_SECONDS = 30.0
FRONT_VARIABLE = "CWAI_BENCH_FRONT"


class Here(msgspec.Struct, frozen=True):
    """What there is of what is to be measured; None where it is not to be. ``rails``: the node's RDMA NICs, ``gpus``:
    how many NVIDIA GPUs it has, ``cards``: how many of them this process sees, ``npus``: how many Ascend NPUs."""

    rails: Rails | None = None
    gpus: int | None = None
    cards: int | None = None
    npus: int | None = None


def look(choice: Choice) -> Here:
    """From within this process."""
    collectives = choice.measures_collectives
    return Here(
        hca.look() if choice.measures_network else None,
        gpu.look() if choice.measures_gpus else None,
        cards.GPU.look() if collectives else None,
        cards.NPU.look() if collectives else None,
    )


@dataclass(frozen=True)
class Task:
    """``root``: a recorded node instead of this one. ``node``: the name of the node that is looked at.

    ``order`` is asked by rank 0 alone, and may raise CwaiError; all ranks go by what it says, scripts included.
    ``complain`` says an error to the person. ``here``: what this process sees, where somebody has looked already.
    """

    choice: Choice
    order: Callable[[], Order]
    node: str
    complain: Callable[[CwaiError], None]
    root: Path | None = None
    here: Here | None = None


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


class _Wrong(msgspec.Struct):
    """An error of ours, as it travels to the other ranks."""

    message: Text
    next_step: Text | None
    usage: bool


class _Hello(msgspec.Struct):
    """``order`` or ``wrong``: from rank 0."""

    version: str
    peer: Peer
    refusal: Text | None
    here: Here
    order: Order | None = None
    wrong: _Wrong | None = None


def front_of_environment() -> Front | None:
    """The process that started mpirun for us, if one did."""
    raw = os.environ.get(FRONT_VARIABLE)
    return msgspec.json.decode(raw, type=Front) if raw else None


def order_of_front(front: Front) -> Order:
    """What was ordered, from the process that started mpirun. Raises NoVerdictError when it cannot be reached."""

    async def ask() -> object:
        peer = front.peer
        line = await wire.connect(peer.addresses, peer.port, front.secret, keeper.CONNECT_PATIENCE, peer.id)
        try:
            await line.send(keeper.AskOrder())
            answer = line.receive(keeper.between_keepers)
            return await asyncio.wait_for(answer, keeper.NORMAL_WAIT)
        finally:
            line.close()

    trouble: object = "?"
    try:
        answer = asyncio.run(ask())
        if isinstance(answer, keeper.Ordered):
            return answer.order
    except (OSError, wire.WireError, asyncio.TimeoutError) as e:
        trouble = e if str(e) else type(e).__name__
    raise NoVerdictError(
        Text("the process that started this run cannot be reached: {e}", "无法连接启动本次运行的进程：{e}").fill(
            e=trouble
        ),
        Text(
            "let the nodes reach {a} by TCP, or start it under your own mpirun",
            "请允许各节点以 TCP 访问 {a}，或自行用 mpirun 启动",
        ).fill(a=", ".join(front.peer.addresses)),
    )


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
        if told.alone:
            raise e.error from None
        if e.rank == 0:
            task.complain(e.error)  # before MPI ends: once another rank has left, mpirun ends this one
        world.finish_mpi()
        raise SystemExit(e.error.exit_code) from None
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
    group, peers, order, seen = _meet(task, told, link)
    node = group.nodes[group.rank]
    loud = group.rank == 0
    choice = dataclasses.replace(task.choice, scripts=tuple(script.spec for script in order.scripts))
    try:
        plan = make_plan(choice, seen)
    except UsageError as e:
        raise AgreedError(e, group.rank) from e
    opening = _opening(task, order, group, peers, plan)
    mine = [r for r in range(group.size) if group.nodes[r] == node]
    link.open(opening, mine)
    reads = bool(plan.checks or plan.scripts) or _drives_cards(plan)
    asked = {} if task.root else _long_runs(plan)
    total = reads + len(asked) + len(plan.scripts) + len(plan.probes)
    if loud:
        progress.plan(plan, opening.header.run_id, group.size, len(peers))
    number = 0
    if reads:
        number += 1
        title = _SERVER_CHECK if plan.checks else _TOPOLOGY
        if loud:
            progress.begin(number, total, title, 1.0)
        link.at("discover", DISCOVER_SECONDS)
        if group.rank in group.leaders:
            _discover(task, node, plan, link)
        group.barrier()
        if loud:
            progress.end(number, total, title)
    for id, runs in asked.items():
        number += 1
        title = CHECKS[id].info.title
        if loud:
            progress.begin(number, total, title, runs.expected)
        link.at(id, runs.command.timeout + VENDOR_GRACE + OVERHEAD_SECONDS)
        if group.rank in group.leaders:
            link.record(FactsRecord(facts_of(run_command(runs.command, runs.script), node)))
        group.barrier()
        if loud:
            progress.end(number, total, title)
    texts = {script.spec.info.id: script.text for script in order.scripts}
    for script in plan.scripts:
        number += 1
        where = chosen_nodes(script, _unique(group.nodes))
        title = _of_script(script, len(where))
        if loud:
            progress.begin(number, total, title, script.expected)
        link.at(script.info.id, script.limit + OVERHEAD_SECONDS)
        if group.rank in group.leaders and node in where:
            said = run_script(Script(script, texts[script.info.id]), node, opening.header.run_id)
            link.record(FactsRecord(facts_of(said, node)))
        group.barrier()
        if loud:
            progress.end(number, total, title)
    if plan.probes:
        # From a slow file system this takes longer than a measurement may, in which it would else be loaded.
        link.at("start", START_SECONDS)
        import numpy  # noqa: F401

        group.barrier()
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


def _meet(task: Task, told: world.Launched, link: Link) -> tuple[Group, list[Peer], Order, World]:
    """The group of all ranks, the keepers of its nodes, what was ordered, and what there is of NICs and GPUs (where
    anybody looked), once all agree that the run can be."""
    mine = _Hello(link.version, link.peer, link.refusal, task.here or look(task.choice))
    if told.rank == 0:
        try:
            mine.order = task.order()
        except CwaiError as e:
            mine.wrong = _Wrong(e.message, e.next_step, isinstance(e, UsageError))
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
    order = hellos[0].order
    assert order is not None  # without one, rank 0 has said what is wrong
    peers = list({h.peer.id: h.peer for h in hellos}.values())
    names = _distinct(peers)
    nodes = tuple(names[h.peer.id] for h in hellos)
    group: Group = SoloGroup(nodes[0]) if comm is None else world.MpiGroup(comm, nodes)
    seen = [h.here for h in hellos]
    by_node = dict(zip(reversed(nodes), reversed(seen), strict=True))
    first = [by_node[node] for node in _unique(nodes)]
    there = World(
        group.size,
        _unique(nodes),
        comm is not None,
        tuple(here.rails for here in first if here.rails is not None),
        tuple(here.gpus for here in first if here.gpus is not None),
        tuple((node, here.cards) for node, here in zip(nodes, seen, strict=True) if here.cards is not None),
        tuple((node, here.npus) for node, here in zip(nodes, seen, strict=True) if here.npus is not None),
    )
    return group, [msgspec.structs.replace(p, node=names[p.id]) for p in peers], order, there


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
    if (wrong := hellos[0].wrong) is not None:
        return (UsageError if wrong.usage else NoVerdictError)(wrong.message, wrong.next_step)
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


def _opening(task: Task, order: Order, group: Group, peers: list[Peer], plan: Plan) -> Opening:
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
        command=order.command,
        version=__version__,
        started=started,
        world_size=group.size,
        utc_offset=time.localtime(started).tm_gmtoff,
        plan=plan,
        environment=environment(),
        settings=order.settings,
    )
    return Opening(header, order, ([front.peer] if front else []) + peers, secret)


def read_facts(node: str, plan: Plan, root: Path | None = None) -> Facts:
    """What the checks of ``plan``, and the judge of a collective, ask of this node, or of the recorded one in
    ``root``."""
    from cwai_bench import checks, discover
    from cwai_bench.checks import topology

    asked = checks.sources_for(plan.checks, recorded=root is not None)
    if _drives_cards(plan):
        asked.update(topology.READS)
    return discover.read_node(node, root, asked, deadline=time.monotonic() + DISCOVER_SECONDS - 5)


def _drives_cards(plan: Plan) -> bool:
    """Whether it has a collective that is held against cards, links and NICs."""
    return any(spec.info.scope in ("nccl", "hccl") for spec in plan.probes)


_SERVER_CHECK = Text("server check", "服务器检测")
_TOPOLOGY = Text("cards, links and NICs of each node", "各节点的加速卡、链路与网卡")


def _discover(task: Task, node: str, plan: Plan, link: Link) -> None:
    link.record(FactsRecord(read_facts(node, plan, task.root)))


def facts_of(reading: Reading, node: str) -> Facts:
    """What a script or a vendor's test said is facts of the node, as all that is read there."""
    return Facts(node, time.time(), os.geteuid() == 0, False, {reading.source: reading})


def run_long(order: Order, plan: Plan, node: str, run_id: str) -> Iterator[Facts]:
    """All that takes long on this node, one after another: vendors' tests, then the person's scripts."""
    for runs in _long_runs(plan).values():
        yield facts_of(run_command(runs.command, runs.script), node)
    texts = {script.spec.info.id: script.text for script in order.scripts}
    for script in plan.scripts:
        if chosen_nodes(script, [node]):
            yield facts_of(run_script(Script(script, texts[script.info.id]), node, run_id), node)


def long_seconds(plan: Plan) -> float:
    """What :func:`run_long` may take at most."""
    tests = sum(runs.command.timeout + VENDOR_GRACE + OVERHEAD_SECONDS for runs in _long_runs(plan).values())
    return tests + sum(script.limit + OVERHEAD_SECONDS for script in plan.scripts)


def _long_runs(plan: Plan) -> dict[str, LongRun]:
    return {id: runs for id in plan.checks if (runs := long_run(id)) is not None}


def _of_script(spec: ScriptSpec, nodes: int) -> Text:
    return Text("{t} (your script, {n} node(s), {s:g} s at most)", "{t}（自定义脚本，{n} 个节点，最长 {s:g} 秒）").fill(
        t=spec.info.title, n=nodes, s=spec.limit
    )


def _measure(spec: ProbeSpec, group: Group, node: str, link: Link) -> None:
    """One probe. A device's refusal is a measurement too; a bug of ours ends the run."""
    link.at(spec.id, spec.deadline)
    link.record(_event(group, node, "item_begin", spec.id))
    started = time.time()

    watch = Watch()

    def emit(found: Emitted) -> None:
        if isinstance(found, Measurement) and found.status == "ok" and found.reason is None:
            noise = watch.seen()
            if noise is not None:
                found = msgspec.structs.replace(found, reason_code="busy", reason=noise)
        link.record(found)

    def keep(reading: Reading) -> None:
        link.record(FactsRecord(facts_of(reading, node)))

    context = Context(group, spec, node, emit, link.note, time.monotonic() + spec.deadline, keep=keep)
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
    told = [str(given["verb"]), *told] if "verb" in given else told
    parts = [spec.info.title, *map(plain, told), *filter(None, [_WAYS.get(str(given.get("direction")))])]
    return Text(" ".join(p.en for p in parts), " ".join(p.zh for p in parts))


def _event(group: Group, node: str, state: Any, item: str) -> RankEvent:
    return RankEvent(group.rank, node, time.time(), state, item, pid=os.getpid())
