"""What is fuzzed: for each reader of foreign text, what it is given and what may come of it.

A target takes bytes, as a node or a file would give them, and returns. Whatever else it raises is a defect: a reader
gives values or raises Unreadable; a parser of files gives values or raises a UsageError; an item of the whole check
comes to a verdict, and none that reads one source alone passes when that source says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import hmac
import io
import json
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cwai_bench import baseline, collective_library, config, journal, nccl_settings
from cwai_bench.checks import CHECKS, criteria_items, sources_for
from cwai_bench.discover import packages, read_node
from cwai_bench.discover.tree import TEXT_LIMIT, decode
from cwai_bench.errors import UsageError
from cwai_bench.judge import check_facts
from cwai_bench.launch import parcel, wire
from cwai_bench.model import Facts, FactsRecord
from cwai_bench.readers import (
    Unreadable,
    amd,
    amd_tests,
    ascend,
    ascend_loopback,
    ascend_tests,
    collective_log,
    elf,
    hccl_test,
    host,
    json_answer,
    loader_cache,
    nccl_conf,
    nccl_tests,
    nic,
    nvidia,
    nvidia_tests,
    nvme,
    process_maps,
    roce_test,
    smart,
)
from cwai_bench.render.json import report_from_json

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
NODES, FOUND = FIXTURES / "nodes", FIXTURES / "fuzz"
"""FOUND: inputs that once broke a target, one folder for each."""
GOLDEN = FIXTURES.parent / "golden" / "expected"
SECONDS = 5.0
"""No input may take a target longer, on a machine that is busy with other things as well."""
KEY = b"k" * 32


class Target(NamedTuple):
    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]


def readers(*readings: Callable[[str], object]) -> Callable[[bytes], object]:
    """Each of these readers, one after the other: a text of one tool is junk to the others."""

    def run(data: bytes) -> None:
        text = decode(data[:TEXT_LIMIT])
        for read in readings:
            with contextlib.suppress(Unreadable):
                read(text)

    return run


def answers(*words: str) -> Callable[[], Iterable[bytes]]:
    """What recorded commands said whose first word is one of these."""

    def seeds() -> Iterable[bytes]:
        for argv in sorted(NODES.glob("*/commands/*/argv")):
            if argv.read_text().split("\n", 1)[0] in words:
                yield (argv.parent / "stdout").read_bytes()

    return seeds


def files(*patterns: str, below: Path = NODES) -> Callable[[], Iterable[bytes]]:
    return lambda: [path.read_bytes() for pattern in patterns for path in sorted(below.glob(pattern))]


def both(*sources: Callable[[], Iterable[bytes]]) -> Callable[[], Iterable[bytes]]:
    return lambda: [seed for source in sources for seed in source()]


def refusing(parse: Callable[[bytes], object]) -> Callable[[bytes], object]:
    def run(data: bytes) -> None:
        with contextlib.suppress(UsageError):
            parse(data)

    return run


def _criteria(data: bytes) -> None:
    text = decode(data)
    with contextlib.suppress(UsageError):
        config.parse_criteria(text, "fuzz.toml", criteria_items())
    with contextlib.suppress(UsageError):
        config.parse_options(text, "fuzz.toml", {"store": str, "json": bool, "budget": float})


def _criteria_seeds() -> Iterable[bytes]:
    yield from (text.encode() for text in config.profiles().values())
    yield b'[criteria]\n"nvidia.memory".min = "79 GiB"\n'
    yield b'[suppress."pci.links"]\nowner = "a"\nreason = "b"\nuntil = 2026-01-01\n'
    yield b'[options]\nstore = "/x"\njson = true\n'


def _package(data: bytes) -> None:
    """The metadata of a Python package, and its folder's name."""
    folder = Path(_scratch().name)
    (folder / "METADATA").write_bytes(data)
    version = packages.version_of(folder)
    assert version is None or 0 < len(version) <= 80
    if told := packages.METADATA.fullmatch(decode(data)[:255]):
        packages.WANTED.fullmatch(told["name"])


def _collective_library(data: bytes) -> None:
    """The strings of a library's file, and a line of its log."""
    file = Path(_scratch().name) / "libnccl.so.2"
    file.write_bytes(data)
    for version in (collective_library.of_file(file), collective_library.of_line(decode(data[:TEXT_LIMIT]))):
        assert version is None or 0 < len(str(version)) < 160


def _shared_object(data: bytes) -> None:
    """A library's file, and the table by which the loader finds it."""
    for read in (elf.shared_object, elf.constants, lambda file: elf.exported(file, "nccl")):
        with contextlib.suppress(Unreadable):
            read(io.BytesIO(data))
    for machine in loader_cache.ABI:
        with contextlib.suppress(Unreadable):
            assert all(isinstance(path, str) for path in loader_cache.loader_cache(data, machine).values())


def _shared_object_seeds() -> Iterable[bytes]:
    """A small library as a linker makes it: one segment, its dynamic section, one symbol, and .rodata."""
    names = b"\0libnccl.so.2\0ncclNetPlugin_v8\0$ORIGIN/lib\0"
    symbols = bytes(24) + struct.pack("<IBBHQQ", 14, 0x11, 0, 1, 0x400, 8)
    hashed = struct.pack("<II", 1, 2) + bytes(12)
    at = {"names": 0x200, "symbols": 0x280, "hash": 0x300, "dynamic": 0x340}
    tags = [(14, 1), (29, 31), (5, at["names"]), (10, len(names)), (6, at["symbols"]), (4, at["hash"]), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    head = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0x400, 0, 64, 56, 2, 64, 2, 1)
    )
    segments = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 0x600, 0x600, 4096)
    segments += struct.pack("<IIQQQQQQ", 2, 6, at["dynamic"], at["dynamic"], 0, len(dynamic), len(dynamic), 8)
    whole = bytearray(0x600)
    sections = struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, 0x500, 0x80, 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 9, 3, 0, 0, 0x580, 0x20, 0, 0, 1, 0)
    parts = {0: head, 64: segments, at["names"]: names, at["symbols"]: symbols, at["hash"]: hashed}
    parts |= {at["dynamic"]: dynamic, 0x400: sections, 0x500: b"NCCL version 2.21.5\0", 0x580: b"\0.rodata\0.names\0"}
    for offset, part in parts.items():
        whole[offset : offset + len(part)] = part
    yield bytes(whole)
    entry = struct.pack("<iIIIQ", 0x0303, 72, 74, 0, 0)
    yield loader_cache.NEW + struct.pack("<II20x", 1, 5) + entry + b"a\0/a\0"


def _nccl_settings(data: bytes) -> None:
    """A file of settings, each value by the rule of its name and as a list of devices; and what a process tells."""
    text = decode(data[:TEXT_LIMIT])
    for line in nccl_conf.nccl_conf(text):
        nccl_settings.chosen(line.value).takes("mlx5_0", 1)
        nccl_settings.kept(line.name or "")
        if line.name in nccl_settings.RULES:
            nccl_settings.RULES[line.name].wrong(line.value)
    process_maps.variables(text)
    with contextlib.suppress(Unreadable):
        process_maps.mapped_files(text)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


# ------------------------------------------------------------------------------------------------ between processes


def _sealed(data: bytes) -> None:
    """Frames of a line between keepers: as they are, and, so that more than the seal is tried, well sealed."""
    _received(data)
    payload = data[: 1 << 16]
    tag = hmac.new(KEY, struct.pack("!Q", 0) + payload, hashlib.sha256).digest()
    _received(wire.frame(payload) + tag)


def _received(data: bytes) -> None:
    async def receive() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        writer: Any = None  # never written to
        line = wire.Sealed(reader, writer, KEY, KEY)
        for _ in range(8):
            if await line.receive(msgspec.json.Decoder(dict[str, Any])) is None:
                return

    with contextlib.suppress(wire.WireError):
        _loop().run_until_complete(receive())


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _sealed_seeds() -> Iterable[bytes]:
    plain = json.dumps({"kind": "hello", "lines": ["a", "b"]}).encode()
    payload = zlib.compress(plain)
    yield payload
    yield wire.frame(payload) + hmac.new(KEY, struct.pack("!Q", 0) + payload, hashlib.sha256).digest()
    yield struct.pack("!I", (1 << 32) - 1)


def _parcel(data: bytes) -> None:
    lines = data.split(b"\n")
    with contextlib.suppress(wire.WireError):
        packed, texts = parcel.pack(lines)
        again = parcel.unpack(packed, texts)
        assert [_plain(line) for line in again] == [_plain(line) for line in lines], "packed and unpacked"


def _plain(line: bytes) -> object:
    return msgspec.json.decode(line, type=FactsRecord) if line.startswith(b'{"type":"facts"') else line


def _parcel_seeds() -> Iterable[bytes]:
    facts = well("plain")
    few = {key: facts.readings[key] for key in ("proc/meminfo", "proc/cmdline", "call:pci")}
    yield msgspec.json.encode(FactsRecord(msgspec.structs.replace(facts, readings=few)))
    yield b'{"type":"event"}\n'


# --------------------------------------------------------------------------------------------------- the whole check


@functools.cache
def well(node: str) -> Facts:
    """Facts of a whole recorded node."""
    return read_node("", NODES / node, sources_for(CHECKS), time.monotonic() + 60)


@functools.cache
def read_by(node: str) -> dict[str, list[str]]:
    """The items that read a source, and that alone, or with others."""
    found: dict[str, list[str]] = {}
    keys = [key for key, reading in sorted(well(node).readings.items()) if reading.status == "ok"]
    for key in keys:
        items = [c.info.id for c in CHECKS.values() if any(s.key == key for s in c.reads)]
        if items:
            found[key] = items
    return found


ALONE = {
    key: [c.info.id for c in CHECKS.values() if [s.key for s in c.reads] == [key] and c.info.kind.value == "node"]
    for key in {s.key for c in CHECKS.values() for s in c.reads}
}
"""By source, the node items that read nothing else."""


def _judge(node: str, data: bytes) -> None:
    """The first two bytes choose a source of the node; the rest is what it says."""
    sources = list(read_by(node))
    key = sources[int.from_bytes(data[:2], "big") % len(sources)]
    said(node, key, decode(data[2:]))


def said(node: str, key: str, text: str) -> None:
    """All items that read ``key`` of ``node`` are judged, it having said ``text``."""
    facts = well(node)
    reading = msgspec.structs.replace(facts.readings[key], text=text)
    changed = msgspec.structs.replace(facts, readings=facts.readings | {key: reading})
    for verdict in check_facts([changed], read_by(node)[key]):
        told = "" if verdict.detail is None else verdict.detail.en
        assert "a bug of" not in told, f"{verdict.check}: {told}"
        assert text.strip() or verdict.check not in ALONE[key] or verdict.status.value != "PASS", (
            f"{verdict.check} passes of nothing"
        )
        msgspec.json.encode(verdict)


def _judge_seeds(node: str) -> Iterable[bytes]:
    for index, key in enumerate(read_by(node)):
        yield struct.pack("!H", index) + well(node).readings[key].text.encode()


TARGETS: dict[str, Target] = {
    "ascend": Target(
        readers(
            ascend.mapping,
            ascend.table,
            ascend.health,
            ascend.ecc,
            ascend.board,
            ascend.hccs,
            ascend.super_pod,
            ascend.version_file,
            ascend.link,
            ascend.net_health,
            ascend.network,
            ascend.gateway,
            ascend.net_detect,
            ascend.tls,
            ascend.fec,
            ascend.speed,
            ascend.duplex,
            ascend.mtu,
            ascend.mac,
            ascend.lldp,
            ascend.link_stat,
            ascend.statistics,
            ascend.optical,
            ascend.cdr_snr,
            ascend.transmitter,
        ),
        both(answers("npu-smi", "hccn_tool"), files("ascend_910b/usr/**/*.info", "ascend_910b/usr/**/METADATA")),
    ),
    "nvidia": Target(
        readers(nvidia.smi, nvidia.nvlink_status, nvidia.nvlink_errors, nvidia.module_version, nvidia.dcgm_health),
        both(answers("nvidia-smi", "dcgmi"), files("*/proc/driver/nvidia/version")),
    ),
    "nic": Target(
        readers(
            nic.rate,
            nic.traffic_class,
            nic.statistics,
            nic.pause,
            nic.module,
            nic.bit_errors,
            nic.qos,
            nic.active_mtus,
            nic.neighbours,
            nic.ofed,
            nic.module_version,
        ),
        answers("ethtool", "mlxlink", "mlnx_qos", "ibv_devinfo", "lldpcli", "ofed_info", "modinfo"),
    ),
    "host": Target(
        readers(
            host.units, host.packages, host.processes, host.boots, host.tracking, nvme.drive_health, smart.smart_status
        ),
        answers("systemctl", "dpkg-query", "rpm", "ps", "last", "chronyc", "nvme", "smartctl"),
    ),
    "amd": Target(
        readers(amd.rows, amd.addresses, amd.versions, amd.firmware, amd.ecc, amd.bad_pages, amd.gpu_agents),
        answers("amd-smi", "rocminfo"),
    ),
    "tests": Target(
        readers(
            nvidia_tests.dcgm_diag,
            functools.partial(nvidia_tests.nvbandwidth, test="host_to_device_memcpy_ce"),
            functools.partial(nvidia_tests.nvbandwidth, test="device_to_device_memcpy_read_ce"),
            ascend_tests.diagnosis,
            ascend_loopback.loopback,
            amd_tests.rvs,
            roce_test.report,
        ),
        both(
            answers("dcgmi", "nvbandwidth", "ascend-dmi", "rvs"),
            files("ascend_910b/commands/hccn_tool_-optical_-t-*/stdout"),
            files("*.txt", below=FIXTURES / "roce_test"),
        ),
    ),
    "collective": Target(
        readers(collective_log.collective_log, hccl_test.hccl_test, nccl_tests.nccl_tests),
        files("*.log", "*.txt", below=FIXTURES / "collective"),
    ),
    "collective_library": Target(
        _collective_library, lambda: [b"\x7fELF\0NCCL version 2.21.5+cuda12.4\0", b"CTCCL version 0.2.0(nccl 2.19.4)+"]
    ),
    "shared_object": Target(_shared_object, _shared_object_seeds),
    "nccl_settings": Target(
        _nccl_settings,
        lambda: [
            b"# all nodes\nNCCL_IB_HCA=^=mlx5_8:1,mlx5_9\nNCCL_ALGO=Ring;allreduce:^Tree,NVLS\nNCCL_IB_TC=0x6a\n",
            b"NCCL_PROTO=LL128\nNCCL_DEBUG_SUBSYS=INIT,NET\nNCCL_NET_GDR_LEVEL=PHB\nNCCL_SOCKET_FAMILY=AF_INET\n",
            b"7f1f40000000-7f1f41000000 r-xp 00001000 08:01 77   /opt/lib/libnccl.so.2 (deleted)\n",
        ],
    ),
    "packages": Target(
        _package,
        lambda: [
            b"Metadata-Version: 2.1\nName: torch\nVersion: 2.1.0+cu121\n",
            b"torch_npu-2.1.0.post8-py3.9.egg-info",
        ],
    ),
    "json": Target(
        readers(json_answer.decoded, json_answer.decoded_object),
        both(files("*/calls/*.json"), answers("nvme", "lldpcli")),
    ),
    "criteria": Target(_criteria, _criteria_seeds),
    "report": Target(refusing(report_from_json), files("*.json", below=GOLDEN)),
    "baseline": Target(refusing(baseline.parse), lambda: [baseline.dump(baseline.from_facts(well("plain")))]),
    "journal": Target(
        refusing(lambda data: journal.parse(data, "fuzz")),
        lambda: [b"\n".join([*_parcel_seeds()]), b'{"type":"run"}\n{"type":"end"}\n'],
    ),
    "wire": Target(_sealed, _sealed_seeds),
    "parcel": Target(_parcel, _parcel_seeds),
    **{
        f"check_{node}": Target(functools.partial(_judge, node), functools.partial(_judge_seeds, node))
        for node in ("good", "l40s", "a10_vm", "plain")
    },
}


def timed(target: Target, data: bytes) -> None:
    started = time.monotonic()
    target.run(data)
    took = time.monotonic() - started
    assert took < SECONDS, f"{took:.1f} s for {len(data)} bytes"
