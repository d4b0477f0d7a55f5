"""Run by every rank of one mpirun: our sweep and the plain C loop in turn, block by block. Rank 0 prints JSON lines.

A block's figure is the median of its iterations on the slowest rank.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

import numpy as np
from mpi4py import MPI

from cwai_bench import native
from tests.bench.pairs import alternate

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "alltoall", "reduce", "sendrecv")
"""In the order of the numbers in peer_mpi.c."""
IN_BLOCKS = ("all_gather", "reduce_scatter", "alltoall")
SIZES = tuple(8 << i for i in range(20))  # 8 B … 4 MiB
BLOCK_SECONDS = 0.01
WARMUP = 3


class Peer:
    """The C loop of ``path``, loaded into this process, over the buffers of ours: which pages of memory a program was
    given is worth several per cent from one start to the next, and is not what is compared here."""

    def __init__(self, path: str, comm: Any, buffers: tuple[int, int]) -> None:
        self._library = ctypes.CDLL(path)
        self._library.peer_start.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        self._check(self._library.peer_start(MPI._handleof(comm), *buffers))

    def measure(self, operation: str, count: int, iterations: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        samples = np.empty(iterations)
        into = samples.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        self._check(self._library.peer_measure(OPERATIONS.index(operation), count, WARMUP, iterations, into))
        return samples

    def _check(self, code: int) -> None:
        if code != MPI.SUCCESS:
            raise RuntimeError(MPI.Get_error_string(code))


def main() -> None:
    comm = MPI.COMM_WORLD
    pairs = int(sys.argv[2])
    sweep = native.over_mpi(comm, largest=max(SIZES))
    send, receive = sweep.buffers
    peer = Peer(sys.argv[1], comm, (send[0], receive[0]))
    for operation in OPERATIONS:
        for size in SIZES:
            once = sweep.measure(operation, bytes=size, limit=BLOCK_SECONDS, least=8, most=2000, verify=True)
            if once.members[0].wrong:
                raise RuntimeError(f"{operation} of {size} bytes gave wrong data")
            iterations = len(once.times)
            blocks = comm.size if operation in IN_BLOCKS else 1
            count = max(1, size // 4 // blocks)

            def we(operation: str = operation, size: int = size, iterations: int = iterations) -> float:
                point = sweep.measure(operation, bytes=size, iterations=iterations, warmup=WARMUP, verify=False)
                return float(np.median(point.times))

            def they(operation: str = operation, count: int = count, iterations: int = iterations) -> float:
                return float(np.median(peer.measure(operation, count, iterations)))

            chain = alternate(we, they, pairs, lambda: None)
            ranks = comm.gather((chain.ours, chain.peer))
            if ranks is not None:
                ours, theirs = ([max(block) for block in zip(*side, strict=True)] for side in zip(*ranks, strict=True))
                point = {"operation": operation, "bytes": once.bytes, "iterations": iterations}
                print(json.dumps({**point, "ours": ours, "peer": theirs}), flush=True)


if __name__ == "__main__":
    main()
