"""Lanes: two nodes, which NICs of theirs are the paths between them, and who sends to whom at the same time.

Over TCP a path is from the address of one NIC to that of another. Over RDMA it is from port to port, chosen as by
``cwai-bench rdma``; there the ends meet over TCP first, as that command has it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cwai_bench import native
from cwai_bench.errors import DeviceError
from cwai_bench.model import ReasonCode, Scalar, Subject
from cwai_bench.probes import Context, hca
from cwai_bench.probes.nic import Place, meeting, neighbours, places, without_shared
from cwai_bench.probes.pairs import ANY, Round, chosen, chosen_ends, end_of, packed, ring, same_rail
from cwai_bench.probes.pairwise import LOOPBACK
from cwai_bench.probes.verbs import chosen_ports
from cwai_bench.render.nodeset import natural
from cwai_bench.text import Text


@dataclass(frozen=True)
class RdmaPlace(Place):
    """An RDMA port. ``nic`` is its name as ``cwai-bench rdma`` has it; ``address`` and ``prefix`` are of ``netdev``,
    the interface on it, and empty where that has none."""

    device: str
    port: int
    netdev: str

    @classmethod
    def of(cls, port: hca.Port, ways: Sequence[Place]) -> RdmaPlace:
        own = next((place for place in ways if place.nic in port.netdevs), None)
        netdev = own.nic if own else next(iter(port.netdevs), "")
        address, prefix = (own.address, own.prefix) if own else ("", 0)
        return cls(port.name, address, prefix, port.speed, port.device, port.port, netdev)

    def to_port(self) -> hca.Port:
        return hca.Port(self.nic, self.device, self.port, self.speed, (self.netdev,) if self.netdev else ())


@dataclass(frozen=True)
class Site:
    """A node: one place for each of its NICs that may be a path, or why it has none. ``ranks``: the first drives it.
    ``ways``: by which it can be reached, whatever its paths are; of RDMA alone."""

    node: str
    ranks: tuple[int, ...]
    places: tuple[Place, ...]
    failure: Text | None = None
    ways: tuple[Place, ...] = ()

    def end(self, place: Place) -> str:
        return f"{self.node}/{place.nic}"


@dataclass(frozen=True)
class Lane:
    """Two nodes and the paths between them; ``failure``: why there is nothing to measure, with its code."""

    source: Site
    target: Site
    paths: tuple[tuple[Place, Place], ...]
    failure: Text | None = None
    code: ReasonCode = ""

    @property
    def within(self) -> bool:
        return self.source.node == self.target.node

    @property
    def rdma(self) -> bool:
        return any(isinstance(place, RdmaPlace) for place, _ in self.paths)

    @property
    def sender(self) -> int:
        return self.source.ranks[0]

    @property
    def receiver(self) -> int:
        return self.target.ranks[min(1, len(self.target.ranks) - 1)] if self.within else self.target.ranks[0]

    @property
    def name(self) -> str:
        return self.source.node if self.within else f"{self.source.node}→{self.target.node}"

    @property
    def subject(self) -> Subject:
        return Subject("node" if self.within else "link", self.name)

    def ends(self, path: int) -> tuple[str, str]:
        source, target = self.paths[path]
        return self.source.end(source), self.target.end(target)

    def path_name(self, path: int) -> str:
        source, target = self.ends(path)
        return source if source == target else f"{source}→{target}"


def meet(ctx: Context) -> tuple[bytes, list[Site]]:
    """A token, and what every node has. RDMA ports of one machine may pass for several nodes, which its ranks share."""
    group, given = ctx.group, ctx.spec.parameters
    rdma = given["transport"] == "verbs"
    alone = len(group.leaders) == 1
    mine: dict[str, Any] = {"token": secrets.token_hex(native.TOKEN_BYTES), "places": [], "ports": {}}
    if group.rank in group.leaders:
        try:
            found = places(None) if rdma else _places(given, alone=alone)
            mine["places"] = [place.to_json() for place in found]
            if rdma:
                ports = chosen_ports(ctx.node, given)
                mine["ports"] = {n: [RdmaPlace.of(port, found).to_json() for port in ports[n]] for n in ports}
        except DeviceError as error:
            mine["failure"] = [error.message.en, error.message.zh]
    told = group.allgather(mine)
    everywhere = [[Place(**p) for p in told[leader]["places"]] for leader in group.leaders]
    if not given["interfaces"]:
        everywhere = without_shared(everywhere)
    sites = []
    for leader, here in zip(group.leaders, everywhere, strict=True):
        node = group.nodes[leader]
        ranks = tuple(r for r, name in enumerate(group.nodes) if name == node)
        failure = Text(*told[leader]["failure"]) if "failure" in told[leader] else None
        if rdma:
            if failure is not None:
                failure = Text("no RDMA on {n}: {w}", "{n} 无法使用 RDMA：{w}").fill(n=node, w=failure)
            for i, (name, ends) in enumerate((told[leader]["ports"] or {node: []}).items()):
                first = i % len(ranks)
                own = tuple(RdmaPlace(**end) for end in ends)
                sites.append(Site(name, ranks[first:] + ranks[:first], own, failure, tuple(here)))
            continue
        if failure is None and not here:
            failure = Text("no NIC of {n} has an address", "{n} 没有带地址的网卡").fill(n=node)
        sites.append(Site(node, ranks, tuple(here), failure))
    return bytes.fromhex(told[0]["token"]), sites


def _places(given: Mapping[str, Scalar], *, alone: bool) -> list[Place]:
    """The first address of each NIC: of those that were named, else of those that are RDMA devices as well, where there
    are any, else of all. Raises DeviceError for one that is named and not here."""
    named = [name for name in str(given["interfaces"]).split(",") if name]
    if named:
        found = [place for name in named for place in places(name)]
    elif alone:
        return [LOOPBACK]
    else:
        found = places(None)
        rails = {name for port in hca.ports() for name in port.netdevs}
        found = [place for place in found if place.nic in rails] or found
    by_nic: dict[str, Place] = {}
    for place in found:
        by_nic.setdefault(place.nic, place)
    return list(by_nic.values()) if named else sorted(by_nic.values(), key=lambda place: natural(place.nic))


_NO_ADDRESS = (
    Text("--{o}: {w} has no address that is up", "--{o}：{w} 没有可用的地址"),
    Text("NICs that have one: {n}", "有地址的网卡：{n}"),
)
_NO_PORT = (
    Text("--{o}: {w} is no RDMA port that is active and chosen", "--{o}：{w} 不是已选中的活动 RDMA 端口"),
    Text("RDMA ports that are: {n}", "可用的 RDMA 端口：{n}"),
)


def lanes_of(sites: Sequence[Site], given: Mapping[str, Scalar]) -> list[list[Lane]]:
    """Rounds of lanes in which no node takes part twice. Raises DeviceError for ends that are named and not there."""
    nics = tuple(tuple(place.nic for place in site.places) for site in sites)
    nodes = tuple(site.node for site in sites)
    if given["from"] or given["to"]:
        for option in ("from", "to"):
            for word in filter(None, str(given[option]).split(",")):
                if not chosen_ends(nodes, nics, word):
                    node = end_of(word)[0]
                    if failure := next((site.failure for site in sites if site.node == node and site.failure), None):
                        raise DeviceError(Text("{n}: {f}", "{n}：{f}").fill(n=node, f=failure))
                    wrong, others = _NO_PORT if given["transport"] == "verbs" else _NO_ADDRESS
                    here = ", ".join(site.end(place) for site in sites for place in site.places)
                    raise DeviceError(wrong.fill(o=option, w=word), others.fill(n=here or "–"))
        ends = chosen(nodes, nics, str(given["from"] or ANY), str(given["to"] or ANY))
        owner = [(n, i) for n, names in enumerate(nics) for i in range(len(names))]
        by_nodes: dict[tuple[int, int], Round] = {}
        for a, b in ends:
            by_nodes.setdefault((owner[a][0], owner[b][0]), []).append((owner[a][1], owner[b][1]))
        named = {pair: _named_or_rails(sites, pair, found, given) for pair, found in by_nodes.items()}
        return [
            [_lane(sites[a], sites[b], named[a, b]) for a, b in together]
            for together in packed(list(by_nodes), range(len(sites)))
        ]
    if len(sites) == 1:
        return [[_lane(sites[0], sites[0], [(i, i) for i in range(len(nics[0]))])]]
    return [
        [_lane(sites[a], sites[b], rails(sites[a].places, sites[b].places)) for a, b in together]
        for together in ring(len(sites), directed=True)
    ]


def _named_or_rails(
    sites: Sequence[Site], pair: tuple[int, int], found: Round, given: Mapping[str, Scalar]
) -> Sequence[tuple[int, int]]:
    """Nodes that are named without NICs meet rail by rail, by their networks."""
    words = [word for key in ("from", "to") for word in str(given[key] or ANY).split(",")]
    if pair[0] != pair[1] and all(end_of(word)[1] == ANY for word in words):
        return rails(sites[pair[0]].places, sites[pair[1]].places)
    return found


def rails(mine: Sequence[Place], theirs: Sequence[Place]) -> list[tuple[int, int]]:
    """Which NIC of one node is on the rail of which of the other, by number: of one network, of the same name if there
    are several; what is left over by name, then in its order, for a router to join. None of two families of addresses.
    """
    found: list[tuple[int, int]] = []
    left, right = list(range(len(mine))), list(range(len(theirs)))
    for i, place in enumerate(mine):
        near = [j for j in right if neighbours(_own(place), _own(theirs[j])) is not None]
        if near:
            j = next((j for j in near if theirs[j].nic == place.nic), near[0])
            found.append((i, j))
            left.remove(i)
            right.remove(j)
    over = same_rail(tuple(mine[i].nic for i in left), tuple(theirs[j].nic for j in right))
    found += [(left[a], right[b]) for a, b in over if _routable(mine[left[a]], theirs[right[b]])]
    return sorted(found)


def _own(place: Place) -> list[Place]:
    return [place] if place.address else []


def _routable(one: Place, other: Place) -> bool:
    """Ports of RDMA are joined by their own fabric, whatever the addresses of their interfaces are."""
    return isinstance(one, RdmaPlace) or (":" in one.address) == (":" in other.address)


def _met(source: Site, target: Site, path: tuple[int, int]) -> tuple[Place, Place] | None:
    """The ends of a path, each with the address by which it is met. Those of RDMA ports meet by their own where these
    are in one network, so that a rail that is cut costs that path only; else as the nodes do. None: by no address."""
    one, other = source.places[path[0]], target.places[path[1]]
    if not isinstance(one, RdmaPlace):
        return one, other
    if sorted(source.ranks) == sorted(target.ranks):
        met: tuple[Place, Place] | None = (LOOPBACK, LOOPBACK)
    else:
        met = neighbours(_own(one), _own(other)) or meeting(source.ways, target.ways)
    return met and (replace(one, address=met[0].address), replace(other, address=met[1].address))


def _lane(source: Site, target: Site, found: Sequence[tuple[int, int]]) -> Lane:
    failure = source.failure or target.failure
    paths = tuple(met for path in found if (met := _met(source, target, path)) is not None)
    if failure is None and not paths:
        failure = Text(
            "no NIC of {a} can meet one of {b}; name them with --from and --to",
            "{a} 与 {b} 没有可互通的网卡；请用 --from 与 --to 指定",
        ).fill(a=source.node, b=target.node)
    return Lane(source, target, paths, failure, "absent" if failure is not None else "")
