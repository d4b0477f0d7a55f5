"""Pairs of NICs that measure with one another, over any transport: who meets whom where, in rounds, and who tells.

An end is a NIC of a node. The first rank of a node drives all of its NICs, each by a thread of its own; alone, or
within one node, a NIC meets itself. The server of a pair listens, the client connects. Whatever happens to a
pair, every rank comes to every exchange: a pair that fails is a measurement that says why, and the rest goes on.

What a transport adds is its :class:`Carrier`: which NICs there are, how one end of a connection is driven, and which
end owns the figure.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol

from cwai_bench import native
from cwai_bench.document import nearest
from cwai_bench.errors import CwaiError, DeadlineError, DeviceError, UsageError
from cwai_bench.goodput import due
from cwai_bench.model import (
    CheckInfo,
    Measurement,
    MeasureStatus,
    PairResult,
    PairResults,
    ProbeSpec,
    ReasonCode,
    Scalar,
    Subject,
    stats_of,
)
from cwai_bench.probes import Context, Options, counters
from cwai_bench.probes.nic import Place, without_shared
from cwai_bench.probes.pairs import ANY, Round, chosen_ends, end_of, packed, schedule
from cwai_bench.probes.transport import Kind, patience, seconds_of
from cwai_bench.render.nodeset import natural
from cwai_bench.text import Text

LOOPBACK = Place("lo", "127.0.0.1", 8, 0.0)
Role = Literal["client", "server"]
ROLES: tuple[Role, Role] = ("client", "server")
MOST_MEASUREMENTS = 4096
"""Pairs up to which each is told with all its samples; of more, those that are well are told in short."""
SECOND_LOOKS = 4
"""Rounds of second tries for which there is time even where every pair of the first was given up."""
_UNITS: dict[Kind, str] = {"bandwidth": "B/s", "latency": "s"}


@dataclass(frozen=True)
class Nic:
    """A NIC as its transport knows it.

    ``name`` is empty where any address of the node will do; ``netdevs`` are the interfaces whose addresses are its
    own (empty: any). ``speed`` is in bytes per second (0: unknown); ``cpu`` is where its thread belongs (-1: anywhere).
    ``about``: what else the transport needs to use it, or tells of it.
    """

    name: str = ""
    netdevs: tuple[str, ...] = ()
    speed: float = 0.0
    cpu: int = -1
    about: dict[str, Scalar] = field(default_factory=dict)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Nic:
        return cls(**{**raw, "netdevs": tuple(raw["netdevs"])})

    def own(self, places: Iterable[Place]) -> list[Place]:
        """Those of the node's places that are on this NIC."""
        return [p for p in places if not self.netdevs or p.nic in self.netdevs]


@dataclass(frozen=True)
class End:
    """One end of a pair: the rank that drives it, its node and NIC, and the place where it is met."""

    rank: int
    node: str
    nic: Nic
    place: Place

    @property
    def name(self) -> str:
        return _name(self.node, self.nic)

    @property
    def device(self) -> str:
        return self.nic.name or self.place.nic

    @property
    def speed(self) -> float:
        return self.nic.speed or self.place.speed


def _name(node: str, nic: Nic) -> str:
    return f"{node}/{nic.name}" if nic.name else node


@dataclass(frozen=True)
class Failure:
    status: MeasureStatus
    code: ReasonCode
    reason: Text

    def to_json(self) -> dict[str, str]:
        return {"status": self.status, "code": self.code, "en": self.reason.en, "zh": self.reason.zh}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Failure:
        return cls(raw["status"], raw["code"], Text(raw["en"], raw["zh"]))


def _failure(error: CwaiError) -> Failure:
    if isinstance(error, native.Stopped):
        return Failure("aborted", "aborted", error.message)
    if isinstance(error, DeadlineError):
        return Failure("timeout", "timeout", error.message)
    return Failure("error", "error", error.message)


@dataclass(frozen=True)
class Pair:
    """``failure``: why the two cannot measure, where that is known beforehand."""

    client: End
    server: End
    failure: Failure | None = None

    @property
    def within_node(self) -> bool:
        return self.client.node == self.server.node

    def end(self, role: Role) -> End:
        return self.client if role == "client" else self.server


@dataclass
class Outcome:
    """What one end of a pair found. ``samples`` are in the unit of the probe; empty where this end counts nothing.

    ``facts`` are parameters that are known only once the ends have met.
    """

    samples: list[float] = field(default_factory=list)
    wrong: int = 0
    first_bad: int = -1
    strangers: int = 0
    facts: dict[str, Scalar] = field(default_factory=dict)
    moves: dict[str, int | None] = field(default_factory=dict)
    """Counters of this end's port that tell of trouble and moved meanwhile."""
    failure: Failure | None = None

    def to_json(self) -> dict[str, Any]:
        stats = stats_of(self.samples)
        return {
            "wrong": self.wrong,
            "first_bad": self.first_bad,
            "strangers": self.strangers,
            "median": stats.p50 if stats else None,
            "moves": self.moves,
            "failure": self.failure.to_json() if self.failure else None,
        }


@dataclass(frozen=True)
class Figure:
    """One figure of a pair: the end that counted it, the end that the bytes came from, and those that tell what of them
    was wrong."""

    owner: Role
    source: Role
    verified_by: tuple[Role, ...]


class Carrier(Protocol):
    """What a transport adds. ``repeats``: parameters of the spec that each measurement has as well."""

    @property
    def kind(self) -> Kind: ...
    @property
    def repeats(self) -> tuple[str, ...]: ...

    def places(self, given: Mapping[str, Scalar], *, alone: bool) -> list[Place]:
        """Where this node can be met; ``alone``: there is no other. Raises DeviceError."""
        ...

    def nics(self, node: str, given: Mapping[str, Scalar]) -> dict[str, list[Nic]]:
        """The NICs of this node, which is ``node``, by the name of the node that they are said to be of: its own,
        unless one machine is to pass for several. Raises DeviceError."""
        ...

    def meet(
        self, client: tuple[Nic, list[Place]], server: tuple[Nic, list[Place]], *, near: bool
    ) -> tuple[Place, Place] | None:
        """The place on each side by which two NICs meet; ``near``: both are of one machine."""
        ...

    def busy(self, ends: Iterable[End]) -> dict[str, float]:
        """The devices of those of ``ends`` (all of this node) that carry other traffic now, with its rate in B/s."""
        ...

    def metric(self, given: Mapping[str, Scalar]) -> str: ...

    def joining(self, given: Mapping[str, Scalar]) -> dict[str, Any]:
        """Arguments of the TCP connection that the two ends make."""
        ...

    def drive(
        self, connection: native.Connection, end: End, role: Role, given: dict[str, Scalar], left: Callable[[], float]
    ) -> Outcome:
        """Measure at this end. Raises CwaiError. ``left``: seconds until the pair is given up."""
        ...

    def figures(self, given: Mapping[str, Scalar]) -> list[Figure]: ...

    def counters_of(self, end: End) -> counters.Port | None:
        """Whose counters are read before and after at this end."""
        ...

    def tell(self, source: End, target: End) -> dict[str, Scalar]:
        """Parameters that say what the two NICs are."""
        ...


# ---------------------------------------------------------------------------------------------- plan


def rounds_of(nodes: tuple[str, ...], nics: tuple[tuple[str, ...], ...], given: Mapping[str, Scalar]) -> list[Round]:
    """Rounds of pairs of end numbers: ends are the NICs (in natural order) of the nodes, one node after the other."""
    return schedule(
        nodes,
        nics,
        pairs=str(given["pairs"]),
        directed=given["direction"] == "one-way",
        senders=str(given["from"]),
        receivers=str(given["to"]),
    )


def specs(
    info: CheckInfo,
    kind: Kind,
    choices: Iterable[dict[str, Scalar]],
    nodes: tuple[str, ...],
    nics: tuple[tuple[str, ...], ...],
    options: Options,
    *,
    met: bool,
) -> list[ProbeSpec]:
    """One spec for each choice of parameters, with what it takes over all rounds.

    Raises UsageError for ends that are named and not there, once the nodes have ``met`` and their names are known.
    """
    if met:
        _refuse_unknown_ends("--from", options.from_ends, nodes, nics)
        _refuse_unknown_ends("--to", options.to_ends, nodes, nics)
    found = []
    for number, choice in enumerate(choices):
        parameters = {
            **choice,
            "port": options.port,
            "pairs": options.pairs,
            "from": ",".join(options.from_ends),
            "to": ",".join(options.to_ends),
            "interface": options.interface or "",
        }
        rounds = rounds_of(nodes, nics, parameters)
        if met and not rounds:
            raise UsageError(
                Text("no two of the NICs that are chosen could meet", "所选网卡中没有可以配对的"),
                Text(
                    "name NICs of different nodes: --from node1/nic --to node2/nic",
                    "请给出不同节点的网卡：--from node1/nic --to node2/nic",
                ),
            )
        parameters["rounds"] = len(rounds)
        parameters["pairs_in_all"] = sum(map(len, rounds))
        expected = 0.2 + len(rounds) * seconds_of(parameters, kind)
        second_looks = SECOND_LOOKS if len(rounds) > 1 else 0
        deadline = options.item_timeout or max(10.0, 5 + (len(rounds) + second_looks) * patience(parameters, kind))
        found.append(ProbeSpec(f"{info.id}#{number}", info.id, info, parameters, expected, deadline))
    return found


def _refuse_unknown_ends(
    option: str, words: Iterable[str], nodes: tuple[str, ...], nics: tuple[tuple[str, ...], ...]
) -> None:
    for word in words:
        if chosen_ends(nodes, nics, word):
            continue
        node, nic = end_of(word)
        ends = [f"{node}/{name}" for node, names in zip(nodes, nics, strict=True) for name in names if name]
        raise UsageError(
            Text("{o}: there is no {w!r}", "{o}：没有 {w!r}").fill(o=option, w=word),
            nearest(node, nodes) if nic == ANY or node not in (ANY, *nodes) else nearest(word, ends),
        )


# ------------------------------------------------------------------------------------------- measure


@dataclass(frozen=True)
class _Site:
    """A node as the pairs see it. Of ``ranks`` the first drives its NICs, the second the other end of what stays within
    the node."""

    node: str
    machine: str
    ranks: list[int]
    places: list[Place]
    nics: list[Nic]
    failure: Failure | None

    def rank(self, number: int) -> int:
        return self.ranks[min(number, len(self.ranks) - 1)]


def measure(ctx: Context, carrier: Carrier) -> None:
    """Every rank calls it; each emits what the ends that it drives own."""
    token, sites = _meet(ctx, carrier)
    seats = [(site, nic) for site in sites for nic in site.nics]
    rounds = rounds_of(
        tuple(s.node for s in sites), tuple(tuple(n.name for n in s.nics) for s in sites), ctx.spec.parameters
    )
    _tell_left_over(ctx, carrier, seats, rounds)
    with ExitStack() as stack:
        threads = _Threads(stack)
        found = _play(ctx, carrier, seats, rounds, token, threads, again=False)
        names = tuple(_name(site.node, nic) for site, nic in seats)
        further = _again(second_tries(names, found, carrier.kind), carrier.figures(ctx.spec.parameters))
        fitting = _that_fit(ctx, carrier, packed(further, range(len(seats))))
        _play(ctx, carrier, seats, fitting, token, threads, again=True)


def _that_fit(ctx: Context, carrier: Carrier, rounds: list[Round]) -> list[Round]:
    """As many of ``rounds`` as end before the probe is given up, whatever happens in them: a second look that is cut
    off would accuse somebody. All ranks come to the same."""
    if not rounds:
        return []
    left: float = min(ctx.group.allgather(ctx.deadline - time.monotonic()))
    return rounds[: max(0, int(left / patience(ctx.spec.parameters, carrier.kind)))]


Medians = dict[tuple[int, int], float | None]
"""What pairs of ends found, (source, target), in the unit of the probe; None where one failed."""


def second_tries(ends: tuple[str, ...], found: Medians, kind: Kind) -> Round:
    """Pairs (source, target) to be tried again: suspects, and these with others that are known to be good. ``ends`` are
    names (``node/nic``). All ranks come to the same, for all know what all pairs found."""
    import numpy as np

    from cwai_bench.matrix import Grid, retests, suspects

    value = np.full((len(ends), len(ends)), np.nan)
    failed = np.zeros(value.shape, dtype=bool)
    for pair, median in found.items():
        failed[pair] = median is None
        value[pair] = np.nan if median is None else median
    grid = Grid(ends, kind, _UNITS[kind], value, failed, higher_is_better=kind == "bandwidth")
    return retests(grid, suspects(grid))


def _again(further: Round, figures: list[Figure]) -> Round:
    """Pairs (client, server) of those (source, target); a pair that tells of both ways is one of them."""
    pairs = [(a, b) if figures[0].source == "client" else (b, a) for a, b in further]
    return [*{frozenset(pair): pair for pair in pairs}.values()] if len(figures) > 1 else pairs


def _play(
    ctx: Context,
    carrier: Carrier,
    seats: list[tuple[_Site, Nic]],
    rounds: list[Round],
    token: bytes,
    threads: _Threads,
    *,
    again: bool,
) -> Medians:
    """All rounds. Returns what all pairs found, not only this rank's."""
    if not rounds:
        return {}
    mine = _without_busy(ctx, carrier, [_pairs_of(ctx.group.rank, carrier, seats, together) for together in rounds])
    found: Medians = {}
    for number, (together, pairs) in enumerate(zip(rounds, mine, strict=True)):
        ctx.beat({"item": ctx.spec.id, "phase": "round", "round": number + 1, "rounds": len(rounds)})
        limit = min(patience(ctx.spec.parameters, carrier.kind), max(0.1, ctx.deadline - time.monotonic()))
        told = _round(ctx, carrier, pairs, token, limit, threads, again=again)
        for figure in carrier.figures(ctx.spec.parameters):
            for index, both in told.items():
                client, server = together[index]
                key = (client, server) if figure.source == "client" else (server, client)
                failed = [raw["failure"] for raw in both.values() if raw["failure"]]
                if not failed:
                    found[key] = both[figure.owner]["median"]
                elif failed[0]["status"] != "skip":
                    found[key] = None
    return found


def _tell_left_over(ctx: Context, carrier: Carrier, seats: list[tuple[_Site, Nic]], rounds: list[Round]) -> None:
    """A NIC that meets nobody says so, unless pairs were named."""
    given = ctx.spec.parameters
    met = {end for together in rounds for pair in together for end in pair}
    if given["from"] or given["to"]:
        return
    for number, (site, nic) in enumerate(seats):
        if number in met or site.rank(0) != ctx.group.rank:
            continue
        ctx.emit(
            Measurement(
                metric=carrier.metric(given),
                unit=_UNITS[carrier.kind],
                subject=Subject("node", _name(site.node, nic)),
                samples=[],
                parameters={key: given[key] for key in carrier.repeats},
                started=time.time(),
                duration=0.0,
                node=ctx.node,
                rank=ctx.group.rank,
                spec=ctx.spec.id,
                status="skip",
                reason_code="absent",
                reason=Text("no other node has a NIC on this rail", "没有其他节点具有同一轨道的网卡"),
            )
        )


class _Threads:
    """One thread for each end, alive until ``stack`` is left: one that was pinned stays where its NIC is."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._threads: dict[tuple[str, Role], ThreadPoolExecutor] = {}

    def run(self, jobs: Mapping[tuple[int, Role], tuple[End, Callable[[], Outcome]]]) -> dict[int, dict[str, Outcome]]:
        """Do all at once; what came out, by pair and role."""
        begun = {}
        for (number, role), (end, job) in jobs.items():
            if (end.name, role) not in self._threads:
                self._threads[end.name, role] = self._stack.enter_context(ThreadPoolExecutor(1))
            begun[number, role] = self._threads[end.name, role].submit(job)
        found: dict[int, dict[str, Outcome]] = {}
        for (number, role), job_begun in begun.items():
            found.setdefault(number, {})[role] = job_begun.result()
        return found


def _meet(ctx: Context, carrier: Carrier) -> tuple[bytes, list[_Site]]:
    """Agree on a token, and learn which NICs each node has and where it can be met."""
    group, given = ctx.group, ctx.spec.parameters
    alone = len(group.leaders) == 1
    mine: dict[str, Any] = {"token": secrets.token_hex(native.TOKEN_BYTES), "places": [], "nodes": {}}
    if group.rank in group.leaders:
        try:
            mine["places"] = [p.to_json() for p in carrier.places(given, alone=alone)]
            mine["nodes"] = {
                node: [asdict(nic) for nic in sorted(nics, key=lambda n: natural(n.name))]
                for node, nics in carrier.nics(ctx.node, given).items()
            }
        except DeviceError as error:
            mine["failure"] = Failure("error", "absent", error.message).to_json()
    told = group.allgather(mine)
    places = without_shared([[Place(**p) for p in told[leader]["places"]] for leader in group.leaders])
    sites = []
    for leader, here in zip(group.leaders, places, strict=True):
        raw = told[leader]
        failure = Failure.from_json(raw["failure"]) if "failure" in raw else None
        # A node that cannot say what it has is met all the same, so that somebody tells of it.
        nodes: dict[str, Any] = raw["nodes"] or {group.nodes[leader]: [asdict(Nic())]}
        ranks = [r for r, node in enumerate(group.nodes) if node == group.nodes[leader]]
        for number, (node, nics) in enumerate(nodes.items()):
            drivers = ranks if len(nodes) == 1 else [ranks[number % len(ranks)]]
            sites.append(_Site(node, group.nodes[leader], drivers, here, [Nic.from_json(n) for n in nics], failure))
    return bytes.fromhex(told[0]["token"]), sites


def _pairs_of(rank: int, carrier: Carrier, seats: list[tuple[_Site, Nic]], together: Round) -> dict[int, Pair]:
    """The pairs of a round that ``rank`` has an end of, by their number in it. All ranks agree on them."""
    return {
        number: pair
        for number, (c, s) in enumerate(together)
        if rank in seats[c][0].ranks or rank in seats[s][0].ranks
        for pair in [_pair(carrier, seats[c], seats[s])]
        if rank in (pair.client.rank, pair.server.rank)
    }


def _pair(carrier: Carrier, client: tuple[_Site, Nic], server: tuple[_Site, Nic]) -> Pair:
    (here, nic), (there, other) = client, server
    within = here.node == there.node
    if within and nic is other:
        other = replace(nic, cpu=-1)  # two threads that poll cannot share a CPU
    places = carrier.meet((nic, here.places), (other, there.places), near=here.machine == there.machine)
    failure = None
    refused = [(site.node, site.failure) for site in (here, there) if site.failure is not None]
    if refused:
        failure = _joined(refused)
    elif places is None:
        nameless = [_name(s.node, n) for s, n in (client, server) if n.name and not n.own(s.places)]
        failure = Failure(
            "error",
            "error",
            Text("no address of {n} is up", "{n} 没有可用的地址").fill(n=", ".join(nameless))
            if nameless
            else Text(
                "no pair of addresses of the two nodes can meet; choose a NIC with --interface",
                "两个节点没有可互通的地址；请用 --interface 指定网卡",
            ),
        )
    nowhere = Place("", "", 0, 0.0)
    a, b = places or (nowhere, nowhere)
    return Pair(End(here.rank(0), here.node, nic, a), End(there.rank(int(within)), there.node, other, b), failure)


def _without_busy(ctx: Context, carrier: Carrier, mine: list[dict[int, Pair]]) -> list[dict[int, Pair]]:
    """Every node counts the traffic on the NICs that it is going to use, while all are quiet."""
    group = ctx.group
    ends = [e for row in mine for p in row.values() if p.failure is None for e in (p.client, p.server)]
    loads: list[dict[str, float]] = group.allgather(carrier.busy([e for e in ends if e.rank == group.rank]))

    def held_up(pair: Pair) -> Pair:
        if pair.failure is not None:
            return pair
        for end in (pair.client, pair.server):
            if end.device in loads[end.rank]:
                reason = Text(
                    "{nic} of {node} carries other traffic ({rate:.1f} MB/s)",
                    "{node} 的 {nic} 正承载其他流量（{rate:.1f} MB/s）",
                ).fill(nic=end.device, node=end.node, rate=loads[end.rank][end.device] / 1e6)
                return Pair(pair.client, pair.server, Failure("skip", "busy", reason))
        return pair

    return [{number: held_up(pair) for number, pair in row.items()} for row in mine]


def _joined(failures: list[tuple[str, Failure]]) -> Failure:
    """One failure of the failures of both ends; each with the name of its node when there are two."""
    (node, first), *others = failures
    if not others:
        return Failure(first.status, first.code, Text(f"{node}: {first.reason.en}", f"{node}：{first.reason.zh}"))
    second_node, second = others[0]
    return Failure(
        first.status,
        first.code,
        Text(
            f"{node}: {first.reason.en}; {second_node}: {second.reason.en}",
            f"{node}：{first.reason.zh}；{second_node}：{second.reason.zh}",
        ),
    )


def _round(
    ctx: Context,
    carrier: Carrier,
    pairs: dict[int, Pair],
    token: bytes,
    limit: float,
    threads: _Threads,
    *,
    again: bool,
) -> dict[int, dict[str, dict[str, Any]]]:
    """One round of pairs. Two exchanges, which every rank comes to: the ports, and how it went.

    Returns what the ends of all pairs said of that, by the pair's number and role.
    """
    group = ctx.group
    started = time.time()
    tell = partial(_emit, ctx, carrier, again=again)
    listeners: dict[int, native.Listener] = {}
    outcomes: dict[int, dict[str, Outcome]] = {}
    offer: dict[str, Any] = {}
    for number, pair in pairs.items():
        if pair.server.rank != group.rank:
            continue
        if pair.failure is not None:
            outcomes[number] = {"server": Outcome(failure=pair.failure)}
            tell(pair, carrier.figures(ctx.spec.parameters)[0], outcomes[number]["server"], started)
            continue
        try:
            listeners[number] = native.listen(address=pair.server.place.address, port=int(ctx.spec.parameters["port"]))
            offer[str(number)] = {"port": listeners[number].port}
        except CwaiError as error:
            offer[str(number)] = {"failure": _failure(error).to_json()}
    offers = group.allgather(offer)

    started = time.time()
    ports = {n: offers[p.server.rank][str(n)] for n, p in pairs.items() if p.failure is None}
    jobs: dict[tuple[int, Role], tuple[End, Callable[[], Outcome]]] = {}
    for number, offered in ports.items():
        pair = pairs[number]
        if "failure" in offered:
            if pair.server.rank == group.rank:
                outcomes[number] = {"server": Outcome(failure=Failure.from_json(offered["failure"]))}
            continue
        one = _OnePair(carrier, ctx.spec.parameters, pair, token, time.monotonic() + limit)
        if pair.server.rank == group.rank:
            jobs[number, "server"] = pair.server, partial(one.serve, listeners[number])
        if pair.client.rank == group.rank:
            jobs[number, "client"] = pair.client, partial(one.call, offered["port"])
    outcomes |= threads.run(jobs)
    told = group.allgather(
        {str(n): {role: outcome.to_json() for role, outcome in roles.items()} for n, roles in outcomes.items()}
    )
    said: dict[int, dict[str, dict[str, Any]]] = {}
    for ones in told:
        for key, roles in ones.items():
            said.setdefault(int(key), {}).update(roles)
    for number, offered in ports.items():
        results = _results(ctx, carrier, pairs[number], outcomes.get(number, {}), said.get(number, {}))
        for figure, outcome, moves in results:
            tell(pairs[number], figure, outcome, started, offered.get("port", 0), moves)
    return said


@dataclass(frozen=True)
class _OnePair:
    """One pair at work. ``end`` is the monotonic time at which it is given up."""

    carrier: Carrier
    given: dict[str, Scalar]
    pair: Pair
    token: bytes
    end: float

    def left(self) -> float:
        return max(0.05, self.end - time.monotonic())

    def serve(self, listener: native.Listener) -> Outcome:
        def accept() -> native.Connection:
            return listener.accept(token=self.token, timeout=self.left(), **self.carrier.joining(self.given))

        outcome = self._drive(accept, "server")
        outcome.strangers = len(listener.strangers)
        return outcome

    def call(self, port: int) -> Outcome:
        def connect() -> native.Connection:
            return native.connect(
                address=self.pair.server.place.address,
                port=port,
                token=self.token,
                source="" if self.pair.within_node else self.pair.client.place.address,
                timeout=self.left(),
                **self.carrier.joining(self.given),
            )

        return self._drive(connect, "client")

    def _drive(self, join: Callable[[], native.Connection], role: Role) -> Outcome:
        """What went wrong is an outcome too: this rank must come to the next exchange."""
        end = self.pair.end(role)
        port = self.carrier.counters_of(end)
        with counters.watched({} if port is None else {end.name: port}) as moves:
            try:
                with join() as connection:
                    outcome = self.carrier.drive(connection, end, role, self.given, self.left)
            except CwaiError as error:
                outcome = Outcome(failure=_failure(error))
        outcome.moves = moves.get(end.name, {})
        return outcome


def _results(
    ctx: Context, carrier: Carrier, pair: Pair, outcomes: dict[str, Outcome], both: dict[str, dict[str, Any]]
) -> Iterator[tuple[Figure, Outcome, counters.Moves]]:
    """The figures that this rank owns, and what the counters of both ends counted. ``both`` is what the two ends said
    of how it went."""
    failures = [
        (pair.end(role).node, Failure.from_json(both[role]["failure"]))
        for role in ROLES
        if both.get(role, {}).get("failure")
    ]
    figures = carrier.figures(ctx.spec.parameters)
    if failures and "client" not in both:
        # It could not listen; the client has nothing to tell.
        figures = [Figure("server", figures[0].source, figures[0].verified_by)]
    for figure in figures:
        if pair.end(figure.owner).rank != ctx.group.rank:
            continue
        outcome = outcomes.get(figure.owner, Outcome())
        if failures:
            outcome = Outcome(failure=_joined(failures))
        else:
            bad = [both[role] for role in figure.verified_by if both[role]["wrong"]]
            outcome.wrong = sum(raw["wrong"] for raw in bad)
            outcome.first_bad = bad[0]["first_bad"] if bad else -1
        outcome.strangers = both.get("server", {}).get("strangers", 0)
        yield figure, outcome, {pair.end(role).name: both[role]["moves"] for role in ROLES if role in both}


def _emit(
    ctx: Context,
    carrier: Carrier,
    pair: Pair,
    figure: Figure,
    outcome: Outcome,
    started: float,
    port: int = 0,
    moves: counters.Moves | None = None,
    *,
    again: bool,
) -> None:
    """The subject reads in the direction of the bytes, and so do the names that start with client and server."""
    given = ctx.spec.parameters
    source, target = (pair.client, pair.server) if figure.source == "client" else (pair.server, pair.client)
    speeds = [end.speed for end in (source, target) if end.speed]
    parameters: dict[str, Scalar] = {
        **{key: given[key] for key in carrier.repeats},
        "from_rank": source.rank,
        "to_rank": target.rank,
        "client_nic": source.device,
        "server_nic": target.device,
        "client_address": source.place.address,
        "server_address": target.place.address,
        "port": port,
        **carrier.tell(source, target),
        **outcome.facts,
    }
    if again:
        parameters["again"] = 1
    if speeds:
        parameters["link_speed"] = min(speeds)
    if outcome.strangers:
        parameters["strangers"] = outcome.strangers
    correct: bool | None = None
    if given["verify"] and outcome.failure is None:
        correct = outcome.wrong == 0
        if outcome.wrong:
            parameters["bad_count"] = outcome.wrong
            parameters["first_bad_index"] = outcome.first_bad
    failure = outcome.failure
    if failure is None and not outcome.samples:
        failure = Failure("error", "error", Text("no message arrived in the time measured", "测量时间内没有消息到达"))
    stats = stats_of(outcome.samples)
    if (
        int(given["pairs_in_all"]) > MOST_MEASUREMENTS
        and stats
        and failure is None
        and correct is not False
        and not moves
    ):
        due_value = due(parameters, _UNITS[carrier.kind])
        expected = None if due_value is None else due_value.at_full_mtu
        ctx.emit(
            PairResults(
                spec=ctx.spec.id,
                metric=carrier.metric(given),
                unit=_UNITS[carrier.kind],
                parameters={key: given[key] for key in carrier.repeats},
                pairs=[PairResult(source.name, target.name, stats.p50, expected=expected)],
                again=again,
            )
        )
        return
    ctx.emit(
        Measurement(
            metric=carrier.metric(given),
            unit=_UNITS[carrier.kind],
            subject=Subject("node", source.name)
            if source.name == target.name
            else Subject("link", f"{source.name}→{target.name}"),
            samples=outcome.samples,
            parameters=parameters,
            started=started,
            duration=time.time() - started,
            node=ctx.node,
            rank=ctx.group.rank,
            spec=ctx.spec.id,
            warmup=int(given["warmup"]) if carrier.kind == "latency" else 0,
            correct=correct,
            status=failure.status if failure else "ok",
            reason_code=failure.code if failure else "wrong_data" if correct is False else "",
            reason=failure.reason if failure else None,
            counters=moves or {},
            stats=stats,
        )
    )
