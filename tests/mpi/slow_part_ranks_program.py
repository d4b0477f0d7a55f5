"""What test_slow_part_ranks.py runs on every rank: the search over real communicators, of a library whose figures are
made up. ``slow_part_ranks_program.py NODES PLANTED``: NODES names the node of each rank (``a,a,b,b``); PLANTED is a
rank (``3``) or two (``1-2``) with which a group reaches half. Rank 0 prints its measurements as JSON.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import mpi4py
import msgspec

mpi4py.rc.initialize = False
from mpi4py import MPI  # noqa: E402

from cwai_bench.launch.world import MpiGroup  # noqa: E402
from cwai_bench.model import ProbeSpec  # noqa: E402
from cwai_bench.probes import Context, Options, World  # noqa: E402
from cwai_bench.probes.collective import LIBRARIES, _find_slow_part, _plan_slow_part  # noqa: E402


def main() -> None:
    MPI.Init()
    comm = MPI.COMM_WORLD
    nodes = tuple(sys.argv[1].split(","))
    planted = {int(rank) for rank in sys.argv[2].split("-")}

    class MadeUp:
        def __init__(self, own: Any) -> None:
            self.size = own.size
            self.ranks = set(own.allgather(comm.rank))

        def measure(self, operation: str, *, bytes: int, **_: object) -> SimpleNamespace:
            assert operation == "all_reduce"
            slow = planted <= self.ranks
            busbw = (5e9 if slow else 10e9) * (1 + 0.01 * (sum(self.ranks) % 3))
            return SimpleNamespace(
                bytes=bytes,
                members=[SimpleNamespace(wrong=0)],
                pipelined=bytes * 2 * (self.size - 1) / self.size / busbw,
            )

    library = replace(LIBRARIES["mpi"], join=lambda _ctx, own, _largest: MadeUp(own))  # type: ignore[arg-type,return-value]
    world = World(comm.size, tuple(dict.fromkeys(nodes)), True)
    (spec,) = _plan_slow_part(library, world, Options(find_slow=True, library="mpi"))
    assert isinstance(spec, ProbeSpec)
    told: list[Any] = []
    ctx = Context(
        MpiGroup(comm, nodes),
        spec,
        nodes[comm.rank],
        told.append,
        lambda _: None,
        time.monotonic() + 60,
    )
    _find_slow_part(library, ctx)
    every = comm.gather(told)
    if every is not None:
        sys.stdout.write(msgspec.json.encode([m for one in every for m in one]).decode() + "\n")
        sys.stdout.flush()
    MPI.Finalize()


if __name__ == "__main__":
    main()
