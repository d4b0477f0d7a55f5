"""The compiled module as ``cwai_bench/native`` calls it. Written by hand; a test holds it to the signatures."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

__version__: str

class Error(Exception):
    fault: str
    errno: int
    subject: str
    vendor_code: str

class _Progress(TypedDict):
    phase: str
    what: str
    size: int
    iteration: int

class _Clock(TypedDict):
    resolution: float
    overhead: float

class _Interface(TypedDict):
    name: str
    address: str
    prefix: int
    v6: bool
    up: bool
    loopback: bool

class _Backend(TypedDict):
    name: str
    built: bool
    loadable: bool
    present: bool
    library: str
    loader: str
    devices: list[str]

class _Bandwidth(TypedDict):
    samples: NDArray[np.float64]
    bytes: int
    messages: int
    elapsed: float
    warmup_messages: int
    wrong: int
    first_bad: int
    peer_bytes: int
    peer_elapsed: float

class _RdmaBandwidth(_Bandwidth):
    memory: str

class _PathEvent(TypedDict):
    at: float
    path: int
    state: str
    cause: str
    code: int
    connection: int

class _PathSent(TypedDict):
    sent: int
    delivered: int
    again: int
    lost: int
    stalls: int
    failures: int
    state: str
    connected: bool
    timeline: NDArray[np.uint64]

class _MultipathSent(TypedDict):
    times: NDArray[np.float64]
    delivered: int
    start: float
    step: float
    recovered: float
    paths: list[_PathSent]
    events: list[_PathEvent]
    ended: tuple[str, str, int]

class _PathReceived(TypedDict):
    bytes: int
    twice: int
    corrupt: int
    broken: int

class _MultipathReceived(TypedDict):
    complete: int
    wrong: int
    first_bad: int
    paths: list[_PathReceived]
    events: list[_PathEvent]
    ended: tuple[str, str, int]

class _Latency(TypedDict):
    samples: NDArray[np.float64]
    wrong: int
    first_bad: int

class _Point(TypedDict):
    bytes: int
    count: int
    warmup: int
    wrong: list[int]
    first_bad: list[int]
    times: NDArray[np.float64]
    posts: NDArray[np.float64]
    device: list[NDArray[np.float64]]
    lateness: list[NDArray[np.float64]]
    pipelined: float
    graphed: float
    pipelined_iterations: int

class _Gpu(TypedDict):
    ordinal: int
    name: str
    pci: str
    memory_total: int
    memory_free: int
    multiprocessors: int
    major: int
    minor: int
    l2_bytes: int

class _GpuCopy(TypedDict):
    samples: NDArray[np.float64]
    wrong: int
    first_bad: int

class _GpuPeerCopy(_GpuCopy):
    direct: bool

class _GpuGemm(TypedDict):
    supported: bool
    library: str
    samples: NDArray[np.float64]
    tried: int
    transposed: bool

class _GpuCompute(TypedDict):
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

class _GpuMemory(TypedDict):
    bytes: int
    passes: int
    slowest: float
    wrong: int
    first_bad: int
    expected: int
    found: int

def fault_names() -> list[str]: ...
def stop() -> None: ...
def clear_stop() -> None: ...
def stop_requested() -> bool: ...
def progress() -> _Progress: ...
def clock() -> _Clock: ...
def crc32c(*, data: bytes, seed: int = 0) -> int: ...
def interfaces() -> list[_Interface]: ...
def backends(*, mpi_directories: list[str]) -> list[_Backend]: ...
def connect(
    *, address: str, port: int, token: bytes, lanes: int, spin: bool, source: str, timeout: float
) -> Connection: ...
def verbs_over(
    *,
    control: Connection,
    device: str,
    port: int,
    gid_index: int,
    lanes: int,
    service_level: int,
    traffic_class: int,
    timeout_exponent: int,
    retries: int,
    spin: bool,
    timeout: float,
) -> Connection: ...
def queue_pairs(
    *,
    control: Connection,
    device: str,
    port: int,
    gid_index: int,
    count: int,
    mtu: int,
    service_level: int,
    traffic_class: int,
    timeout_exponent: int,
    retries: int,
    depth: int,
    post_list: int,
    inline_size: int,
    relaxed_ordering: bool,
    huge_pages: bool,
    cold: bool,
    gpu: str,
    timeout: float,
) -> QueuePairs: ...
def memory_pair(*, lanes: int, spin: bool) -> tuple[Connection, Connection]: ...
def gpus() -> list[_Gpu]: ...
def npus() -> int: ...
def gpu_copy(
    *,
    gpu: int,
    bytes: int,
    streams: int,
    duration: float,
    least: int,
    most: int,
    seed: int,
    timeout: float,
) -> _GpuCopy: ...
def gpu_host_copy(
    *,
    gpu: int,
    direction: str,
    bytes: int,
    duration: float,
    least: int,
    most: int,
    seed: int,
    timeout: float,
) -> _GpuCopy: ...
def gpu_peer_copy(
    *,
    source: int,
    target: int,
    direction: str,
    bytes: int,
    duration: float,
    least: int,
    most: int,
    seed: int,
    timeout: float,
) -> _GpuPeerCopy: ...
def gpu_gemm(
    *,
    gpu: int,
    libraries: list[str],
    precision: str,
    size: int,
    duration: float,
    least: int,
    most: int,
    seed: int,
    timeout: float,
) -> _GpuGemm: ...
def gpu_compute(
    *,
    gpu: int,
    libraries: list[str],
    precision: str,
    size: int,
    duration: float,
    least: int,
    most: int,
    seed: int,
    timeout: float,
) -> _GpuCompute: ...
def gpu_memory(*, gpu: int, share: float, passes: int, seed: int, timeout: float) -> _GpuMemory: ...

class Connection:
    @property
    def transport(self) -> str: ...
    @property
    def lanes(self) -> int: ...
    @property
    def local(self) -> str: ...
    @property
    def remote(self) -> str: ...
    def close(self) -> None: ...
    def bandwidth(
        self,
        *,
        size: int,
        sends: bool,
        receives: bool,
        duration: float,
        messages: int,
        warmup: float,
        warmup_messages: int,
        interval: float,
        verify: bool,
        seed: int,
        cpu: int,
        timeout: float,
    ) -> _Bandwidth: ...
    def latency(
        self,
        *,
        size: int,
        initiates: bool,
        iterations: int,
        duration: float,
        warmup: int,
        verify: bool,
        seed: int,
        cpu: int,
        timeout: float,
    ) -> _Latency: ...

class QueuePairs:
    device: str
    port: int
    gid_index: int
    gid: str
    mtu: int
    ethernet: bool
    v2: bool
    remote: str
    def close(self) -> None: ...
    def bandwidth(
        self,
        *,
        verb: str,
        size: int,
        initiates: bool,
        two_way: bool,
        duration: float,
        messages: int,
        warmup: float,
        warmup_messages: int,
        interval: float,
        verify: bool,
        seed: int,
        cpu: int,
        timeout: float,
    ) -> _RdmaBandwidth: ...
    def latency(
        self,
        *,
        verb: str,
        size: int,
        initiates: bool,
        iterations: int,
        duration: float,
        warmup: int,
        verify: bool,
        seed: int,
        cpu: int,
        timeout: float,
    ) -> _Latency: ...

class Listener:
    def __init__(self, *, address: str, port: int, attempts: int) -> None: ...
    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...
    def strangers(self) -> list[tuple[str, str]]: ...
    def accept(self, *, token: bytes, lanes: int, spin: bool, timeout: float) -> Connection: ...

class PathListeners:
    def __init__(self, *, addresses: list[str], nics: list[tuple[str, int, int, int, int]]) -> None: ...
    @property
    def ports(self) -> list[int]: ...
    def receive(
        self, *, token: bytes, bytes: int, transfers: int, block: int, connections: int, seed: int, timeout: float
    ) -> _MultipathReceived: ...

def multipath_send(
    *,
    routes: list[tuple[str, str, int]],
    nics: list[tuple[str, int, int, int, int]],
    token: bytes,
    policy: str,
    weights: list[float],
    bytes: int,
    transfers: int,
    block: int,
    connections: int,
    longest_run: int,
    horizon: float,
    stall: float,
    duplicates: float,
    resend: bool,
    rehearsals: list[tuple[int, str, float, float, float]],
    seed: int,
    connect_timeout: float,
    timeout: float,
) -> _MultipathSent: ...
def hccl_path(*, library: str) -> str: ...

class Collective:
    @staticmethod
    def mpi(*, mpi: dict[str, object], largest: int) -> Collective: ...
    @staticmethod
    def nccl(
        *,
        mpi: dict[str, object] | None,
        cards: list[int],
        library: str,
        collnet: int,
        registered: bool,
        largest: int,
        timeout: float,
    ) -> Collective: ...
    @staticmethod
    def loopback(*, members: int, largest: int) -> Collective: ...
    @property
    def size(self) -> int: ...
    @property
    def members(self) -> list[int]: ...
    @property
    def library(self) -> str: ...
    @property
    def broken(self) -> bool: ...
    @property
    def clock(self) -> tuple[float, float]: ...
    @property
    def buffers(self) -> tuple[list[int], list[int]]: ...
    def can(self, *, operation: str, dtype: str, reduction: str, in_place: bool) -> bool: ...
    def measure(
        self,
        *,
        operation: str,
        dtype: str,
        reduction: str,
        root: int,
        in_place: bool,
        bytes: int,
        iterations: int,
        least: int,
        most: int,
        limit: float,
        warmup: int,
        verify: bool,
        seed: int,
        isolated: bool,
        pipelined: bool,
        graph: bool,
        late: float,
        timeout: float,
    ) -> _Point: ...
