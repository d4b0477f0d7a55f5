"""``cwai-bench multipath`` over the queue pairs of a stand-in libibverbs (tests/cpp/fake_verbs.cpp, whose folder is in
LD_LIBRARY_PATH), ranks being threads: what they tell, as JSON lines.

Words: the scenario, the ranks' nodes, the RDMA devices of each node (with the address of its interface), and the
options as JSON.
"""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch

import msgspec

from cwai_bench.probes import Rails, World, hca
from cwai_bench.probes.nic import Place
from tests.unit.ranks import planned, told

PROBES = "cwai_bench.probes"


def main(scenario: str, nodes: tuple[str, ...], devices: dict[str, str], options: dict[str, Any]) -> None:
    ports = [hca.Port(name, name, 1, 1e9, (f"net-{name}",)) for name in devices]
    own = [Place(f"net-{name}", address, 8, 0.0) for name, address in devices.items() if address]
    names = tuple(dict.fromkeys(nodes))
    world = World(len(nodes), names, True, (Rails(tuple(devices)),) * len(names))
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    with (
        patch(f"{PROBES}.hca.ports", lambda: ports),
        patch(f"{PROBES}.hca.busy", lambda _ports: {}),
        patch(f"{PROBES}.lanes.places", lambda _interface: own),
        patch(f"{PROBES}.multipath.BLIND_PATIENCE", 2.0),
        patch(f"{PROBES}.transfer.CONNECTING_RDMA", 2.0),
    ):
        (spec,), _ = planned(f"multipath.{scenario}", world, scenarios=(scenario,), transport="verbs", **given)
        for one in told(f"multipath.{scenario}", nodes, spec, 60.0):
            sys.stdout.write(msgspec.json.encode([type(one).__name__, one]).decode() + "\n")


if __name__ == "__main__":
    main(
        sys.argv[1],
        tuple(sys.argv[2].split(",")),
        dict(word.split("=") for word in sys.argv[3].split(",")),
        msgspec.json.decode(sys.argv[4]),
    )
