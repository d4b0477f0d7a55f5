"""What NCCL's variables mean: which of several values is in force, which values there are, and which devices they name.

NVIDIA/nccl 2.30: docs/userguide/source/env.rst says what is accepted; src/misc/param.cc how files and numbers are read;
src/misc/utils.cc and src/transport/net_ib/init.cc how devices are named. The rule for several values: the environment
wins over all files, since they are read with setenv(3) that leaves alone what is there; for the same reason the user's
own file wins over /etc/nccl.conf, and of two lines of one file the first. ``CTCCL_IB_RETRY_DISABLE`` is CTCCL's.

No list of all names stands here: the library that is loaded tells which it knows (``NcclLibrary.variables``).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from cwai_bench.text import Text

SYSTEM_FILE, USER_FILE = "/etc/nccl.conf", ".nccl.conf"
FAMILIES = ("NCCL_", "CTCCL_", "RCCL_", "OFI_NCCL_", "TORCH_NCCL_")
LOADER = ("LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT")
VALUE_LIMIT = 1023
"""Bytes of a value, as many as NCCL takes of a line."""
_SECRET = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|PRIVATE")


def kept(name: str) -> bool:
    """Whether a variable may be read and shown: those of collective libraries and of the loader, and no other."""
    return name in LOADER or (name.startswith(FAMILIES) and not _SECRET.search(name) and len(name) <= 128)


PLUGINS = {
    "net": "NCCL_NET_PLUGIN",
    "tuner": "NCCL_TUNER_PLUGIN",
    "profiler": "NCCL_PROFILER_PLUGIN",
    "env": "NCCL_ENV_PLUGIN",
}
"""Kinds of plugins, and the variable that names each."""
PLUGIN_TABLES = {
    "net": "ncclNetPlugin_v",
    "tuner": "ncclTunerPlugin_v",
    "profiler": "ncclProfiler_v",
    "env": "ncclEnvPlugin_v",
}
"""How the tables begin that NCCL looks for in each (src/plugin/*/*_v*.cc)."""


class Setting(NamedTuple):
    """``origin``: ``environment``, or the path of a file."""

    value: str
    origin: str


ENVIRONMENT = "environment"


def in_force(
    environment: Mapping[str, str], files: Iterable[tuple[str, Iterable[tuple[str | None, str]]]]
) -> dict[str, Setting]:
    """Each variable with the value that NCCL takes. ``files``: path, and names with values, in the order in which they
    are read; a name that is None was passed over."""
    found = {name: Setting(value, ENVIRONMENT) for name, value in environment.items()}
    for path, lines in files:
        for name, value in lines:
            if name:
                found.setdefault(name, Setting(value, path))
    return found


# ---------------------------------------------------------------------------------------------------------- numbers

_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?)(0[xX][0-9a-fA-F]{1,40}|0[0-7]{0,40}|[1-9][0-9]{0,40})")


def number(value: str) -> tuple[int, bool]:
    """What NCCL takes a value for, as strtoll(3) with base 0 reads it, and whether nothing was left over: ``yes`` is 0,
    ``8k`` is 8, ``010`` is 8."""
    told = _NUMBER.match(value)
    if told is None:
        return 0, False
    digits = told[2].lower()
    base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") else 10
    read = int(told[1] + digits.removeprefix("0x"), base)
    return read, not value[told.end() :].strip() and -(1 << 63) <= read < 1 << 63


class Rule(NamedTuple):
    """``due``: the values that are accepted, in short. ``wrong``: what is wrong with a value; None for nothing."""

    due: str
    wrong: Callable[[str], Text | None]


def whole(low: int, high: int | None = None, *more: int) -> Rule:
    """A number from ``low`` to ``high`` (None: without end), or one of ``more``."""
    due = ", ".join([f"{low}..{'' if high is None else high}", *map(str, more)])

    def wrong(value: str) -> Text | None:
        read, clean = number(value)
        if not clean:
            return Text("is no number: NCCL reads {r}", "不是数字：NCCL 读作 {r}").fill(r=read)
        if read in more or (read >= low and (high is None or read <= high)):
            return None
        return Text("is not in {d}", "不在 {d} 之内").fill(d=due)

    return Rule(due, wrong)


def one_of(*words: str, any_case: bool = False, numbers: bool = False) -> Rule:
    """One of ``words``; a number as well where NCCL keeps the old ones."""

    def wrong(value: str) -> Text | None:
        said = value.upper() if any_case else value
        if said in words or (numbers and value[:1].isascii() and value[:1].isdecimal()):
            return None
        return Text("is none of {w}", "不是 {w} 之一").fill(w=", ".join(words))

    return Rule(", ".join(words), wrong)


def tokens(*words: str, functions: bool = False) -> Rule:
    """A list with commas, ``^`` in front to leave out; with ``functions`` several, each behind a function and a colon,
    as src/graph/tuning.cc reads them (parseList): all but the first must have one."""
    known = {word.lower() for word in words}

    def wrong(value: str) -> Text | None:
        parts = value.split(";") if functions else [value]
        for index, part in enumerate(part for part in parts if part):
            function, colon, listed = part.partition(":") if functions else ("", "", part)
            if functions and not colon:
                function, listed = "", part
            if (index and not colon) or (function and function.lower() not in FUNCTIONS):
                return Text("{p!r} names no operation", "{p!r} 未指明有效的操作").fill(p=part[:40])
            for token in listed.removeprefix("^").split(","):
                if token and token.lower() not in known:
                    return Text("{t!r} is none of {w}", "{t!r} 不是 {w} 之一").fill(t=token[:40], w=", ".join(words))
        return None

    return Rule(", ".join(words), wrong)


FUNCTIONS = ("broadcast", "reduce", "allgather", "reducescatter", "allreduce", "alltoall", "allgatherv")
SWITCH = whole(0, 1)
FAMILY = one_of("AF_INET", "AF_INET6")
LEVELS = one_of("LOC", "NVL", "NVB", "C2C", "PIX", "PXB", "P2C", "PXN", "PHB", "SYS", numbers=True)
RULES: dict[str, Rule] = {
    # how many queue pairs, how long, how often (net_ib/common.h: NCCL_IB_MAX_QPS)
    "NCCL_IB_QPS_PER_CONNECTION": whole(1, 128),
    "NCCL_IB_SPLIT_DATA_ON_QPS": SWITCH,
    "NCCL_IB_TIMEOUT": whole(0, 31),
    "NCCL_IB_RETRY_CNT": whole(0, 7),
    # widths of the fields: InfiniBand Architecture Specification, volume 1 (SL 4 bits, TClass 8 bits)
    "NCCL_IB_SL": whole(0, 15, -1),
    "NCCL_IB_TC": whole(0, 255, -1),
    "NCCL_IB_FIFO_TC": whole(0, 255, -1),
    "NCCL_IB_GID_INDEX": whole(-1, 255),
    "NCCL_IB_ROCE_VERSION_NUM": whole(1, 2),
    "NCCL_IB_ADDR_FAMILY": FAMILY,
    "NCCL_IB_DISABLE": SWITCH,
    "NCCL_IB_AR_THRESHOLD": whole(0),
    "NCCL_IB_ADAPTIVE_ROUTING": whole(0, 1, -2),
    "NCCL_IB_PCI_RELAXED_ORDERING": whole(0, 2),
    "NCCL_IB_ECE_ENABLE": SWITCH,
    "NCCL_IB_OOO_RQ": SWITCH,
    "NCCL_IB_MERGE_NICS": SWITCH,
    "NCCL_IB_RETURN_ASYNC_EVENTS": SWITCH,
    "CTCCL_IB_RETRY_DISABLE": SWITCH,
    # networks
    "NCCL_CROSS_NIC": whole(0, 2),
    "NCCL_SOCKET_FAMILY": FAMILY,
    "NCCL_SOCKET_NTHREADS": whole(1, 16),
    "NCCL_NSOCKS_PERTHREAD": whole(1),
    "NCCL_SOCKET_RETRY_CNT": whole(0),
    "NCCL_COLLNET_ENABLE": SWITCH,
    "NCCL_PXN_DISABLE": SWITCH,
    "NCCL_P2P_PXN_LEVEL": whole(0, 2),
    "NCCL_NET_GDR_LEVEL": LEVELS,
    "NCCL_NET_GDR_READ": SWITCH,
    "NCCL_NET_SHARED_BUFFERS": SWITCH,
    "NCCL_NET_SHARED_COMMS": SWITCH,
    "NCCL_OOB_NET_ENABLE": SWITCH,
    # within a node
    "NCCL_P2P_DISABLE": SWITCH,
    "NCCL_P2P_LEVEL": LEVELS,
    "NCCL_P2P_DIRECT_DISABLE": SWITCH,
    "NCCL_SHM_DISABLE": SWITCH,
    "NCCL_NVLS_ENABLE": whole(0, 2),
    "NCCL_MNNVL_ENABLE": whole(0, 2),
    "NCCL_CUMEM_ENABLE": whole(0, 1, -2),
    "NCCL_DMABUF_ENABLE": SWITCH,
    # kernels and buffers
    "NCCL_BUFFSIZE": whole(1),
    "NCCL_NTHREADS": one_of("64", "128", "256", "512"),
    "NCCL_MIN_NCHANNELS": whole(1),
    "NCCL_MAX_NCHANNELS": whole(1),
    "NCCL_MIN_CTAS": whole(1, 64),
    "NCCL_MAX_CTAS": whole(1, 64),
    "NCCL_CGA_CLUSTER_SIZE": whole(0, 8),
    "NCCL_LAUNCH_MODE": one_of("PARALLEL", "GROUP"),
    "NCCL_ALGO": tokens(
        "Tree", "Ring", "CollNet", "CollNetDirect", "CollNetChain", "NVLS", "NVLSTree", "PAT", functions=True
    ),
    "NCCL_PROTO": tokens("LL", "LL128", "Simple", functions=True),
    # what it says, and to whom (src/debug.cc)
    "NCCL_DEBUG": one_of("VERSION", "WARN", "INFO", "ABORT", "TRACE", any_case=True),
    "NCCL_DEBUG_SUBSYS": tokens(
        *("INIT", "COLL", "P2P", "SHM", "NET", "GRAPH", "TUNING", "ENV", "ALLOC", "ALLOC_HOST", "CALL", "PROXY"),
        *("NVLS", "BOOTSTRAP", "REG", "PROFILE", "RAS", "DESTROY", "ALL"),
    ),
    "NCCL_RAS_ENABLE": SWITCH,
    "NCCL_IGNORE_CPU_AFFINITY": SWITCH,
}
"""Values that are accepted; an empty one is as none at all."""

READ_BY_OTHERS = (
    "NCCL_VERSION",  # which NCCL an image of nvidia/cuda was made with
    "NCCL_HOME",
    "NCCL_ROOT*",
    "NCCL_*_DIR",
    "NCCL_TESTS_*",  # NVIDIA/nccl-tests
    "NCCL_INSPECTOR_*",  # a profiler plugin (NVIDIA/nccl, plugins/profiler/inspector)
    "NCCL_BLOCKING_WAIT",  # pytorch before 2.2, ProcessGroupNCCL
    "NCCL_ASYNC_ERROR_HANDLING",
    "NCCL_DESYNC_DEBUG",
    "NCCL_ENABLE_TIMING",
    "NCCL_USE_COMM_NONBLOCKING",
    "RCCL_*",
    "OFI_NCCL_*",
    "TORCH_NCCL_*",
)
"""Names of the family that other programs read."""


def read_by_others(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in READ_BY_OTHERS)


# ---------------------------------------------------------------------------------------------------------- devices


class Chosen(NamedTuple):
    """What NCCL_IB_HCA or NCCL_SOCKET_IFNAME says: names or beginnings of names, each with a port (None: every one).
    ``without``: all but these; ``exact``: whole names."""

    without: bool
    exact: bool
    entries: tuple[tuple[str, int | None], ...]

    def means(self, entry: tuple[str, int | None], name: str, port: int | None) -> bool:
        wanted, of_port = entry
        fits = name == wanted if self.exact else name.startswith(wanted)
        return fits and (of_port is None or port is None or of_port == port)

    def takes(self, name: str, port: int | None = None) -> bool:
        return any(self.means(entry, name, port) for entry in self.entries) != self.without


def chosen(value: str) -> Chosen:
    """``^`` in front: all but these; then ``=``: whole names; a list with commas, each ``name[:port[:…]]``."""
    without = value.startswith("^")
    rest = value[without:]
    exact = rest.startswith("=")
    entries: list[tuple[str, int | None]] = []
    for part in rest[exact:].split(","):
        name, _, after = part.partition(":")
        port, _, _ = after.partition(":")
        if name:
            entries.append((name, number(port)[0] if port else None))
    return Chosen(without, exact, tuple(entries[:64]))


def unmatched(filter: Chosen, names: Sequence[tuple[str, int | None]]) -> list[str]:
    """The entries that mean none of ``names`` (with ports), of a filter that is no exclusion."""
    if filter.without:
        return []
    return [
        entry[0] if entry[1] is None else f"{entry[0]}:{entry[1]}"
        for entry in filter.entries
        if not any(filter.means(entry, name, port) for name, port in names)
    ]
