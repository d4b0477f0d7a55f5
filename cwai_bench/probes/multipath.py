"""Transfers over several paths between two nodes: each alone, then all at once under every policy, in random order.

A path is a NIC of one node and that of the same rail of the other, over one TCP connection or several, or over RDMA
queue pairs; alone, on one machine, it is the loopback interface, or each RDMA port with itself. The first rank of a
node drives all of its paths: node k sends to node k+1, or whoever is named to whom. All ranks come to every exchange,
whatever happened to their transfers.

What is planted for a rehearsal (the fastest path cut, slowed down, coming and going) is planted within the engine at
the sending end of that path: no device is touched. When a path fails or stays bad, :mod:`cwai_bench.probes.path_probe`
finds out at once which part that is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from typing import Any, Literal

from cwai_bench import native
from cwai_bench.document import nearest
from cwai_bench.errors import CwaiError, DeviceError, UsageError
from cwai_bench.model import (
    Action,
    CheckInfo,
    ItemKind,
    LeftOut,
    Measurement,
    PathFault,
    PathProbe,
    PlantedTrouble,
    ProbeSpec,
    ReasonCode,
    Scalar,
    Severity,
    Subject,
    stats_of,
)
from cwai_bench.path_bound import ALONE, DUE, OURS, PATH, SCENARIOS, TRANSFER, Scenario
from cwai_bench.probes import Context, Options, World, hca, probe
from cwai_bench.probes.lanes import Lane, RdmaPlace, lanes_of, meet
from cwai_bench.probes.nic import Place, busy
from cwai_bench.probes.pairs import ANY, end_of, ring
from cwai_bench.probes.pairwise import LOOPBACK
from cwai_bench.probes.path_probe import Door, located
from cwai_bench.probes.transfer import (
    Connections,
    Ended,
    Job,
    Rates,
    Step,
    listen,
    receive,
    salt,
    send,
    traced,
    trouble,
)
from cwai_bench.probes.transport import over_verbs, refuse_impossible
from cwai_bench.probes.verbs import nodes_of
from cwai_bench.render.nodeset import natural
from cwai_bench.text import Text

SCOPE = "multipath"
DURATION = 1.0
"""Seconds that a transfer over all paths should take, unless a size is given."""
FIRST_LOOK, LOOK = 4 << 20, 0.2
"""Bytes of the first transfer over a path, and of the second its share of the duration: they tell how much to send."""
LEAST, LARGEST = 4 << 20, 1 << 30
"""Bytes of a transfer: the sending and the receiving end hold them in memory."""
CONNECTIONS = 4
"""Of a node's only path: several flows, since one is often bound by a CPU; of several paths one each."""
QUEUE_PAIRS = 8
"""Of each path of RDMA: a flow each, and a switch puts flows on different links of several."""
MOST_CONNECTIONS = 128
TRACED = 16
"""Transfers that run at the same time of which one is told in full, with its timelines; of the others, those in which a
path failed."""
MARGIN = 3.0
"""A transfer may take so many times what the slowest of its paths would take for all of it."""
START_PATIENCE = 5.0
REGISTERED = 2e9
"""Bytes per second that a NIC registers at least (2 us for a page of 4 KiB): each queue pair registers a transfer."""
LEAST_LEFT = 1.0
"""Seconds without which no transfer is begun any more."""
BLIND_PATIENCE = 6.0
"""For a path of which nothing is known: 4 MiB at 6 Mb/s take as long. One that carried nothing by then is tried no more
by itself; in transfers over all paths it is dialled again and again."""
LOOK_SECONDS = 30.0
"""For probes of what is at fault."""

_TITLES: dict[Scenario, tuple[Text, Text]] = {
    "as_is": (
        Text("Several paths at once", "多路径传输"),
        Text("as the paths are", "路径保持原样"),
    ),
    "cut": (
        Text("Several paths, one cut (rehearsed)", "多路径传输：切断一条路径（演练）"),
        Text("the fastest path is cut within the engine while it runs", "传输途中在引擎内切断最快的路径"),
    ),
    "degraded": (
        Text("Several paths, one slowed down (rehearsed)", "多路径传输：一条路径降速（演练）"),
        Text(
            "the fastest path is slowed down eightfold within the engine while it runs",
            "传输途中在引擎内将最快的路径降速为八分之一",
        ),
    ),
    "flapping": (
        Text("Several paths, one flapping (rehearsed)", "多路径传输：一条路径时断时续（演练）"),
        Text(
            "the fastest path is cut within the engine for half of each second",
            "传输途中在引擎内使最快的路径每秒中断半秒",
        ),
    ),
}


def _info(scenario: Scenario) -> CheckInfo:
    title, how = _TITLES[scenario]
    bound = (
        Text("the sum of what the paths carry alone", "各路径单独吞吐之和")
        if scenario == "as_is"
        else Text("what could be carried in spite of the planted fault", "计入所设故障后的理论上限")
    )
    return CheckInfo(
        id=f"{SCOPE}.{scenario}",
        kind=ItemKind.PROBE,
        scope=SCOPE,
        title=title,
        method=Text(
            "{h}; the same bytes from node to node over each path alone, and over all at once under each policy, in "
            "random order; every byte compared",
            "{h}；节点之间以相同数据分别经单条路径、以及按各调度策略同时经全部路径传输，顺序随机，逐字节校验",
        ).fill(h=how),
        criterion=Text(
            "every byte right, no path failed by itself; our policy reaches at least {d:.0%} of {b}",
            "数据逐字节正确，没有路径自行失效；本工具的策略不低于{b}的 {d:.0%}",
        ).fill(d=DUE[scenario], b=bound),
        suggestion=Text(
            "repair the path that is named: cable, port, NIC, switch; where all are well alone and not together they "
            "share something: a CPU, PCIe, an uplink",
            "修复所指的路径：线缆、端口、网卡或交换机；若各路径单独正常而同时不足，则共享 CPU、PCIe 或上行链路",
        ),
        severity=Severity.MAJOR,
        action=Action.MONITOR,
        needs=["tcp"],
        required=True,
    )


INFOS: dict[Scenario, CheckInfo] = {scenario: _info(scenario) for scenario in SCENARIOS}

# ---------------------------------------------------------------------------------------------- plan

_NOT_CHOSEN = Text("not among the scenarios that were chosen: --scenario {s}", "不在所选场景中：--scenario {s}")
_UNASKED = Text("rehearsed only when asked for: --scenario {s}", "仅在明确要求时演练：--scenario {s}")


def _plan(scenario: Scenario) -> Callable[[World, Options], list[ProbeSpec | LeftOut]]:
    info = INFOS[scenario]

    def plan(world: World, options: Options) -> list[ProbeSpec | LeftOut]:
        _refuse(options)
        rdma = options.transport == "verbs" and over_verbs(world, options)
        nodes, nics = nodes_of(world, options) if rdma else (world.nodes, tuple(r.names for r in world.rails))
        if world.rails:  # they have met
            _refuse_unknown_nodes(nodes, options)
        if scenario not in (options.scenarios or ("as_is",)):
            reason = _UNASKED if scenario != "as_is" else _NOT_CHOSEN
            return [LeftOut(info.id, "not_selected", reason.fill(s=scenario))]
        policies = options.policies or native.POLICIES
        duration = options.duration or DURATION
        given: dict[str, Scalar] = {
            "transport": "verbs" if rdma else "tcp",
            "scenario": scenario,
            "policies": ",".join(policies),
            "connections": options.connections,
            "duration": duration,
            "repeat": options.repeat,
            "seed": options.seed,
            "interfaces": ",".join(options.interfaces),
            "from": ",".join(options.from_ends),
            "to": ",".join(options.to_ends),
        }
        if options.size:
            given["transfer_bytes"] = options.size
        if options.stall is not None:
            given["stall"] = options.stall
        if rdma:
            given |= {name: getattr(options, name) for name in ("gid_index", "qp_timeout", "retries")}
            given |= {name: ",".join(getattr(options, name)) for name in ("device", "as_node")}
        rounds = _node_rounds(nodes, options)
        # How many paths there are is known once the nodes have met, and how fast they are once they were measured.
        paths = len(options.interfaces) or max(map(len, nics), default=0) or 1
        one = options.repeat * (paths + 2 * len(policies)) * duration
        expected = 0.5 + rounds * (one + 0.2 * paths)
        deadline = options.item_timeout or max(120.0, LOOK_SECONDS + rounds * (60.0 + 6 * one))
        return [ProbeSpec(f"{info.id}#0", info.id, info, given, expected, deadline)]

    return plan


def _node_rounds(nodes: Sequence[str], options: Options) -> int:
    if options.from_ends or options.to_ends or len(nodes) == 1:
        return 1
    return len(ring(len(nodes), directed=True))


def _refuse_unknown_nodes(nodes: Sequence[str], options: Options) -> None:
    for option, words in (("--from", options.from_ends), ("--to", options.to_ends)):
        for node in (end_of(word)[0] for word in words):
            if node not in (ANY, *nodes):
                raise UsageError(
                    Text("{o}: there is no node {n!r}", "{o}：没有节点 {n!r}").fill(o=option, n=node),
                    nearest(node, nodes),
                )


def _refuse(options: Options) -> None:
    refuse_impossible(options)
    for what, given, known in (
        ("--policy", options.policies or (), native.POLICIES),
        ("--scenario", options.scenarios or (), SCENARIOS),
    ):
        if unknown := [name for name in given if name not in known]:
            raise UsageError(
                Text("{o}: there is no {n!r}", "{o}：没有 {n!r}").fill(o=what, n=unknown[0]),
                Text("there are: {k}", "可选：{k}").fill(k=", ".join(known)),
            )
    if options.policies and OURS not in options.policies:
        raise UsageError(
            Text("--policy: without {o} there is nothing to judge", "--policy：缺少 {o} 则无从判断").fill(o=OURS),
            Text("add it: --policy {p}", "请加上：--policy {p}").fill(p=",".join((*options.policies, OURS))),
        )
    if options.connections > MOST_CONNECTIONS:
        raise UsageError(
            Text("--connections: {n} is more than {m}", "--connections：{n} 大于 {m}").fill(
                n=options.connections, m=MOST_CONNECTIONS
            )
        )
    of_rdma = {"--device": options.device, "--as-node": options.as_node}
    strange = {"--interface": options.interfaces} if options.transport == "verbs" else of_rdma
    for name, value in strange.items():
        if value:
            raise UsageError(
                Text("{o} is not of this transport", "{o} 不适用于该传输方式").fill(o=name),
                Text(
                    "NICs of TCP are named by --interface, RDMA ports (--transport verbs) by --device",
                    "TCP 的网卡用 --interface 指定，RDMA 端口（--transport verbs）用 --device 指定",
                ),
            )
    if options.size > LARGEST:
        raise UsageError(
            Text("--size: {n} bytes are more than 1 GiB", "--size：{n} 字节大于 1 GiB").fill(n=options.size),
            Text("both ends hold a transfer in memory", "收发两端均需将数据置于内存"),
        )


# ------------------------------------------------------------------------------------------- measure


class _Probing:
    """One probe at work on this rank. All ranks hold the same but for what this one drives."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.given = ctx.spec.parameters
        self.scenario: Scenario = self.given["scenario"]  # type: ignore[assignment]
        self.token, self.sites = meet(ctx)
        # Of all ranks the same, and another one in each run.
        self.seed = int(self.given["seed"]) or int.from_bytes(self.token[:3], "big") + 1
        self.looked: set[tuple[str, bool]] = set()

    def run(self) -> None:
        rounds = lanes_of(self.sites, self.given)
        if not any(rounds):
            raise DeviceError(
                Text("no two of the NICs that are chosen could meet", "所选网卡中没有可以配对的"),
                Text(
                    "name NICs of two nodes: --from node1/eth0,node1/eth1 --to node2/eth0,node2/eth1",
                    "请给出两个节点的网卡：--from node1/eth0,node1/eth1 --to node2/eth0,node2/eth1",
                ),
            )
        with ThreadPoolExecutor(2) as pool:
            self.pool = pool
            for number, lanes in enumerate(rounds):
                self.where: dict[str, Scalar] = {"item": self.ctx.spec.id, "round": number + 1, "rounds": len(rounds)}
                self._round(number, self._without_busy([self._rehearsable(lane) for lane in lanes]))

    def _rehearsable(self, lane: Lane) -> Lane:
        if lane.failure is not None or self.scenario == "as_is" or len(lane.paths) > 1:
            return lane
        only = Text("there is only one path, and none that could take over", "仅有一条路径，没有可接替的路径")
        return replace(lane, failure=only, code="unsupported")

    def _without_busy(self, lanes: list[Lane]) -> list[Lane]:
        """Every node counts the traffic on the NICs that it is going to use, while all are quiet."""
        group = self.ctx.group
        mine = {
            place
            for lane in lanes
            for rank, side in ((lane.sender, 0), (lane.receiver, 1))
            if rank == group.rank and lane.failure is None
            for place in (path[side] for path in lane.paths)
            if place.nic != LOOPBACK.nic
        }
        loads: list[dict[str, float]] = group.allgather(_busy(mine))
        found = []
        for lane in lanes:
            ends = [
                (site.node, path[i].nic, loads[rank])
                for i, (site, rank) in enumerate(((lane.source, lane.sender), (lane.target, lane.receiver)))
                for path in lane.paths
            ]
            held_up = next(((node, nic, load[nic]) for node, nic, load in ends if nic in load), None)
            if lane.failure is None and held_up is not None:
                node, nic, rate = held_up
                reason = Text(
                    "{nic} of {node} carries other traffic ({rate:.1f} MB/s)",
                    "{node} 的 {nic} 正承载其他流量（{rate:.1f} MB/s）",
                ).fill(nic=nic, node=node, rate=rate / 1e6)
                found.append(replace(lane, failure=reason, code="busy"))
            else:
                found.append(lane)
        return found

    def _round(self, number: int, lanes: list[Lane]) -> None:
        for lane in lanes:
            if lane.failure is not None and lane.sender == self.ctx.group.rank:
                self._emit_nothing(lane)
        rates = [Rates([[] for _ in lane.paths]) for lane in lanes]
        most = max(len(lane.paths) for lane in lanes)
        policies = str(self.given["policies"]).split(",")
        for step in steps(self.seed, number, int(self.given["repeat"]), most, policies):
            if not self._step(lanes, step, rates):
                late = Text("time ran out before the run was over", "测试未能在时限内完成")
                for lane in lanes:
                    if lane.failure is None and lane.sender == self.ctx.group.rank:
                        more: dict[str, Scalar] = {"policy": OURS, "repetition": max(0, step.repetition)}
                        self._measured(lane, lane.subject, [], more, time.time(), None, "aborted", "timeout", late)
                return

    def _step(self, lanes: list[Lane], step: Step, rates: list[Rates]) -> bool:
        """False, on all ranks, when no time is left for it."""
        group = self.ctx.group
        self.ctx.beat({**self.where, "phase": step.policy, "repetition": step.repetition})
        jobs = {
            number: job
            for number, (lane, known) in enumerate(zip(lanes, rates, strict=True))
            if lane.failure is None and (job := self._job(lane, step, known)) is not None
        }
        listeners: dict[int, native.PathListeners] = {}
        ports: dict[str, Any] = {}
        for number, job in jobs.items():
            if job.lane.receiver == group.rank:
                try:
                    listeners[number] = listen(job)
                    ports[str(number)] = listeners[number].ports
                except CwaiError as error:
                    ports[str(number)] = [error.message.en, error.message.zh]
        offered = group.allgather({"left": self.ctx.deadline - time.monotonic(), "ports": ports})
        if min(told["left"] for told in offered) < LEAST_LEFT:
            return False
        offers = {int(key): value for told in offered for key, value in told["ports"].items()}
        token = bytes(a ^ b for a, b in zip(self.token, salt(step), strict=True))
        begun: dict[tuple[int, str], Any] = {}
        ended: dict[tuple[int, str], Ended] = {}
        for number, job in jobs.items():
            if isinstance(offers[number][0], str):
                if job.lane.sender == group.rank:
                    ended[number, "sent"] = Ended(("error", Text(*offers[number])))
                continue
            if job.lane.receiver == group.rank:
                begun[number, "received"] = self.pool.submit(receive, job, listeners[number], token)
            if job.lane.sender == group.rank:
                begun[number, "sent"] = self.pool.submit(send, job, offers[number], token)
        ended |= {key: future.result() for key, future in begun.items()}
        told = group.allgather({f"{number} {way}": one.to_json(jobs[number]) for (number, way), one in ended.items()})
        said: dict[int, dict[str, dict[str, Any]]] = {number: {} for number in jobs}
        for of_rank in told:
            for key, raw in of_rank.items():
                number, way = key.split()
                said[int(number)][way] = raw
        for number, job in jobs.items():
            seconds = said[number]["sent"].get("seconds")
            if step.policy == ALONE and seconds:
                rates[number].take(step, job.size / seconds)
            if job.lane.sender == group.rank:
                self._tell(number, job, ended[number, "sent"], said[number])
        self._look_into(jobs, said)
        return True

    def _job(self, lane: Lane, step: Step, rates: Rates) -> Job | None:
        """What this lane does in a step; all ranks come to the same. None where it has nothing to do."""
        alone = step.policy == ALONE
        if step.path >= len(lane.paths) or (not alone and rates.total <= 0):
            return None
        usual = QUEUE_PAIRS if lane.rdma else CONNECTIONS if len(lane.paths) == 1 else 1
        count = int(self.given["connections"]) or usual
        count = max(1, min(count, MOST_CONNECTIONS // len(lane.paths)))
        asked = int(self.given.get("transfer_bytes", 0))
        size = asked or int(min(max(rates.total * float(self.given["duration"]), LEAST), LARGEST))
        paths = (step.path,) if alone else tuple(rates.order())
        if alone:
            rate = rates.of(step.path)
            if step.repetition > 0 and rate <= 0:
                return None
            if step.repetition > 0:
                size = max(int(size * rate / rates.total), min(size, LEAST))
            else:
                size = int(min(max(rate * float(self.given["duration"]) * LOOK, FIRST_LOOK), LARGEST))
        slowest = min((rate for path in paths if (rate := rates.of(path)) > 0), default=0.0)
        patience = START_PATIENCE + MARGIN * size / slowest if slowest > 0 else BLIND_PATIENCE
        if lane.rdma:
            patience += count * len(paths) * size / REGISTERED
        planted: tuple[PlantedTrouble, ...] = ()
        if not alone and self.scenario != "as_is":
            planted = trouble(self.scenario, size / rates.total, rates.of(paths[0]), 60.0)
        return Job(
            lane,
            step,
            paths,
            Connections.of(self.given, count),
            size,
            tuple(max(rates.of(path), 1.0) for path in paths),
            planted,
            min(patience * (4 if planted else 1), max(0.1, self.ctx.deadline - time.monotonic())),
        )

    # ----------------------------------------------------------------------------------------- telling

    def _emit_nothing(self, lane: Lane) -> None:
        assert lane.failure is not None
        status: Literal["skip", "error"] = "error" if lane.code == "absent" else "skip"
        self._measured(lane, lane.subject, [], {"policy": OURS}, time.time(), None, status, lane.code, lane.failure)

    def _measured(
        self,
        lane: Lane,
        subject: Subject,
        samples: list[float],
        more: dict[str, Scalar],
        started: float,
        correct: bool | None,
        status: Literal["ok", "skip", "error", "timeout", "aborted"],
        code: ReasonCode,
        reason: Text | None,
    ) -> None:
        self.ctx.emit(
            Measurement(
                metric=PATH if more["policy"] == ALONE else TRANSFER,
                unit="B/s",
                subject=subject,
                samples=samples,
                parameters={
                    "scenario": self.scenario,
                    "transport": str(self.given["transport"]),
                    "lane": lane.name,
                    "within_node": lane.within,
                    **more,
                },
                started=started,
                duration=time.time() - started,
                node=self.ctx.node,
                rank=self.ctx.group.rank,
                spec=self.ctx.spec.id,
                correct=correct,
                status=status,
                reason_code=code,
                reason=reason,
                stats=stats_of(samples),
            )
        )

    def _tell(self, number: int, job: Job, mine: Ended, said: dict[str, dict[str, Any]]) -> None:
        """The figure, and where something happened, or of the first few, all that there is to be seen."""
        lane, step = job.lane, job.step
        alone = step.policy == ALONE
        failures = [Text(*raw["failure"][1:]) for raw in said.values() if "failure" in raw]
        received, seconds = said.get("received", {}), said["sent"].get("seconds")
        ended = mine.sent.ended if mine.sent is not None else None
        correct = received["wrong"] == 0 if received.get("complete") else None
        more: dict[str, Scalar] = {
            "policy": step.policy,
            "bytes": job.size,
            "paths": len(job.paths),
            "connections": job.connections.count,
            "repetition": max(0, step.repetition),
            "seed": self.seed,
        }
        if alone:
            source, target = lane.paths[step.path]
            speeds = [place.speed for place in (source, target) if place.speed]
            if speeds:
                more["port_speed"] = min(speeds)
        if job.planted:
            first = job.planted[0]
            more |= {"planted": lane.path_name(job.trouble), "planted_at": first.begin}
            if first.kind == "slow":
                more["planted_rate"] = first.rate
        if correct is False:
            more |= {"bad_count": received["wrong"], "first_bad_index": received["first_bad"]}
        status: Literal["ok", "error", "timeout", "aborted"] = "ok"
        reason: Text | None = None
        if seconds is None or failures:
            status = said["sent"].get("failure", ["error"])[0]
            reason = failures[0] if failures else ended
        source_end, target_end = lane.ends(step.path) if alone else ("", "")
        subject = lane.subject
        if alone:
            subject = Subject("nic" if source_end == target_end else "link", lane.path_name(step.path))
        codes: dict[str, ReasonCode] = {"ok": "", "error": "error", "timeout": "timeout", "aborted": "aborted"}
        code: ReasonCode = "wrong_data" if correct is False else codes[status]
        samples = [job.size / seconds] if seconds and status == "ok" else []
        self._measured(lane, subject, samples, more, mine.started, correct, status, code, reason)
        if mine.sent is None or alone:
            return
        unplanted = [path for path in said["sent"].get("bad", []) if path != job.trouble]
        if unplanted or (step.policy == OURS and step.repetition == 1 and number < TRACED):
            self.ctx.emit(traced(self.ctx.spec.id, self.scenario, job, mine, mine.sent))

    # ------------------------------------------------------------------------------------- what it was

    def _look_into(self, jobs: Mapping[int, Job], said: Mapping[int, Mapping[str, Any]]) -> None:
        """Find out at once what made paths fail that nobody has looked into yet. All ranks come to the same."""
        fresh: dict[tuple[str, bool], int] = {}
        seen: list[PathProbe] = []
        for number, job in jobs.items():
            bad = said[number]["sent"].get("bad", [])
            if job.lane.within:
                continue
            for at, path in enumerate(job.paths):
                rehearsed = path == job.trouble
                if rehearsed and self.scenario != "cut":
                    continue  # it is there again, or still, when somebody looks
                key = job.lane.path_name(path), rehearsed
                if path in bad and key not in self.looked:
                    fresh[key] = number
                source, target = job.lane.ends(path)
                status: Literal["failed", "ok"] = "failed" if path in bad else "ok"
                # Its ports are none of those that probes are made from.
                seen += [
                    PathProbe(source, target, (1 << 16) + at * job.connections.count + k, status)
                    for k in range(job.connections.count)
                ]
        if not fresh:
            return
        self.looked |= set(fresh)
        # That queue pairs reach one another says nothing of the interfaces on their ports.
        joined = {job.lane.ends(path) for job in jobs.values() if not job.lane.rdma for path in job.paths}
        planted = {job.lane.ends(job.trouble) for job in jobs.values() if job.planted and not job.lane.within}
        deadline = min(time.monotonic() + LOOK_SECONDS, self.ctx.deadline - START_PATIENCE)
        doors = [
            Door(site.end(place), place, site.ranks[0]) for site in self.sites for place in site.places if place.address
        ]
        cut = planted if self.scenario == "cut" else set()
        findings, probes = located(self.ctx.group, doors, seen, joined=joined, planted=cut, deadline=deadline)
        teller = jobs[min(fresh.values())].lane.sender
        if self.ctx.group.rank != teller:
            return
        names = sorted({name for name, _ in fresh}, key=natural)
        drill = all(rehearsed for _, rehearsed in fresh)
        for finding in findings or [None]:  # type: ignore[list-item]
            self.ctx.emit(PathFault(self.ctx.spec.id, time.time(), self.scenario, names, finding, probes, drill))


def _busy(mine: Iterable[Place]) -> dict[str, float]:
    """NICs of these that carry the traffic of others, with its rate in B/s."""
    ports = [place.to_port() for place in mine if isinstance(place, RdmaPlace)]
    return hca.busy(ports) if ports else busy(place.nic for place in mine)


def steps(seed: int, number: int, repeat: int, paths: int, policies: Sequence[str]) -> Iterable[Step]:
    """All transfers of a round, in an order that ``seed`` and the round's ``number`` tell: two first looks at each
    path, then in each repetition (from 1) each path alone and each policy, one among the other."""
    order = Random(f"{seed} {number}")
    yield from (Step(look, ALONE, path) for look in (-1, 0) for path in range(paths))
    for repetition in range(1, repeat + 1):
        alone = [Step(repetition, ALONE, path) for path in range(paths)]
        every = alone + [Step(repetition, policy) for policy in policies]
        yield from order.sample(every, len(every))


def _measure(ctx: Context) -> None:
    _Probing(ctx).run()


for _scenario in SCENARIOS:
    probe(INFOS[_scenario], commands=("multipath",), plan=_plan(_scenario))(_measure)
