"""NCCL as we measure it beside torch and nccl-tests, on a machine with a GPU; the same libnccl for all.

    mpirun -np 2 python3 tests/gpu/compare_nccl.py [OUT.json]     two ranks on one GPU, or one each
    python3 tests/gpu/compare_nccl.py --all-reduce-perf PATH      one rank, and nccl-tests' program beside it

Turns are alternated; the figure of a turn is the mean of many operations posted one after another, on the slowest rank.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZES = (8, 64 << 10, 1 << 20, 16 << 20, 256 << 20)
TURNS = 7
ITERATIONS = {8: 200, 64 << 10: 200, 1 << 20: 100, 16 << 20: 20, 256 << 20: 10}
TWO_ON_ONE = 16 << 20
"""Two ranks of one GPU talk through sockets: larger sizes take too long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?")
    parser.add_argument("--all-reduce-perf", type=Path)
    args = parser.parse_args()
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if comm.size > 1:
        os.environ["NCCL_HOSTID"] = f"rank{comm.rank}"  # else NCCL refuses two ranks on a GPU
    import torch
    import torch.distributed as dist

    from cwai_bench import native

    card = comm.rank % torch.cuda.device_count()
    torch.cuda.set_device(card)
    dist.init_process_group("nccl", init_method="tcp://127.0.0.1:29511", rank=comm.rank, world_size=comm.size)
    group = native.over_nccl(comm if comm.size > 1 else None, cards=[card], largest=max(SIZES))
    rows = []
    for size in SIZES:
        if comm.size > torch.cuda.device_count() and size > TWO_ON_ONE:
            continue
        iterations = ITERATIONS[size]
        send = torch.ones(size // 4, device="cuda")

        def ours(size: int = size, iterations: int = iterations) -> float:
            return group.measure(
                "all_reduce",
                bytes=size,
                in_place=True,
                iterations=iterations,
                warmup=5,
                verify=False,
                isolated=False,
                pipelined=True,
            ).pipelined

        def theirs(send: Any = send, iterations: int = iterations) -> float:
            for _ in range(5):
                dist.all_reduce(send)
            torch.cuda.synchronize()
            comm.Barrier()
            start = MPI.Wtime()
            for _ in range(iterations):
                dist.all_reduce(send)
            torch.cuda.synchronize()
            return (MPI.Wtime() - start) / iterations

        point = group.measure("all_reduce", bytes=size, in_place=True, iterations=5)
        wrong = comm.allreduce(sum(m.wrong or 0 for m in point.members))
        sides: dict[str, Callable[[], float]] = {"ours": ours, "torch": theirs}
        perf = args.all_reduce_perf
        if perf is not None and comm.size == 1:
            sides["nccl-tests"] = lambda size=size, iterations=iterations, perf=perf: _perf(perf, size, iterations)  # type: ignore[misc]
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(TURNS):
            names = list(sides)
            for name in names if turn % 2 == 0 else names[::-1]:
                taken[name].append(comm.allreduce(sides[name](), MPI.MAX))
        device = [float(x) for m in point.members for x in m.device]
        rows.append({"bytes": size, "wrong": wrong, "seconds": taken, "device": device})
        if comm.rank == 0:
            medians = {name: statistics.median(values) for name, values in taken.items()}
            told = "  ".join(f"{name} {value * 1e6:.2f} us" for name, value in medians.items())
            best = min(value for name, value in medians.items() if name != "ours")
            sys.stdout.write(f"{size:>10} B  wrong {wrong}  {told}  best other / ours {best / medians['ours']:.3f}\n")
    if comm.rank == 0 and args.out:
        found = {"library": group.library, "ranks": comm.size, "card": torch.cuda.get_device_name(card), "rows": rows}
        Path(args.out).write_text(json.dumps(found))
    comm.Barrier()
    dist.destroy_process_group()


def _perf(program: Path, size: int, iterations: int) -> float:
    """Seconds of an operation in place, as the program's table has it: the eleventh column is microseconds."""
    done = subprocess.run(
        [program, "-b", str(size), "-e", str(size), "-n", str(iterations), "-w", "5", "-c", "0", "-g", "1"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "PRTE_"))},
    )
    row = next(line for line in done.stdout.splitlines() if re.match(rf"\s+{size}\s", line)).split()
    return float(row[9]) * 1e-6


if __name__ == "__main__":
    main()
