"""Transfers over several RDMA paths: which ports they are, and what comes of them on a stand-in libibverbs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cwai_bench.errors import UsageError
from cwai_bench.native import POLICIES
from cwai_bench.probes import Rails, World
from cwai_bench.probes.lanes import RdmaPlace, Site, lanes_of
from cwai_bench.probes.nic import Place
from cwai_bench.text import Text
from tests.unit.ranks import planned

ROOT = Path(__file__).resolve().parents[2]
TWO = Rails(("mlx5_0", "mlx5_1"))
PAIR = World(2, ("n1", "n2"), True, (TWO, TWO))
NONE = Rails(why_none=Text("it has no active RDMA port", "没有处于活动状态的 RDMA 端口"))

# ---------------------------------------------------------------------------------------------- plan


def test_tcp_is_what_is_measured_unless_rdma_is_asked_for() -> None:
    for transport in ("auto", "tcp"):
        (spec,), _ = planned("multipath.as_is", PAIR, transport=transport)
        assert spec.parameters["transport"] == "tcp"
    (spec,), _ = planned("multipath.as_is", PAIR, transport="verbs", device=("mlx5_1",), qp_timeout=18)
    given = spec.parameters
    assert (given["transport"], given["device"], given["qp_timeout"]) == ("verbs", "mlx5_1", 18)


@pytest.mark.parametrize(
    ("world", "options", "said"),
    [
        (World(2, ("n1", "n2"), True, (NONE, NONE)), {}, "no RDMA on n1: it has no active RDMA port"),
        (PAIR, {"device": ("mlx5_9",)}, "--device: no node has an RDMA NIC 'mlx5_9'"),
        (PAIR, {"interfaces": ("eth0",)}, "--interface"),
        (PAIR, {"transport": "tcp", "device": ("mlx5_0",)}, "--device"),
        (PAIR, {"transport": "tcp", "as_node": ("mlx5_0=a",)}, "--as-node"),
        (PAIR, {"as_node": ("mlx5_0=a", "mlx5_1=b")}, "--as-node"),
        (PAIR, {"from_ends": ("n3",)}, "--from: there is no node 'n3'"),
        (PAIR, {"qp_timeout": 32}, "--qp-timeout"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name_and_the_next_step(
    world: World, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        planned("multipath.as_is", world, **{"transport": "verbs", **options})
    assert said in refused.value.message.en
    assert refused.value.next_step is not None or "--qp-timeout" in said


# --------------------------------------------------------------------------------------------- paths


def site(node: str, rank: int, *ports: tuple[str, str], ways: tuple[str, ...] = ()) -> Site:
    places = tuple(RdmaPlace(name, address, 24, 1e9, name, 1, f"net-{name}") for name, address in ports)
    return Site(node, (rank,), places, None, tuple(Place(f"eth{i}", way, 24, 1e9) for i, way in enumerate(ways)))


def ends(sites: list[Site], **given: str) -> list[tuple[str, str, str, str]]:
    (lane,) = lanes_of(sites, {"transport": "verbs", "from": "n1", "to": "n2", **given})[0]
    return [(a.nic, a.address, b.nic, b.address) for a, b in lane.paths]


def test_rails_are_networks_and_each_meets_by_its_own() -> None:
    one = site("n1", 0, ("mlx5_0", "10.0.0.1"), ("mlx5_1", "10.0.1.1"))
    other = site("n2", 1, ("mlx5_0", "10.0.1.2"), ("mlx5_1", "10.0.0.2"))
    assert ends([one, other]) == [
        ("mlx5_0", "10.0.0.1", "mlx5_1", "10.0.0.2"),
        ("mlx5_1", "10.0.1.1", "mlx5_0", "10.0.1.2"),
    ]


def test_ports_without_addresses_are_paired_by_name_and_meet_as_the_nodes_do() -> None:
    one = site("n1", 0, ("mlx5_0", ""), ("mlx5_1", ""), ways=("192.168.0.1",))
    other = site("n2", 1, ("mlx5_1", ""), ("mlx5_0", ""), ways=("192.168.0.2",))
    met = ("192.168.0.1", "192.168.0.2")
    assert sorted(ends([one, other])) == [
        ("mlx5_0", met[0], "mlx5_0", met[1]),
        ("mlx5_1", met[0], "mlx5_1", met[1]),
    ]


def test_nodes_that_cannot_meet_are_told() -> None:
    sites = [site("n1", 0, ("mlx5_0", "")), site("n2", 1, ("mlx5_0", ""))]
    (lane,) = lanes_of(sites, {"transport": "verbs", "from": "", "to": ""})[0]
    assert lane.failure is not None
    assert "no NIC of n1 can meet one of n2" in lane.failure.en


# ------------------------------------------------------------------------------------------- measure

ADDRESSES = "fake0=127.0.0.1,fake1=127.0.0.2"


def told(stand_ins: Path, scenario: str, nodes: str, devices: str, **options: Any) -> dict[str, list[Any]]:
    """By type. A stall is long, since the machine may be busy."""
    given = {"repeat": 1, "size": 8 << 20, "stall": 5.0, "connections": 2, **options}
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.multipath_program", scenario, nodes, devices, json.dumps(given)],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(stand_ins), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Any]] = {"Measurement": [], "Transfer": [], "PathFault": []}
    for line in done.stdout.splitlines():
        kind, value = json.loads(line)
        found[kind].append(value)
    return found


def test_every_policy_over_two_ports_of_two_nodes(stand_ins: Path) -> None:
    found = told(stand_ins, "as_is", "n1,n2", ADDRESSES, from_ends=["n1"], to_ends=["n2"])
    assert all(m["status"] == "ok" and m["correct"] for m in found["Measurement"]), found["Measurement"]
    assert {m["parameters"]["transport"] for m in found["Measurement"]} == {"verbs"}
    assert {m["parameters"]["policy"] for m in found["Measurement"]} == {"alone", *POLICIES}
    alone = {m["subject"]["id"] for m in found["Measurement"] if m["parameters"]["policy"] == "alone"}
    assert alone == {"n1/fake0→n2/fake0", "n1/fake1→n2/fake1"}
    transfer = found["Transfer"][0]
    assert [path["connections"] for path in transfer["paths"]] == [2, 2]
    assert sum(sum(path["timeline"]) for path in transfer["paths"]) == 8 << 20


def test_ports_of_one_machine_may_pass_for_nodes(stand_ins: Path) -> None:
    given = {"as_node": ["fake0=a", "fake1=b"], "policies": ["pull"], "from_ends": ["a"], "to_ends": ["b"]}
    found = told(stand_ins, "as_is", "n1,n1", ADDRESSES, **given)
    assert all(m["status"] == "ok" and m["correct"] for m in found["Measurement"]), found["Measurement"]
    assert {m["subject"]["id"] for m in found["Measurement"]} == {"a→b", "a/fake0→b/fake1"}


def test_a_path_that_is_cut_is_survived_and_looked_into_by_the_names_of_its_ports(stand_ins: Path) -> None:
    # How fast a busy machine is changes from one transfer to the next: of several, one is cut in the midst.
    given = {"policies": ["pull"], "size": 64 << 20, "repeat": 4, "stall": 0.3, "from_ends": ["n1"], "to_ends": ["n2"]}
    found = told(stand_ins, "cut", "n1,n2", ADDRESSES, **given)
    together = [m for m in found["Measurement"] if m["metric"] == "multipath.transfer"]
    assert {(m["status"], m["correct"]) for m in together} == {("ok", True)}, together
    hits = {m["parameters"]["planted"] for m in together}
    assert hits <= {"n1/fake0→n2/fake0", "n1/fake1→n2/fake1"}
    rehearsed = [fault for fault in found["PathFault"] if fault.get("rehearsed")]
    assert rehearsed
    for fault in rehearsed:
        assert set(fault["paths"]) <= hits
        assert "→".join(fault["finding"]["ends"]) in fault["paths"]


def test_a_port_that_cannot_be_used_is_named_and_the_other_carries_all(stand_ins: Path) -> None:
    gone = "fake0=127.0.0.1,fake9=127.0.0.2"
    found = told(stand_ins, "as_is", "n1,n2", gone, policies=["pull"], from_ends=["n1"], to_ends=["n2"])
    broken = [m for m in found["Measurement"] if m["status"] != "ok"]
    assert {m["subject"]["id"] for m in broken} == {"n1/fake9→n2/fake9"}
    assert all("the RDMA device fake9 cannot be used: No such device" in m["reason"]["en"] for m in broken)
    (transfer,) = found["Transfer"]
    assert [(p["source"], p["connected"]) for p in transfer["paths"]] == [("n1/fake0", True), ("n1/fake9", False)]
    assert (transfer["delivered"], transfer["paths"][0]["delivered"]) == (8 << 20, 8 << 20)
    assert ["n1/fake9→n2/fake9"] in [fault["paths"] for fault in found["PathFault"]]
