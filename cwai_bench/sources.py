"""What a check may ask of a node, and the shapes of the answers to calls.

Four kinds of source. All that they yield is text, so that a node can be recorded and read again::

    File("proc/meminfo")                                  one file below the root
    File("sys/devices/system/memory/memory*/state")       a glob: * and ? and [..] never cross a slash
    Command("systemctl", "is-system-running")             a command that only reads
    Each("hccn_tool", "-i", "{}", "-link", "-g", over="dev/davinci[0-9]*")     one command for each of several devices
    Call("limits")                                        a question put to the system; the answer is JSON

The answers' shapes stand here, below both rooms: ``discover`` writes them, ``checks`` reads them. A check asks for no
more than it needs: ``Steady…`` is an answer without what tells a node from its like or changes by the minute (serial
numbers, addresses, temperatures, counters), so that what is judged of one node holds for all that answer it alike.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from cwai_bench.model import Reading, ReadStatus

GLOB = re.compile(r"[*?\[]")
READ_TIMEOUT = 3.0
"""Seconds that one source may take unless it says otherwise. Reading is quick or stuck; there is little in between."""


@dataclass(frozen=True)
class File:
    """A path relative to the root, without a leading slash; a glob when it holds ``*``, ``?`` or ``[``."""

    path: str
    timeout: float = READ_TIMEOUT

    def __post_init__(self) -> None:
        if self.path.startswith("/") or ".." in self.path.split("/"):
            raise ValueError(f"{self.path!r}: a source is a path below the root")

    @property
    def key(self) -> str:
        return self.path

    @property
    def is_glob(self) -> bool:
        return GLOB.search(self.path) is not None


def matches(pattern: str, path: str) -> bool:
    """Whether a path is one that the glob ``pattern`` stands for."""
    wanted, parts = pattern.split("/"), path.split("/")
    return len(wanted) == len(parts) and all(map(fnmatch.fnmatchcase, parts, wanted))


@dataclass(frozen=True, init=False)
class Command:
    """A command that changes nothing, as a list of words: no shell.

    ``unless``: it says what that call says as well, and is run only where the call had no answer (see ``answered``).
    """

    argv: tuple[str, ...]
    timeout: float
    unless: str

    def __init__(self, *argv: str, timeout: float = READ_TIMEOUT, unless: str = "") -> None:
        if not argv or any(word.split() != [word] for word in argv):
            raise ValueError(f"{argv!r}: a command is a list of words without blanks")
        object.__setattr__(self, "argv", argv)
        object.__setattr__(self, "timeout", timeout)
        object.__setattr__(self, "unless", unless)

    @property
    def key(self) -> str:
        return "$ " + " ".join(self.argv)


DEVICE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}")
"""What a device may be called to be put into a command: never an option, never a blank."""


@dataclass(frozen=True, init=False)
class Each:
    """The same command once for each device. ``{}`` in a word stands for the name of the device: in the paths that
    match ``over``, what the first component with a wildcard holds from that wildcard on (``3`` of ``dev/davinci3``,
    ``eth0`` of ``sys/class/net/eth0/device``).

    Its reading lists the keys of the commands, one a line, as that of a glob lists paths.
    """

    argv: tuple[str, ...]
    over: str
    timeout: float

    def __init__(self, *argv: str, over: str, timeout: float = READ_TIMEOUT) -> None:
        if not any("{}" in word for word in argv):
            raise ValueError(f"{argv!r}: no word holds {{}}")
        if not File(over).is_glob:
            raise ValueError(f"{over!r} has no wildcard")
        Command(*argv)
        object.__setattr__(self, "argv", argv)
        object.__setattr__(self, "over", over)
        object.__setattr__(self, "timeout", timeout)

    @property
    def key(self) -> str:
        return "$ " + " ".join(self.argv)

    def command(self, name: str) -> Command:
        return _command_for(self, name)

    def name_in_path(self, path: str) -> str:
        """The name of the device of a path that matches ``over``; empty when it is none that a command may have."""
        for pattern, component in zip(self.over.split("/"), path.split("/"), strict=True):
            if wildcard := GLOB.search(pattern):
                name = component[wildcard.start() :]
                return name if DEVICE_NAME.fullmatch(name) else ""
        return ""

    def name_in_words(self, words: tuple[str, ...]) -> str:
        """The name of the device that ``words`` were made for by :meth:`command`; empty when they were not."""
        return device_in(self.argv, words)


@lru_cache(maxsize=1024)  # nodes of one kind have devices of the same names
def _command_for(each: Each, name: str) -> Command:
    return Command(*(word.replace("{}", name) for word in each.argv), timeout=each.timeout)


@lru_cache(maxsize=1024)
def device_in(template: tuple[str, ...], words: tuple[str, ...]) -> str:
    """What ``{}`` in ``template`` stands for in ``words``; empty when they are no words of it."""
    for ours, theirs in zip(template, words, strict=False):
        before, hole, after = ours.partition("{}")
        if hole and theirs.startswith(before) and theirs.endswith(after):
            name = theirs[len(before) : len(theirs) - len(after)]
            if DEVICE_NAME.fullmatch(name) and tuple(word.replace("{}", name) for word in template) == words:
                return name
    return ""


@dataclass(frozen=True)
class Call:
    """A question put to the system, answered by a function of ``discover`` registered under ``name``."""

    name: str
    timeout: float = READ_TIMEOUT

    @property
    def key(self) -> str:
        return f"call:{self.name}"


Source = File | Command | Each | Call


# ------------------------------------------------------------------------------- answers: kernel and processes


class SteadyHost(msgspec.Struct, frozen=True):
    """``uname(2)`` and what a process is told about the machine."""

    release: str
    version: str
    machine: str
    page_size: int
    timezone: str
    """Name and offset, as in ``CST +0800``."""
    python: str
    libc: str


class Host(SteadyHost, frozen=True, kw_only=True):
    """With its name and age. ``boot`` and ``taken`` are seconds since the epoch."""

    hostname: str
    boot: float
    taken: float


class Limits(msgspec.Struct, frozen=True):
    """``getrlimit(2)`` by name (``nofile``, ``memlock`` …): soft, hard; -1 is unlimited."""

    limits: dict[str, tuple[int, int]]
    ipc_lock: bool
    """True when CAP_IPC_LOCK is in force: then memlock binds nobody."""


class Stuck(msgspec.Struct, frozen=True):
    """A process that stayed in one and the same uninterruptible sleep over the whole look."""

    pid: int
    name: str
    wchan: str


class Processes(msgspec.Struct, frozen=True):
    """All processes, looked at several times within ``looked`` seconds. Names are those of ``/proc/PID/stat``."""

    total: int
    states: dict[str, int]
    stuck: list[Stuck]
    zombies: list[str]
    looked: float
    hidden: bool
    """True when /proc shows only one's own processes (hidepid)."""


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """``time``: seconds since the epoch; ``level``: syslog level 0 (worst) to 7, -1 when not known."""

    time: float
    level: int
    text: str


class KernelLog(msgspec.Struct, frozen=True):
    """The kernel's log, oldest first. ``came_from``: how it was read. ``cut``: older lines were left out."""

    came_from: str
    taken: float
    lines: list[LogLine]
    cut: bool = False


class Clock(msgspec.Struct, frozen=True):
    """``adjtimex(2)``. Seconds; ``state`` 5 is TIME_ERROR; ``status`` bit 0x40 is STA_UNSYNC."""

    state: int
    status: int
    offset: float
    max_error: float
    estimated_error: float


class Container(msgspec.Struct, frozen=True):
    """``kind``: empty on a host, else docker, podman, kubepods, lxc, other. ``vm``: the hypervisor, or empty.

    ``cpu_limit`` (CPUs) and ``memory_limit`` (bytes) are those of the control group, None when there is none.
    """

    kind: str
    because: str
    vm: str
    init: str
    """The name of process 1."""
    systemd: bool
    """True when systemd is the init system that one could ask (``/run/systemd/system``)."""
    cpu_limit: float | None
    memory_limit: int | None


class Crash(msgspec.Struct, frozen=True):
    """A record in persistent storage. ``modified``: seconds since the epoch."""

    name: str
    modified: float


class Pstore(msgspec.Struct, frozen=True):
    mounted: bool
    records: list[Crash]


# ------------------------------------------------------------------------------------ answers: CPU and memory


class Cpu(msgspec.Struct, frozen=True, array_like=True):
    """One CPU (a hardware thread) that is online; -1 where the kernel does not say."""

    cpu: int
    package: int
    die: int
    core: int


class Cpus(msgspec.Struct, frozen=True):
    """The CPUs of the host. ``governors`` and ``drivers``: name to how many CPUs use it.

    ``throttled``: for each package, milliseconds throttled since boot (absent where the kernel does not count).
    """

    possible: int
    present: int
    online: list[Cpu]
    offline: list[int]
    smt: str
    """``on``, ``off``, ``forceoff``, ``notsupported``, ``notimplemented``, or empty when the kernel does not say."""
    hybrid: bool
    governors: dict[str, int]
    drivers: dict[str, int]
    throttled: dict[str, int]
    model: str
    numa_nodes: int


class MemoryBlocks(msgspec.Struct, frozen=True):
    """``block_size`` bytes each. ``offline`` holds names (``memory41``)."""

    block_size: int
    online: int
    offline: list[str]


class Dimms(msgspec.Struct, frozen=True):
    """Installed memory as the hardware tells it. ``came_from``: ``edac`` or ``smbios``; sizes in bytes."""

    came_from: str
    sizes: list[int]


# ------------------------------------------------------------------------------------ answers: storage, network, PCI


class Filesystem(msgspec.Struct, frozen=True):
    """A mount of a real file system. ``status`` is ``ok``, ``denied``, ``timeout`` or ``error``: then the sizes are 0.

    ``shared``: it lives on other machines. ``read_only`` is this mount's, ``super_read_only`` the file system's own.
    """

    mount: str
    device: str
    type: str
    read_only: bool
    super_read_only: bool
    shared: bool = False
    size: int = 0
    free: int = 0
    available: int = 0
    """Bytes that a user without privilege may still write."""
    inodes: int = 0
    inodes_free: int = 0
    status: str = "ok"
    detail: str = ""


class Filesystems(msgspec.Struct, frozen=True):
    filesystems: list[Filesystem]
    shm: Filesystem | None


HOSTS_VARIABLE = "CWAI_BENCH_HOSTS"
"""The nodes of the run as a node set (``node[01-16],login1``), for who starts ranks: every node then asks for them
all."""


class Names(msgspec.Struct, frozen=True):
    """What the resolver answers for the names of the group, sorted; an empty list where it knows none.

    ``cut``: there were more names than are asked for.
    """

    answers: dict[str, list[str]]
    cut: bool = False


class RailPath(msgspec.Struct, frozen=True):
    """Whether packets of the MTU pass on one RoCE rail. ``target`` is empty when nobody is known to be asked.

    ``small`` and ``full``: whether a small packet, and one of ``mtu`` bytes that may not be split, was answered.
    ``gateway``: the target is the rail's gateway, not a neighbour. ``error``: why ping could not ask.
    """

    interface: str
    mtu: int
    target: str = ""
    gateway: bool = False
    small: bool = False
    full: bool = False
    error: str = ""


class RailPaths(msgspec.Struct, frozen=True):
    rails: list[RailPath]


class PythonPackage(msgspec.Struct, frozen=True, array_like=True):
    """``prefix``: the environment that it is installed in, such as ``/opt/conda``."""

    name: str
    version: str
    prefix: str


class PythonPackages(msgspec.Struct, frozen=True):
    """Packages of training that are installed, by their metadata. ``looked``: the folders that were there."""

    packages: list[PythonPackage]
    looked: list[str]


class Resolved(msgspec.Struct, frozen=True):
    """What this host's own name resolves to. ``local``: those of the addresses that are this host's own."""

    name: str
    addresses: list[str]
    error: str
    local: list[str]


class SteadyInterface(msgspec.Struct, frozen=True):
    """A network interface. ``speed`` in bits per second and ``duplex`` are None when the driver does not say.

    ``physical``: a device stands behind it. ``kind`` is ethernet, infiniband, loopback, or a number of ARPHRD_*.
    """

    name: str
    physical: bool
    kind: str
    operstate: str
    admin_up: bool
    carrier: bool | None
    mtu: int
    driver: str = ""
    model: str = ""
    """PCI vendor:device, as in ``15b3:101d``; empty when it is no PCI device."""
    virtual_function: bool = False
    speed: int | None = None
    duplex: str | None = None
    master: str = ""


class Interface(SteadyInterface, frozen=True, kw_only=True):
    """With its counters. ``carrier_changes`` since boot."""

    carrier_changes: int | None = None
    counters: dict[str, int] = {}


class SteadyNetwork(msgspec.Struct, frozen=True):
    interfaces: Sequence[SteadyInterface]
    rdma: list[str]
    """Names of RDMA devices (``/sys/class/infiniband``)."""


class Network(SteadyNetwork, frozen=True):
    interfaces: Sequence[Interface]


class PciDevice(msgspec.Struct, frozen=True):
    """A PCI device worth looking at: network, display, accelerator, storage, bridge.

    ``speed`` in transfers per second (16e9 is 16 GT/s) and ``width`` in lanes; 0 when there is no link.
    ``max_speed`` and ``max_width`` are the lesser of the device's and its port's.
    ``acs``: the ACS control register; None when there is none, or it may not be read.
    """

    address: str
    class_code: int
    model: str
    driver: str = ""
    numa_node: int = -1
    speed: float = 0.0
    width: int = 0
    max_speed: float = 0.0
    max_width: int = 0
    aer_correctable: int = 0
    aer_nonfatal: int = 0
    aer_fatal: int = 0
    acs: int | None = None
    behind: str = ""
    """Address of the port above; empty for the root."""
    max_payload: int | None = None
    max_read_request: int | None = None
    """Bytes, as set in Device Control; None of a bridge, or where the configuration space may not be read."""


class Pci(msgspec.Struct, frozen=True):
    devices: list[PciDevice]
    config_readable: bool
    """False when the extended configuration space may not be read (it needs root)."""
    iommu_groups: dict[str, int]
    """Type of the default domain (``DMA``, ``DMA-FQ``, ``identity``) to how many groups have it."""


class Modules(msgspec.Struct, frozen=True):
    """Versions of the loaded kernel modules that state one."""

    versions: dict[str, str]


# ----------------------------------------------------------------------------------------------- answers: RDMA devices


class Gid(msgspec.Struct, frozen=True, array_like=True):
    """An entry of a port's GID table that holds something. ``type``: ``IB/RoCE v1``, ``RoCE v2``, or empty."""

    index: int
    gid: str
    type: str = ""
    netdev: str = ""


class SteadyPort(msgspec.Struct, frozen=True):
    """A port of an RDMA device. What its driver does not say is empty.

    ``pkeys``: those that are set, by index. ``traffic_class``: as mlx5 prints it, ``Global tclass=106``.
    """

    port: int
    link_layer: str
    """``InfiniBand`` or ``Ethernet``."""
    state: str
    """``ACTIVE``, ``INIT``, ``DOWN`` …"""
    phys_state: str
    """``LinkUp``, ``Polling``, ``Disabled`` …"""
    rate: str
    """As the kernel prints it: ``400 Gb/sec (4X NDR)``."""
    sm_lid: int
    pkeys: dict[int, int] = {}
    traffic_class: str = ""


class RdmaPort(SteadyPort, frozen=True, kw_only=True):
    """With its addresses and its counters.

    ``before`` and ``after``: the counters (of ``counters`` and ``hw_counters``) at both ends of the look.
    """

    lid: int
    gids: list[Gid] = []
    before: dict[str, int] = {}
    after: dict[str, int] = {}


class SteadyRdmaDevice(msgspec.Struct, frozen=True):
    """An RDMA device. ``address``: of its PCI function, empty when it has none. ``netdevs``: its interfaces.

    ``verbs``: whether this user may open its device in /dev/infiniband: ``ok``, ``denied`` or ``missing``.
    """

    name: str
    ports: Sequence[SteadyPort]
    firmware: str = ""
    board: str = ""
    hca_type: str = ""
    address: str = ""
    numa_node: int = -1
    netdevs: list[str] = []
    virtual_function: bool = False
    verbs: str = "ok"


class RdmaDevice(SteadyRdmaDevice, frozen=True):
    ports: Sequence[RdmaPort]


class SteadyRdma(msgspec.Struct, frozen=True):
    """All RDMA devices. ``connection_manager``: /dev/infiniband/rdma_cm, as ``RdmaDevice.verbs``."""

    devices: Sequence[SteadyRdmaDevice]
    connection_manager: str = "ok"


class Rdma(SteadyRdma, frozen=True, kw_only=True):
    """``looked``: seconds between both readings of the counters."""

    devices: Sequence[RdmaDevice]
    looked: float


# ------------------------------------------------------------------------------------------------ answers: NVIDIA


class EccCounts(msgspec.Struct, frozen=True):
    """ECC errors of one card, by kind of memory. None: the card does not count them."""

    sram_corrected: int | None = None
    sram_uncorrected: int | None = None
    dram_corrected: int | None = None
    dram_uncorrected: int | None = None


class NvLinkErrors(msgspec.Struct, frozen=True, array_like=True):
    """Errors of a link since the driver was loaded; None where it does not count them."""

    replays: int | None = None
    recoveries: int | None = None
    crc_errors: int | None = None


class NvLink(msgspec.Struct, frozen=True):
    """One NVLink of one card. ``speed``: bytes per second and direction; errors since the driver was loaded.

    ``later``: the errors counted once more, ``Nvidia.looked`` seconds after. ``effective_ber`` and ``symbol_ber``:
    shares of bits that are wrong after error correction, of NVLink 5 and newer.
    """

    link: int
    up: bool
    speed: float | None = None
    replays: int | None = None
    recoveries: int | None = None
    crc_errors: int | None = None
    later: NvLinkErrors | None = None
    effective_ber: float | None = None
    symbol_ber: float | None = None


class NvidiaFabric(msgspec.Struct, frozen=True):
    """How a card joined the NVLink fabric. ``cluster`` and ``clique`` name the NVLink domain; ``trouble``: what the
    fabric's own health says is wrong."""

    state: str
    status: str
    cluster: str = ""
    clique: int | None = None
    trouble: list[str] = []


class NvidiaProcess(msgspec.Struct, frozen=True):
    pid: int
    name: str
    memory: int | None = None


class SteadyCard(msgspec.Struct, frozen=True):
    """One NVIDIA GPU. None: not said, or not supported. Bytes, seconds, watts, MHz, degrees Celsius.

    ``address`` is that of /sys/bus/pci (``0000:19:00.0``). ``links`` is None when NVLink was not asked about here.
    """

    address: str
    name: str
    vbios: str | None = None
    gsp: str | None = None
    inforom: str | None = None
    inforom_corrupt: bool | None = None
    persistence: bool | None = None
    mig: bool | None = None
    mig_pending: bool | None = None
    ecc: bool | None = None
    ecc_pending: bool | None = None
    ecc_volatile: EccCounts = EccCounts()
    ecc_aggregate: EccCounts = EccCounts()
    sram_threshold_exceeded: bool | None = None
    remapped_corrected: int | None = None
    remapped_uncorrected: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    retired_pages: int | None = None
    retirement_pending: bool | None = None
    recovery: str | None = None
    """What the driver wants done: ``None``, ``Reset``, ``Reboot``, ``Drain P2P``, ``Drain and Reset`` …"""
    memory_total: int | None = None
    power_limit: float | None = None
    power_default: float | None = None
    max_sm_clock: float | None = None
    max_memory_clock: float | None = None
    application_clock: float | None = None
    default_application_clock: float | None = None
    slowed_by: list[str] | None = None
    """Reasons, in force now, why clocks are lower than they could be (``hw_slowdown``, ``sw_thermal_slowdown`` …)."""
    slowed_for: dict[str, float] = {}
    """Seconds since the driver was loaded, by reason; empty where the driver does not count."""
    pcie_replays: int | None = None
    fabric: NvidiaFabric | None = None
    links: list[NvLink] | None = None


class NvidiaCard(SteadyCard, frozen=True, kw_only=True):
    """With what tells it from others of its kind, and what changes by the minute."""

    uuid: str = ""
    serial: str | None = None
    memory_used: int | None = None
    temperature: float | None = None
    margin: float | None = None
    """Degrees left until the card slows itself down."""
    memory_temperature: float | None = None
    power: float | None = None
    processes: list[NvidiaProcess] | None = None


class SteadyNvidia(msgspec.Struct, frozen=True):
    """What the NVIDIA driver says. ``code``: the error of NVML when it could not be asked (then ``error`` names it); -1
    when there is no nvidia-ml-py. ``lost``: cards that the driver lists and cannot reach. ``looked``: whole
    seconds between both readings of the errors of the links; 0 when they were read but once."""

    driver: str
    cuda: str
    cards: Sequence[SteadyCard]
    lost: list[str] = []
    error: str = ""
    code: int = 0
    looked: int = 0


NO_PYTHON_LIBRARY, NO_DRIVER_LIBRARY = -1, 12
"""Codes of an answer that only says that NVML could not be asked: nvidia-ml-py or libnvidia-ml.so is not here."""


def answered(reading: Reading) -> bool:
    """Whether a call had an answer, so that a command with ``unless`` need not be run.

    One that took too long had none, but who says the same would take as long.
    """
    if reading.status in ("missing", "error"):
        return False
    if reading.source != "call:nvml" or reading.status != "ok":
        return True
    try:
        return msgspec.json.decode(reading.text, type=Nvidia).code not in (NO_PYTHON_LIBRARY, NO_DRIVER_LIBRARY)
    except (msgspec.DecodeError, RecursionError):
        return False


class Nvidia(SteadyNvidia, frozen=True):
    cards: Sequence[NvidiaCard]


class CudaEnvironment(msgspec.Struct, frozen=True):
    """Variables, of a short list, that change how CUDA works and are set for this process."""

    values: dict[str, str]


# ------------------------------------------------------------------------------------------ answers: NCCL and its like

PROCESS_VARIABLE = "CWAI_BENCH_NCCL_PROCESS"
"""The number of a process: then it is asked what that one has loaded and was started with, in place of what a job
started here would load."""


class NcclLine(msgspec.Struct, frozen=True, array_like=True):
    """A line of a file of settings; ``name`` is None where NCCL passes it over. Of names that are not kept (see
    ``nccl_settings.kept``) the value is empty."""

    number: int
    name: str | None
    value: str


class NcclFile(msgspec.Struct, frozen=True):
    """A file of settings. ``asked``: NCCL_CONF_FILE names it, so that it should be there."""

    path: str
    status: ReadStatus
    lines: list[NcclLine] = []
    asked: bool = False
    detail: str = ""


class NcclSettings(msgspec.Struct, frozen=True):
    """What is set for NCCL: the environment as far as it is kept, then the files in the order in which NCCL reads them.

    ``log``: whether the folder of NCCL_DEBUG_FILE can be written: ``ok``, ``missing``, ``denied``; empty where no file
    is named, or that of another process is meant.
    """

    environment: dict[str, str]
    files: list[NcclFile]
    log: str = ""


class NcclLibrary(msgspec.Struct, frozen=True):
    """A file of the library. ``line``: its version, as ``collective_library`` has it. ``variables`` and ``tables``: the
    names that it asks the environment for, and those of plugins' tables; told only of those that are used.
    ``named``: LD_PRELOAD or LD_LIBRARY_PATH leads to it. ``problem``: why the loader would not take it."""

    path: str
    line: str = ""
    named: bool = False
    variables: list[str] = []
    tables: list[str] = []
    problem: str = ""


class NcclUse(msgspec.Struct, frozen=True):
    """Which library somebody loads. ``by``: ``torch 2.5.1 (/opt/conda)``, ``program`` (any that is linked with
    libnccl.so.2 and has no path of its own), ``process 4242 (python)``. ``how``: by which of the loader's ways;
    ``built in``: it is part of the file itself. ``path``: empty where there is none to be found."""

    by: str
    how: str
    path: str


class NcclPlugin(msgspec.Struct, frozen=True):
    """A plugin that the library looks for. ``kind``: ``net``, ``tuner``, ``profiler``, ``env``. ``wanted``: as it was
    asked for, empty where the name is NCCL's own. ``path``: what the loader finds, empty for nothing. ``exports``: its
    tables. ``lacks``: libraries that it needs and the loader does not find."""

    kind: str
    wanted: str
    tried: list[str]
    path: str = ""
    problem: str = ""
    exports: list[str] = []
    lacks: list[str] = []
    variables: list[str] = []


class Nccl(msgspec.Struct, frozen=True):
    """Which collective library is loaded here, and with what. The first of ``uses`` is that of a job; ``libraries`` are
    all that were found, used or not. ``preloads``: names of LD_PRELOAD that the loader does not find.

    ``process``: the one that was asked for, by number; ``status``: whether it could be looked at.
    """

    machine: str
    uses: list[NcclUse]
    libraries: list[NcclLibrary]
    plugins: list[NcclPlugin]
    preloads: list[str] = []
    process: int | None = None
    status: ReadStatus = "ok"
