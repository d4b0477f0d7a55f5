"""Collective operations of MPI, NCCL, HCCL, and of threads of this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwai_bench.errors import UsageError
from cwai_bench.native.door import SEE_NPU, compiled, of_card, translated
from cwai_bench.native.machine import backends
from cwai_bench.text import Text

if TYPE_CHECKING:
    from cwai_bench.native.door import Samples

ELEMENTS = {
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "float8_e4m3": 1,
    "float8_e5m2": 1,
}
"""Every type of element with its size in bytes; which of them a library knows is told by :meth:`Collective.can`."""
REDUCTIONS = ("sum", "prod", "max", "min", "avg", "premulsum")


@dataclass(frozen=True)
class CollectiveMember:
    """What one member of the group, driven by this process, saw of a point.

    ``wrong`` elements arrived wrong in a call of its own before the timed ones, the first at ``first_bad`` (-1: none);
    None where nothing was verified. By isolated iteration, in seconds: ``device``, what its card says the operation
    took (empty where there is no card), and ``lateness``, by how much it came later than the first of all members.
    """

    rank: int
    wrong: int | None
    first_bad: int
    device: Samples
    lateness: Samples


@dataclass(frozen=True)
class CollectivePoint:
    """One operation at one size. ``bytes`` is the size that was used, ``count`` the elements of a block.

    ``times`` are seconds of each isolated iteration: from leaving the barrier to the completion of this process's part;
    of these, ``posts`` until the call came back. ``pipelined`` is the mean of ``pipelined_iterations`` posted one after
    another, as nccl-tests has it, ``graphed`` the same of one CUDA graph; 0 where not measured.
    """

    bytes: int
    count: int
    warmup: int
    times: Samples
    posts: Samples
    members: tuple[CollectiveMember, ...]
    pipelined: float
    graphed: float
    pipelined_iterations: int


class Collective:
    """A group of one collective library, over which operations are verified and timed. Made by :func:`over_mpi`,
    :func:`over_loopback`; one thread of each process drives it, and all processes call the same methods."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self.named = ""
        """What it is called, where somebody knows better than the library's own number."""
        self.cards: tuple[str, ...] = ()
        """The card of each member of this process, as facts call it; empty where data is in the host's memory."""

    @property
    def size(self) -> int:
        """Members of the group, over all processes."""
        return int(self._group.size)

    @property
    def members(self) -> tuple[int, ...]:
        """Those that this process drives."""
        return tuple(self._group.members)

    @property
    def library(self) -> str:
        """As it names itself, with its version."""
        # MPI says a line of many words: the first part tells which it is.
        return self.named or " ".join(str(self._group.library).partition(",")[0].split())

    @property
    def broken(self) -> bool:
        """True after an operation was aborted: the group can do nothing more."""
        return bool(self._group.broken)

    @property
    def clock(self) -> tuple[float, float]:
        """Seconds that this process's clock is behind that of process 0, and by how much that may be wrong."""
        behind, uncertainty = self._group.clock
        return float(behind), float(uncertainty)

    @property
    def buffers(self) -> tuple[list[int], list[int]]:
        """Addresses of what each member of this process sends and receives."""
        send, receive = self._group.buffers
        return send, receive

    def can(self, operation: str, *, dtype: str = "float32", reduction: str = "sum", in_place: bool = False) -> bool:
        """Whether the library has this; the reduction counts only where there is one."""
        with translated():
            return bool(self._group.can(operation=operation, dtype=dtype, reduction=reduction, in_place=in_place))

    def measure(
        self,
        operation: str,
        *,
        bytes: int,
        dtype: str = "float32",
        reduction: str = "sum",
        root: int = 0,
        in_place: bool = False,
        iterations: int = 0,
        least: int = 5,
        most: int = 2000,
        limit: float = 0.05,
        warmup: int = 5,
        verify: bool = True,
        seed: int = 1,
        isolated: bool = True,
        pipelined: bool = False,
        graph: bool = False,
        late: float = 0.0,
        timeout: float = 60.0,
    ) -> CollectivePoint:
        """Every process calls it with the same values, but for ``late``: by so many seconds this one comes later to
        each isolated iteration (a rehearsal). ``iterations`` 0: as many as fit into ``limit`` seconds, at least
        ``least`` and at most ``most``; the slowest process decides for all. Raises DeviceError for what the library
        cannot do (:meth:`can`) or refused."""
        with translated():
            found = self._group.measure(
                operation=operation,
                dtype=dtype,
                reduction=reduction,
                root=root,
                in_place=in_place,
                bytes=bytes,
                iterations=iterations,
                least=least,
                most=most,
                limit=limit,
                warmup=warmup,
                verify=verify,
                seed=seed,
                isolated=isolated,
                pipelined=pipelined,
                graph=graph,
                late=late,
                timeout=timeout,
            )
        nothing = self._nothing()
        return CollectivePoint(
            bytes=found["bytes"],
            count=found["count"],
            warmup=found["warmup"],
            times=found["times"],
            posts=found["posts"],
            members=tuple(
                CollectiveMember(
                    rank,
                    found["wrong"][i] if verify else None,
                    found["first_bad"][i] if verify else -1,
                    found["device"][i] if found["device"] else nothing,
                    found["lateness"][i] if found["lateness"] else nothing,
                )
                for i, rank in enumerate(self.members)
            ),
            pipelined=found["pipelined"],
            graphed=found["graphed"],
            pipelined_iterations=found["pipelined_iterations"],
        )

    @staticmethod
    def _nothing() -> Samples:
        import numpy as np

        return np.empty(0)


def over_mpi(comm: Any, *, largest: int, reductions: dict[str, Any] | None = None) -> Collective:
    """The collectives of the MPI that mpi4py has loaded, over a duplicate of ``comm``. Collective.

    ``largest`` bytes is the most that a point may ask for: the buffers are made once. ``reductions``: mpi4py Ops by our
    names, in place of MPI's own, for a test that wants wrong answers.
    """
    with translated() as module:
        return Collective(module.Collective.mpi(mpi=_mpi_handles(comm, reductions or {}), largest=largest))


def over_nccl(
    comm: Any,
    *,
    cards: Sequence[int],
    largest: int,
    library: str = "",
    sharp: bool | None = None,
    registered: bool = False,
    timeout: float = 60.0,
) -> Collective:
    """The collectives of NCCL, or of a library with its binary interface, over ``cards``: ordinals of the GPUs that
    this process sees; a member of the group each. Collective over ``comm``, None for one process alone.

    ``library`` is a path, empty for libnccl.so.2 as the loader, or this Python's own packages, have it. ``sharp``: with
    or without it, None as the library will have it. ``registered``: its buffers are made known to it beforehand.
    """
    if not library and not any(b.loadable for b in backends() if b.name == "nccl"):
        library = _packaged("nvidia/nccl/lib/libnccl.so.2")
    with translated() as module:
        return Collective(
            module.Collective.nccl(
                mpi=None if comm is None else _mpi_handles(comm, {}),
                cards=list(cards),
                library=library,
                collnet=-1 if sharp is None else int(sharp),
                registered=registered,
                largest=largest,
                timeout=timeout,
            )
        )


def npus() -> int:
    """How many Ascend NPUs this process sees; DeviceError or LibraryError without the runtime of their toolkit."""
    with of_card(SEE_NPU) as module:
        return int(module.npus())


def hccl_path(library: str = "") -> str:
    """The path of the libhccl that :func:`over_hccl` would use, which is loaded."""
    with of_card(SEE_NPU) as module:
        return str(module.hccl_path(library=library))


def over_hccl(comm: Any, *, cards: Sequence[int], largest: int, library: str = "", timeout: float = 60.0) -> Collective:
    """The collectives of HCCL over ``cards``: ordinals of the NPUs that this process sees; a member of the group each.
    Collective over ``comm``, None for one process alone. ``library`` is a path, empty for libhccl.so as the loader, or
    the toolkit that ``ASCEND_HOME_PATH`` names, has it."""
    with of_card(SEE_NPU) as module:
        return Collective(
            module.Collective.hccl(
                mpi=None if comm is None else _mpi_handles(comm, {}),
                cards=list(cards),
                library=library,
                largest=largest,
                timeout=timeout,
            )
        )


def _packaged(relative: str) -> str:
    """A library of NVIDIA's Python packages beside this Python; empty where there is none."""
    import sysconfig

    path = Path(sysconfig.get_path("purelib")) / relative
    return str(path) if path.exists() else ""


def net_plugin() -> Path:
    """The packaged net plugin of NCCL, ``libnccl-net-cwai.so``. Raises UsageError when it is not there."""
    plugin = Path(str(compiled().__file__)).parent / "lib" / "libnccl-net-cwai.so"
    if plugin.is_file():
        return plugin
    raise UsageError(
        Text("{p} is missing", "缺少 {p}").fill(p=plugin),
        Text("install the package again: pip install .", "请重新安装本软件包：pip install ."),
    )


def over_loopback(members: int, *, largest: int) -> Collective:
    """``members`` in this process, done by the CPU: for a machine without MPI, and for tests."""
    with translated() as module:
        return Collective(module.Collective.loopback(members=members, largest=largest))


def _mpi_handles(comm: Any, reductions: dict[str, Any]) -> dict[str, Any]:
    """What the compiled module needs of mpi4py. MPI has no standard types for the small floats."""
    from mpi4py import MPI

    handle = MPI._handleof
    elements = {
        "int8": MPI.INT8_T,
        "uint8": MPI.UINT8_T,
        "int16": MPI.INT16_T,
        "uint16": MPI.UINT16_T,
        "int32": MPI.INT32_T,
        "uint32": MPI.UINT32_T,
        "int64": MPI.INT64_T,
        "uint64": MPI.UINT64_T,
        "float32": MPI.FLOAT,
        "float64": MPI.DOUBLE,
    }
    ops = {"sum": MPI.SUM, "prod": MPI.PROD, "max": MPI.MAX, "min": MPI.MIN, **reductions}
    return {
        "comm": handle(comm),
        "elements": {name: handle(kind) for name, kind in elements.items()},
        "reductions": {name: handle(op) for name, op in ops.items()},
        "byte": handle(MPI.BYTE),
        "min": handle(MPI.MIN),
        "max": handle(MPI.MAX),
        "errors_return": handle(MPI.ERRORS_RETURN),
    }
