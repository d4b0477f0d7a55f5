"""Lanes: two nodes, which NICs of theirs are the paths between them, and who sends to whom at the same time."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cwai_bench import native
from cwai_bench.errors import DeviceError
from cwai_bench.model import ReasonCode, Scalar, Subject
from cwai_bench.probes import Context, hca
from cwai_bench.probes.nic import Place, neighbours, places, without_shared
from cwai_bench.probes.pairs import ANY, Round, chosen, chosen_ends, end_of, packed, ring, same_rail
from cwai_bench.probes.pairwise import LOOPBACK
from cwai_bench.render.nodeset import natural
from cwai_bench.text import Text


@dataclass(frozen=True)
class Site:
    """A node: one place for each of its NICs that may be a path, or why it has none."""

    node: str
    ranks: tuple[int, ...]
    places: tuple[Place, ...]
    failure: Text | None = None

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
    """A token, and what every node has."""
    group, given = ctx.group, ctx.spec.parameters
    mine: dict[str, Any] = {"token": secrets.token_hex(native.TOKEN_BYTES), "places": []}
    if group.rank in group.leaders:
        try:
            mine["places"] = [p.to_json() for p in _places(given, alone=len(group.leaders) == 1)]
        except DeviceError as error:
            mine["failure"] = [error.message.en, error.message.zh]
    told = group.allgather(mine)
    everywhere = [[Place(**p) for p in told[leader]["places"]] for leader in group.leaders]
    if not given["interfaces"]:
        everywhere = without_shared(everywhere)
    sites = []
    for leader, here in zip(group.leaders, everywhere, strict=True):
        ranks = tuple(r for r, node in enumerate(group.nodes) if node == group.nodes[leader])
        failure = Text(*told[leader]["failure"]) if "failure" in told[leader] else None
        if failure is None and not here:
            failure = Text("no NIC of {n} has an address", "{n} 没有带地址的网卡").fill(n=group.nodes[leader])
        sites.append(Site(group.nodes[leader], ranks, tuple(here), failure))
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
                    raise DeviceError(
                        Text("--{o}: {w} has no address that is up", "--{o}：{w} 没有可用的地址").fill(
                            o=option, w=word
                        ),
                        Text("NICs that have one: {n}", "有地址的网卡：{n}").fill(
                            n=", ".join(site.end(place) for site in sites for place in site.places) or "–"
                        ),
                    )
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
        near = [j for j in right if neighbours([place], [theirs[j]]) is not None]
        if near:
            j = next((j for j in near if theirs[j].nic == place.nic), near[0])
            found.append((i, j))
            left.remove(i)
            right.remove(j)
    over = same_rail(tuple(mine[i].nic for i in left), tuple(theirs[j].nic for j in right))
    found += [(left[a], right[b]) for a, b in over if _routable(mine[left[a]], theirs[right[b]])]
    return sorted(found)


def _routable(one: Place, other: Place) -> bool:
    return (":" in one.address) == (":" in other.address)


def _lane(source: Site, target: Site, found: Sequence[tuple[int, int]]) -> Lane:
    failure = source.failure or target.failure
    if failure is None and not found:
        failure = Text(
            "no NIC of {a} can meet one of {b}; name them with --interface",
            "{a} 与 {b} 没有可互通的网卡；请用 --interface 指定",
        ).fill(a=source.node, b=target.node)
    paths = tuple((source.places[i], target.places[j]) for i, j in found)
    return Lane(source, target, paths, failure, "absent" if failure is not None else "")
