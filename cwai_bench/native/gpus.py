"""Copies, matrix products and memory of this machine's GPUs and NPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cwai_bench.native.door import of_card

if TYPE_CHECKING:
    from cwai_bench.native.door import Samples


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU that this process sees (CUDA_VISIBLE_DEVICES has its say). ``pci`` as in sysfs; bytes.

    ``capability`` is the compute capability, ``9.0``.
    """

    ordinal: int
    name: str
    pci: str
    memory_total: int
    memory_free: int
    multiprocessors: int
    capability: str
    l2_bytes: int


def gpus() -> list[Gpu]:
    """All of them; none where the driver has none. DeviceError where there is no driver, or it does not start."""
    with of_card() as module:
        return [
            Gpu(capability=f"{told.pop('major')}.{told.pop('minor')}", **told)
            for told in ({**entry} for entry in module.gpus())
        ]


@dataclass(frozen=True)
class GpuCopy:
    """``samples`` are bytes per second that arrived, each way where it went both ways at once. ``wrong`` words of 8
    bytes were not as they should be afterwards, the first at ``first_bad`` (-1: none). ``direct``: of peers, without
    the host between them."""

    samples: Samples
    wrong: int
    first_bad: int
    direct: bool = True


def gpu_copy(
    *,
    gpu: int,
    bytes: int,
    streams: int = 1,
    duration: float = 0.2,
    least: int = 5,
    most: int = 10_000,
    seed: int = 1,
    timeout: float = 30.0,
) -> GpuCopy:
    """Copies of ``bytes`` (a multiple of 16) within a GPU's memory, in ``streams`` parts at once. The memory reads and
    writes each byte: it moves twice what the samples say."""
    with of_card() as module:
        return GpuCopy(
            **module.gpu_copy(
                gpu=gpu,
                bytes=bytes,
                streams=streams,
                duration=duration,
                least=least,
                most=most,
                seed=seed,
                timeout=timeout,
            )
        )


def gpu_host_copy(
    *,
    gpu: int,
    direction: str,
    bytes: int,
    duration: float = 0.2,
    least: int = 5,
    most: int = 10_000,
    seed: int = 1,
    timeout: float = 30.0,
) -> GpuCopy:
    """Between page-locked memory of the host and a GPU. ``direction``: there (to the GPU), back, both at once."""
    with of_card() as module:
        return GpuCopy(
            **module.gpu_host_copy(
                gpu=gpu,
                direction=direction,
                bytes=bytes,
                duration=duration,
                least=least,
                most=most,
                seed=seed,
                timeout=timeout,
            )
        )


def gpu_peer_copy(
    *,
    source: int,
    target: int,
    direction: str = "there",
    bytes: int,
    duration: float = 0.2,
    least: int = 5,
    most: int = 10_000,
    seed: int = 1,
    timeout: float = 30.0,
) -> GpuCopy:
    """From one GPU to another (``there``), or ``both`` ways at once."""
    with of_card() as module:
        return GpuCopy(
            **module.gpu_peer_copy(
                source=source,
                target=target,
                direction=direction,
                bytes=bytes,
                duration=duration,
                least=least,
                most=most,
                seed=seed,
                timeout=timeout,
            )
        )


@dataclass(frozen=True)
class GpuGemm:
    """``samples`` are floating-point operations per second. Not ``supported``: the library has no such product for this
    GPU. ``tried`` algorithms, of which the fastest was taken; ``transposed``: its first factor lies row by row."""

    supported: bool
    library: str
    samples: Samples
    tried: int
    transposed: bool


def gpu_gemm(
    *,
    gpu: int,
    libraries: list[str],
    precision: str,
    size: int = 8192,
    duration: float = 0.2,
    least: int = 3,
    most: int = 10_000,
    seed: int = 1,
    timeout: float = 30.0,
) -> GpuGemm:
    """The product of two square matrices of random numbers. ``precision``: fp64, fp32, tf32, bf16, fp16, fp8.
    ``libraries``: names or paths of cuBLASLt, of which the first that loads is used."""
    with of_card() as module:
        return GpuGemm(
            **module.gpu_gemm(
                gpu=gpu,
                libraries=libraries,
                precision=precision,
                size=size,
                duration=duration,
                least=least,
                most=most,
                seed=seed,
                timeout=timeout,
            )
        )


@dataclass(frozen=True)
class GpuCompute:
    """What became of the same product again and again.

    ``products`` were compared bit by bit with the first; in the last of them ``wrong`` words of 8 bytes differ. Of
    ``sampled`` elements of the first product that the CPU computed as well ``beyond`` are farther off than rounding
    explains; ``worst`` is the largest distance as a share of that bound. ``row`` and ``column`` (-1: none) are of the
    first bad element: what it was at ``first``, ``later``, and as the CPU has it.
    """

    supported: bool
    library: str
    products: int
    sampled: int
    beyond: int
    worst: float
    wrong: int
    row: int
    column: int
    first: float
    later: float
    exact: float


def gpu_compute(
    *,
    gpu: int,
    libraries: list[str],
    precision: str,
    size: int = 8192,
    duration: float = 0.5,
    least: int = 3,
    most: int = 1_000_000,
    seed: int = 1,
    timeout: float = 30.0,
) -> GpuCompute:
    """Whether a GPU computes the same each time, and the right thing. Arguments are those of :func:`gpu_gemm`."""
    with of_card() as module:
        return GpuCompute(
            **module.gpu_compute(
                gpu=gpu,
                libraries=libraries,
                precision=precision,
                size=size,
                duration=duration,
                least=least,
                most=most,
                seed=seed,
                timeout=timeout,
            )
        )


@dataclass(frozen=True)
class GpuMemoryCheck:
    """``bytes`` of memory were written and read back ``passes`` times, the slowest at ``slowest`` bytes per second.
    ``wrong`` words of 8 bytes differ, the first at the offset ``first_bad`` (-1: none), where ``found`` was read for
    ``expected``."""

    bytes: int
    passes: int
    slowest: float
    wrong: int
    first_bad: int
    expected: int
    found: int


def gpu_memory(
    *, gpu: int, share: float = 0.9, passes: int = 4, seed: int = 1, timeout: float = 30.0
) -> GpuMemoryCheck:
    """Writes ``share`` of the memory that is free and reads it back; every second pass turns all bits over."""
    with of_card() as module:
        return GpuMemoryCheck(**module.gpu_memory(gpu=gpu, share=share, passes=passes, seed=seed, timeout=timeout))
