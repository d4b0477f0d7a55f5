"""The questions put to the system, asked of made-up systems: what each machine would answer."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cwai_bench.discover import memory, network, packages, pci, rails, storage, system
from cwai_bench.sources import HOSTS_VARIABLE, Filesystem, LogLine, PythonPackage, RailPath


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


# -------------------------------------------------------------------------------------------------------- CPUs, memory


def test_cpus_of_a_made_up_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"possible": "0-7\n", "present": "0-4,6\n", "online": "0-2,6\n", "smt/control": "on\n"}
    for cpu, (package, core) in {0: (0, 0), 1: (0, 1), 2: (1, 0), 6: (1, 0)}.items():
        files |= {
            f"cpu{cpu}/topology/physical_package_id": f"{package}\n",
            f"cpu{cpu}/topology/die_id": "0\n",
            f"cpu{cpu}/topology/core_id": f"{core}\n",
            f"cpu{cpu}/cpufreq/scaling_governor": "performance\n" if cpu else "powersave\n",
            f"cpu{cpu}/cpufreq/scaling_driver": "intel_pstate\n",
            f"cpu{cpu}/thermal_throttle/package_throttle_total_time_ms": f"{package * 10}\n",
        }
    monkeypatch.setattr(memory, "CPUS", put(tmp_path / "cpu", files))
    monkeypatch.setattr(memory, "NODES", put(tmp_path / "node", {"node0/x": "", "node1/x": "", "has_cpu": ""}))
    monkeypatch.setattr(
        memory,
        "CPUINFO",
        put(tmp_path, {"cpuinfo": "processor: 0\nmodel name : Some  CPU 9\n\nprocessor: 1\n"}) / "cpuinfo",
    )
    found = memory.cpus()
    assert (found.possible, found.present, found.offline) == (8, 6, [3, 4])
    assert [(c.cpu, c.package, c.core) for c in found.online] == [(0, 0, 0), (1, 0, 1), (2, 1, 0), (6, 1, 0)]
    assert found.governors == {"performance": 3, "powersave": 1}
    assert found.drivers == {"intel_pstate": 4}
    assert found.throttled == {"0": 0, "1": 10}
    assert (found.model, found.numa_nodes, found.smt) == ("Some CPU 9", 2, "on")


def test_cpus_of_an_arm_machine_that_tells_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CPUS", put(tmp_path / "cpu", {n: "0-1\n" for n in ("possible", "present", "online")}))
    monkeypatch.setattr(memory, "NODES", tmp_path / "none")
    text = "processor\t: 0\nCPU implementer\t: 0x48\nCPU part\t: 0xd01\n\nprocessor\t: 1\n"
    monkeypatch.setattr(memory, "CPUINFO", put(tmp_path, {"cpuinfo": text}) / "cpuinfo")
    found = memory.cpus()
    assert found.model == "implementer 0x48 part 0xd01"
    assert [c.package for c in found.online] == [-1, -1]
    assert (found.governors, found.throttled, found.smt, found.numa_nodes) == ({}, {}, "", 1)


@pytest.mark.parametrize(
    ("text", "numbers"), [("", []), ("0", [0]), ("0-3", [0, 1, 2, 3]), ("0,2-3,9", [0, 2, 3, 9]), ("\n", [])]
)
def test_cpu_lists(text: str, numbers: list[int]) -> None:
    assert memory.cpu_list(text) == numbers


def test_memory_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"block_size_bytes": "8000000\n", "memory0/state": "online\n", "memory1/state": "offline\n", "auto": "x"}
    monkeypatch.setattr(memory, "MEMORY", put(tmp_path, files))
    found = memory.memory_blocks()
    assert (found.block_size, found.online, found.offline) == (0x8000000, 1, ["memory1"])


def device_table(size: int, extended: int = 0, length: int = 0x5C) -> bytes:
    """A memory device of SMBIOS 3 (type 17)."""
    table = bytearray(length)
    table[0], table[1] = 17, length
    struct.pack_into("<H", table, 0x0C, size)
    if length >= 0x20:
        struct.pack_into("<I", table, 0x1C, extended)
    return bytes(table)


def test_dimms_from_smbios_and_edac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "EDAC", tmp_path / "mc")
    monkeypatch.setattr(memory, "SMBIOS", tmp_path / "entries")
    with pytest.raises(FileNotFoundError):
        memory.dimms()
    tables = [
        device_table(0x7FFF, 65536),  # 64 GiB, in the extended field
        device_table(16384),  # 16 GiB
        device_table(0x8000 | 512),  # 512 KiB
        device_table(0),  # an empty slot
        device_table(0xFFFF),  # not known
        b"\x11\x05\x00",  # cut short
        device_table(8192, length=0x15),  # SMBIOS 2.1
    ]
    for number, table in enumerate(tables):
        (tmp_path / f"entries/17-{number}").mkdir(parents=True)
        (tmp_path / f"entries/17-{number}/raw").write_bytes(table)
    assert memory.dimms().sizes == [64 << 30, 16 << 30, 512 << 10, 8 << 30]
    put(tmp_path, {"mc/mc0/dimm0/size": "32768\n", "mc/mc1/dimm4/size": "32768\n"})
    found = memory.dimms()
    assert (found.came_from, found.sizes) == ("edac", [32 << 30, 32 << 30])


def test_a_refused_attribute_is_raised_and_an_absent_one_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory.attribute(tmp_path / "none") == ""

    def refuse(self: Path, **kwargs: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(PermissionError):
        memory.attribute(tmp_path / "none")


# ----------------------------------------------------------------------------------------------------------------- PCI


def config_space(capabilities: list[tuple[int, int]]) -> bytes:
    """Extended configuration space with a chain of (id, control word at +6)."""
    space = bytearray(4096)
    at = 0x100
    for number, (identity, control) in enumerate(capabilities):
        following = 0 if number == len(capabilities) - 1 else at + 0x40
        struct.pack_into("<I", space, at, identity | 1 << 16 | following << 20)
        struct.pack_into("<H", space, at + 6, control)
        at += 0x40
    return bytes(space)


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root port with a GPU behind it, a VGA controller and a host bridge."""
    port = tmp_path / "devices/pci0000:16/0000:16:01.0"
    gpu = port / "0000:17:00.0"
    link = {"current_link_speed": "32.0 GT/s PCIe\n", "max_link_speed": "32.0 GT/s PCIe\n"}
    width = {"current_link_width": "8\n", "max_link_width": "16\n"}
    put(port, {"class": "0x060400\n", "vendor": "0x8086\n", "device": "0x352a\n", "numa_node": "1\n", **link, **width})
    aer = "RxErr 1\nTOTAL_ERR_COR 7\n"
    put(
        gpu,
        {
            "class": "0x030200\n",
            "vendor": "0x10de\n",
            "device": "0x2330\n",
            "numa_node": "1\n",
            "aer_dev_correctable": aer,
            "aer_dev_fatal": "TOTAL_ERR_FATAL 2\n",
            **link,
            "current_link_speed": "2.5 GT/s PCIe\n",
            **width,
        },
    )
    vga = tmp_path / "devices/pci0000:00/0000:03:00.0"
    put(vga, {"class": "0x030000\n", "vendor": "0x1a03\n", "device": "0x2000\n", "current_link_width": "255\n"})
    host = tmp_path / "devices/pci0000:00/0000:00:00.0"
    put(host, {"class": "0x060000\n"})
    (tmp_path / "drivers/nvidia").mkdir(parents=True)
    (gpu / "driver").symlink_to(tmp_path / "drivers/nvidia")
    devices = tmp_path / "bus"
    devices.mkdir()
    for real in (port, gpu, vga, host):
        (devices / real.name).symlink_to(real)
    monkeypatch.setattr(pci, "DEVICES", devices)
    (port / "config").write_bytes(config_space([(0x0001, 0), (0x000D, 0x001D), (0x0019, 9)]))
    return port


def test_pci_devices_and_their_links(bus: Path) -> None:
    found = {d.address: d for d in pci.pci().devices}
    assert set(found) == {"0000:03:00.0", "0000:16:01.0", "0000:17:00.0"}, "a host bridge is of no interest"
    gpu = found["0000:17:00.0"]
    assert (gpu.model, gpu.driver, gpu.class_code, gpu.numa_node) == ("10de:2330", "nvidia", 0x0302, 1)
    assert (gpu.speed, gpu.max_speed, gpu.width, gpu.max_width) == (2.5e9, 32e9, 8, 16)
    assert (gpu.aer_correctable, gpu.aer_nonfatal, gpu.aer_fatal) == (7, 0, 2)
    assert gpu.behind == "0000:16:01.0"
    vga = found["0000:03:00.0"]
    assert (vga.width, vga.numa_node, vga.behind) == (0, -1, "")


def test_what_a_card_could_do_is_bounded_by_its_port(bus: Path) -> None:
    (bus / "max_link_speed").write_text("16.0 GT/s PCIe\n")
    (bus / "max_link_width").write_text("8\n")
    gpu = next(d for d in pci.pci().devices if d.model == "10de:2330")
    assert (gpu.max_speed, gpu.max_width) == (16e9, 8)


@pytest.mark.parametrize(
    ("config", "acs", "readable"),
    [
        (config_space([(0x000D, 0x001D)]), 0x1D, True),
        (config_space([(0x0001, 0), (0x0019, 0)]), None, True),
        (config_space([]), None, True),
        (b"\xff" * 4096, None, True),
        (bytes(64), None, False),
        (bytes(256), None, True),  # conventional PCI: no extended space, so nothing is hidden
    ],
)
def test_acs(bus: Path, config: bytes, acs: int | None, readable: bool) -> None:
    (bus / "config").write_bytes(config)
    found = pci.pci()
    port = next(d for d in found.devices if d.class_code == pci.BRIDGE)
    assert (port.acs, found.config_readable) == (acs, readable)


def test_a_chain_of_capabilities_that_bites_its_tail_ends() -> None:
    space = bytearray(config_space([(0x0001, 0)]))
    struct.pack_into("<I", space, 0x100, 0x0001 | 1 << 16 | 0x100 << 20)
    assert pci._acs(bytes(space)) is None


@pytest.mark.parametrize(
    ("chain", "sizes"),
    [
        ({0x40: (0x01, 0x60), 0x60: (0x10, 0x00)}, (256, 4096)),  # power management, then PCI Express
        ({0x40: (0x01, 0x00)}, (None, None)),
        ({0x40: (0x01, 0x40)}, (None, None)),  # bites its tail
        ({0x40: (0x01, 0xFC), 0xFC: (0x10, 0x00)}, (None, None)),  # runs over the end
        ({}, (None, None)),
    ],
)
def test_packet_sizes(bus: Path, chain: dict[int, tuple[int, int]], sizes: tuple[int | None, int | None]) -> None:
    space = bytearray(256)
    space[0x34] = next(iter(chain), 0)
    for at, (capability, following) in chain.items():
        space[at : at + 2] = bytes([capability, following])
        if at + 10 <= len(space):
            struct.pack_into("<H", space, at + 8, 1 << 5 | 5 << 12)
    (bus / "0000:17:00.0/config").write_bytes(space)
    gpu = next(d for d in pci.pci().devices if d.address == "0000:17:00.0")
    assert (gpu.max_payload, gpu.max_read_request) == sizes
    (bus / "0000:17:00.0/config").write_bytes(bytes(space[:64]))
    gpu = next(d for d in pci.pci().devices if d.address == "0000:17:00.0")
    assert (gpu.max_payload, gpu.max_read_request) == (None, None), "all that is seen without root"


# ------------------------------------------------------------------------------------------------------------- network


def test_interfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"type": "1\n", "mtu": "9000\n", "flags": "0x1003\n", "operstate": "up\n", "carrier": "1\n"}
    net = tmp_path / "net"
    put(
        net / "ens1",
        {
            **base,
            "speed": "100000\n",
            "duplex": "full\n",
            "carrier_changes": "3\n",
            "device/vendor": "0x15b3\n",
            "device/device": "0x101d\n",
            "statistics/rx_errors": "5\n",
            "statistics/rx_packets": "100\n",
        },
    )
    put(
        net / "ens2", {**base, "speed": "-1\n", "flags": "0x1002\n", "device/vendor": "0x15b3\n", "device/physfn/x": ""}
    )
    put(net / "bond0", {**base, "speed": "4294967295\n"})
    put(net, {"bonding_masters": "bond0\n"})
    put(net / "elsewhere", base)
    (net / "ens1/master").symlink_to(net / "bond0")
    (net / "ens1/device/driver").symlink_to(tmp_path)
    monkeypatch.setattr(network, "INTERFACES", net)
    monkeypatch.setattr(network, "RDMA", put(tmp_path / "ib", {"mlx5_1/x": "", "mlx5_0/x": ""}))
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "bond0"), (2, "ens2"), (3, "ens1")])
    found = network.network()
    assert [i.name for i in found.interfaces] == ["ens1", "ens2", "bond0"], "physical ones first, foreign ones not"
    first, second, bond = found.interfaces
    assert (first.speed, first.duplex, first.model, first.master) == (100_000_000_000, "full", "15b3:101d", "bond0")
    assert (first.admin_up, first.carrier, first.driver) == (True, True, tmp_path.name)
    assert first.counters == {"rx_errors": 5, "rx_packets": 100}
    assert (second.speed, second.admin_up, second.virtual_function, second.model) == (None, False, True, "")
    assert (bond.physical, bond.speed) == (False, None)
    assert found.rdma == ["mlx5_0", "mlx5_1"]


def test_every_name_of_the_group_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(name: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if name == "node2":
            raise socket.gaierror(-2, "Name or service not known")
        return [(2, 1, 6, "", (f"10.0.0.{name[-1]}", 0))] * 2

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    monkeypatch.setenv(HOSTS_VARIABLE, "node[1-3],-x")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "other[1-9]")
    assert network.names().answers == {"node1": ["10.0.0.1"], "node2": [], "node3": ["10.0.0.3"]}
    monkeypatch.delenv(HOSTS_VARIABLE)
    assert list(network.names().answers) == [f"other{i}" for i in range(1, 10)]
    monkeypatch.setattr(network, "NAMES_LIMIT", 4)
    assert (len(network.names().answers), network.names().cut) == (4, True)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-")
    with pytest.raises(ValueError, match="no node set"):
        network.names()
    monkeypatch.delenv("SLURM_JOB_NODELIST")
    assert network.names().answers == {}


PING = """#!/bin/sh
for last; do :; done
case "$* $last" in
  *" 10.0.0.9") exit 1 ;;
  *"-s 8972 "*" 10.0.0.2") exit 1 ;;
  *REFUSED*) echo "ping: socket: Operation not permitted" >&2; exit 2 ;;
esac
exit 0
"""


@pytest.fixture
def two_rails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rails ens1 and ens2 (RoCE), ib0 (InfiniBand), ens3 (no link), and a ping that answers as PING says."""
    for name, device, layer, state in (
        ("ens1", "mlx5_0", "Ethernet", "4: ACTIVE"),
        ("ens2", "mlx5_1", "Ethernet", "4: ACTIVE"),
        ("ib0", "mlx5_2", "InfiniBand", "4: ACTIVE"),
        ("ens3", "mlx5_3", "Ethernet", "1: DOWN"),
    ):
        port = {"link_layer": f"{layer}\n", "state": f"{state}\n"}
        put(tmp_path / "ib" / device, {f"ports/1/{k}": v for k, v in port.items()} | {f"device/net/{name}/x": ""})
        put(tmp_path / "net" / name, {"mtu": "9000\n"})
    arp = "IP address       HW type     Flags       HW address            Mask     Device\n"
    for address, flags, device in (
        ("10.0.0.9", "0x2", "ens1"),
        ("10.0.0.2", "0x2", "ens1"),
        ("10.0.0.1", "0x0", "ens1"),
        ("10.0.0.3", "0x2", "ens3"),
    ):
        arp += f"{address}         0x1         {flags}         08:c0:eb:00:00:01     *        {device}\n"
    route = "Iface\tDestination\tGateway\tFlags\nens2\t00000000\t0102000A\t0003\nens1\t00000A\t00000000\t0001\n"
    put(tmp_path, {"arp": arp, "route": route, "bin/ping": PING})
    (tmp_path / "bin/ping").chmod(0o755)
    monkeypatch.setattr(rails, "DEVICES", tmp_path / "ib")
    monkeypatch.setattr(rails, "INTERFACES", tmp_path / "net")
    monkeypatch.setattr(rails, "NEIGHBOURS", tmp_path / "arp")
    monkeypatch.setattr(rails, "ROUTES", tmp_path / "route")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def test_a_rail_asks_its_neighbour_first_and_its_gateway_last(two_rails: Path) -> None:
    assert rails.rail_paths().rails == [
        RailPath("ens1", 9000, "10.0.0.2", small=True, full=False),
        RailPath("ens2", 9000, "10.0.2.1", gateway=True, small=True, full=True),
    ]


def test_a_rail_whose_neighbours_keep_silent_or_are_not_known(two_rails: Path) -> None:
    arp = (two_rails / "arp").read_text()
    (two_rails / "arp").write_text("".join(line for line in arp.splitlines(True) if "10.0.0.2" not in line))
    (two_rails / "route").write_text("Iface\tDestination\tGateway\tFlags\n")
    assert rails.rail_paths().rails == [RailPath("ens1", 9000, "10.0.0.9"), RailPath("ens2", 9000)]


def test_a_ping_that_may_not_ask_says_so(two_rails: Path) -> None:
    (two_rails / "bin/ping").write_text(PING.replace("*REFUSED*", "*"))
    for rail in rails.rail_paths().rails:
        assert (rail.small, rail.full, rail.error) == (False, False, "ping: socket: Operation not permitted")


def test_python_packages_are_found_without_running_any_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def metadata(name: str, version: str) -> str:
        return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: x\n"

    site = "lib/python3.11/site-packages"
    put(
        tmp_path,
        {
            f"opt/conda/{site}/torch-2.5.1.dist-info/METADATA": metadata("torch", "2.5.1+cu124"),
            f"opt/conda/{site}/torchvision-0.20.dist-info/METADATA": metadata("torchvision", "0.20"),
            f"opt/conda/{site}/nvidia_nccl_cu12-2.21.5.dist-info/METADATA": metadata("nvidia-nccl-cu12", "2.21.5"),
            f"opt/conda/{site}/mindspore-2.3.dist-info/METADATA": "no version here\n",
            f"venv/{site}/torch_npu-2.1.0.post8.dist-info/METADATA": metadata("torch-npu", "2.1.0.post8"),
            f"venv/{site}/triton-3.1.egg-info/PKG-INFO": metadata("triton", "3.1"),
            f"venv/{site}/torch/version.py": "raise SystemExit('was imported')\n",
            "usr/local/Ascend/ascend-toolkit/latest/python/site-packages/te-0.4.0.dist-info/METADATA": metadata(
                "te", "0.4.0"
            ),
        },
    )
    monkeypatch.setattr(packages, "ROOT", tmp_path)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "venv"))
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.setattr("shutil.which", lambda _: None)
    found = packages.python_packages()
    assert sorted(found.packages, key=lambda p: p.name) == [
        PythonPackage("nvidia-nccl-cu12", "2.21.5", str(tmp_path / "opt/conda")),
        PythonPackage("te", "0.4.0", str(tmp_path / "usr/local/Ascend/ascend-toolkit/latest/python")),
        PythonPackage("torch", "2.5.1+cu124", str(tmp_path / "opt/conda")),
        PythonPackage("torch-npu", "2.1.0.post8", str(tmp_path / "venv")),
        PythonPackage("triton", "3.1", str(tmp_path / "venv")),
    ]
    assert len(found.looked) == 3


def test_the_resolver_tells_own_addresses_from_foreign_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        (2, 1, 6, "", ("127.0.0.1", 0)),
        (2, 1, 6, "", ("192.0.2.1", 0)),
        (10, 1, 6, "", ("2001:db8::1", 0, 0, 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answers)
    found = network.resolver()
    assert found.addresses == ["127.0.0.1", "192.0.2.1", "2001:db8::1"]
    assert found.local == ["127.0.0.1"], "192.0.2.0/24 and 2001:db8::/32 are nobody's (RFC 5737, 3849)"


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    found = network.resolver()
    assert (found.addresses, found.error) == ([], "Name or service not known")


# ------------------------------------------------------------------------------------------------------------- storage

MOUNTINFO = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 9:0 / / rw,relatime shared:1 - ext4 /dev/md0 rw
28 27 9:0 /data /a/much/longer/bind rw,relatime - ext4 /dev/md0 rw
29 27 9:0 / /ro/bind ro,relatime - ext4 /dev/md0 rw
30 27 259:1 / /mnt/with\040blank rw - xfs /dev/nvme1n1 ro,noquota
31 27 0:55 / /home rw - nfs4 10.0.0.5:/home rw,vers=4.2
32 27 0:60 / /var/lib/docker/overlay2/abc/merged rw - overlay overlay rw
33 27 7:1 / /snap/core/1 ro - squashfs /dev/loop1 ro
34 27 0:70 / /run/user/1000/doc rw - fuse.portal portal rw
35 27 8:1 / /bad rw - ext4 /dev/sda1 rw,emergency_ro
"""


def test_mounts_of_real_file_systems() -> None:
    found = {m.mount: m for m in storage.mounts(MOUNTINFO)}
    assert set(found) == {"/", "/ro/bind", "/mnt/with blank", "/home", "/run/user/1000/doc", "/bad"}
    assert (found["/ro/bind"].read_only, found["/ro/bind"].super_read_only) == (True, False)
    assert found["/mnt/with blank"].super_read_only
    assert found["/bad"].super_read_only
    assert [m.mount for m in found.values() if m.shared] == ["/home", "/run/user/1000/doc"]


def test_the_root_of_a_container_counts() -> None:
    (found,) = storage.mounts("1 0 0:60 / / rw - overlay overlay rw\n2 1 0:61 / /proc rw - proc proc rw\n")
    assert (found.mount, found.type) == ("/", "overlay")


def test_a_dead_file_system_takes_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs

    def statvfs(path: str) -> os.statvfs_result:
        if path == "/dead":
            time.sleep(300)
        if path == "/refused":
            raise PermissionError(13, "Permission denied")
        if path == "/stale":
            raise OSError(116, "Stale file handle")
        return real("/")

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(storage, "SHARED_LIMIT", 0.4)
    wanted = [
        Filesystem(name, "s:/x", "nfs4", False, False, True) for name in ("/dead", "/alive", "/refused", "/stale")
    ]
    started = time.monotonic()
    found = {f.mount: f for f in storage._measured_by_children(wanted)}
    assert time.monotonic() - started < 2.0
    assert {name: f.status for name, f in found.items()} == {
        "/dead": "timeout",
        "/alive": "ok",
        "/refused": "denied",
        "/stale": "error",
    }
    assert found["/alive"].size > 0
    assert found["/stale"].detail == "Stale file handle"
    deadline = time.monotonic() + 2.0
    while True:  # the killed child may need a moment; then nothing is left
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ----------------------------------------------------------------------------------------------- processes, kernel log

_STUCK = """
import ctypes, os, platform, time
CLONE_VFORK, SIGCHLD = 0x4000, 17
number = {"x86_64": 56, "aarch64": 220}[platform.machine()]
if ctypes.CDLL(None).syscall(number, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0) == 0:
    print(os.getppid(), flush=True)
    time.sleep(30)
    os._exit(0)
"""


def test_a_process_that_does_not_wake_up_is_stuck() -> None:
    """A parent waits in uninterruptible sleep (state D) for the child that it made with CLONE_VFORK."""
    with subprocess.Popen(
        [sys.executable, "-c", _STUCK], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        try:
            assert started.stdout is not None
            assert int(started.stdout.readline()) == started.pid
            found = system.processes()
        finally:
            os.killpg(started.pid, 9)
    assert started.pid in [p.pid for p in found.stuck]
    assert found.states["D"] >= 1
    assert found.looked >= (system.LOOKS - 1) * system.BETWEEN_LOOKS


def test_zombies_are_counted() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        deadline = time.monotonic() + 10
        while True:
            found = system.processes()
            if found.states.get("Z", 0):
                break
            assert time.monotonic() < deadline
        assert child.returncode is None
    assert found.zombies


def test_names_with_blanks_and_parentheses(tmp_path: Path) -> None:
    script = tmp_path / "a) (b c"
    script.write_text("#!/bin/sh\nsleep 30\n")
    script.chmod(0o755)
    with subprocess.Popen([script], start_new_session=True) as child:
        try:
            deadline = time.monotonic() + 10
            while (found := system._stat(str(child.pid))) is None or found[0] != "a) (b c":
                assert time.monotonic() < deadline
        finally:
            os.killpg(child.pid, 9)
    assert found[1] in "SRD"
    assert system._stat("999999999") is None


def test_lines_of_the_kernel_log_in_each_form() -> None:
    line = system._SYSLOG_LINE.match("<3>[ 1234.567890] nfs: server x not responding")
    assert line is not None
    assert (line[1], line[2], line[3]) == ("3", "1234.567890", "nfs: server x not responding")
    line = system._SYSLOG_LINE.match("<4>[    0.5][    T1] with a caller")
    assert line is not None
    assert line[3] == "with a caller"
    line = system._JOURNAL_LINE.match("1767225600.123456 node1 kernel: usb 1-1: new device")
    assert line is not None
    assert (line[1], line[2]) == ("1767225600.123456", "usb 1-1: new device")


def test_the_newest_lines_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [LogLine(float(i), 6, "x" * 68) for i in range(100)]
    monkeypatch.setattr(system, "LOG_BYTES", 1000)
    found = system._newest("here", 100.0, lines)
    assert found.cut
    assert [line.time for line in found.lines] == [float(i) for i in range(90, 100)]
    assert not system._newest("here", 100.0, lines[:3]).cut


def test_the_log_falls_back_and_tells_of_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(boot: float) -> list[LogLine]:
        raise PermissionError(1, "Operation not permitted")

    def absent(boot: float) -> list[LogLine]:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(system, "_from_kmsg", absent)
    monkeypatch.setattr(system, "_from_syslog", refuse)
    monkeypatch.setattr(system, "_from_journal", lambda boot: [LogLine(1.0, -1, "from the journal")])
    found = system.kernel_log()
    assert (found.came_from, found.lines[0].text) == ("journalctl", "from the journal")
    monkeypatch.setattr(system, "_from_journal", absent)
    with pytest.raises(PermissionError):
        system.kernel_log()


def test_a_journal_that_shows_nothing_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "journalctl"
    tool.write_text("#!/bin/sh\necho 'No journal files were opened due to insufficient permissions.'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(PermissionError):
        system._from_journal(0.0)
    tool.write_text("#!/bin/sh\necho '12.5 n kernel: hello'\n")
    assert system._from_journal(0.0) == [LogLine(12.5, -1, "hello")]
    tool.write_text("#!/bin/sh\nexec sleep 30\n")
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        system._from_journal(0.0)
    assert time.monotonic() - started < 10


# ------------------------------------------------------------------------------------------------ container, hypervisor

FIRST, OWN = "pid:[4026531836]", "pid:[4026532299]"
EXT4, OVERLAY = "/dev/sda1 / ext4 rw 0 0\n", "overlay / overlay rw 0 0\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host on metal."""
    monkeypatch.setattr(system, "ROOT", tmp_path)
    monkeypatch.delenv("container", raising=False)
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    (tmp_path / "proc/self/ns/pid").symlink_to(FIRST)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    return put(
        tmp_path,
        {
            "proc/self/mounts": EXT4,
            "proc/self/cgroup": "0::/user.slice/session-3.scope\n",
            "proc/1/cgroup": "0::/init.scope\n",
            "proc/1/comm": "systemd\n",
            "proc/cpuinfo": "flags\t\t: fpu vme sse2\n",
        },
    )


def contained(machine: Path, cgroup: str = "0::/\n") -> Path:
    (machine / "proc/self/ns/pid").unlink()
    (machine / "proc/self/ns/pid").symlink_to(OWN)
    return put(machine, {"proc/self/mounts": OVERLAY, "proc/self/cgroup": cgroup, "proc/1/cgroup": cgroup})


def test_a_host_is_no_container(machine: Path) -> None:
    found = system.container()
    assert (found.kind, found.vm, found.init, found.systemd) == ("", "", "systemd", True)
    assert (found.cpu_limit, found.memory_limit) == (None, None)


def test_a_machine_made_from_an_image_is_no_container(machine: Path) -> None:
    put(machine, {".dockerenv": ""})
    assert system.container().kind == ""


@pytest.mark.parametrize(
    ("files", "cgroup", "kind"),
    [
        ({".dockerenv": ""}, "0::/\n", "docker"),
        ({"run/.containerenv": "engine=podman\n"}, "0::/\n", "podman"),
        ({"run/systemd/container": "lxc\n"}, "0::/\n", "lxc"),
        ({}, "12:cpu:/kubepods/burstable/pod1/abc\n", "kubepods"),
        ({}, "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-0123456789ab.scope\n", "kubepods"),
        ({}, "0::/system.slice/docker-0123456789abcdef.scope\n", "docker"),
        ({}, "1:cpu:/docker/0123456789abcdef\n", "docker"),
        ({}, "0::/\n", "other"),
    ],
)
def test_containers(machine: Path, files: dict[str, str], cgroup: str, kind: str) -> None:
    put(contained(machine, cgroup), files)
    assert system.container().kind == kind


def test_the_docker_service_itself_is_no_container(machine: Path) -> None:
    put(machine, {"proc/self/cgroup": "0::/system.slice/docker.service\n"})
    assert system.container().kind == ""


@pytest.mark.parametrize(
    ("files", "vm"),
    [
        ({"sys/class/dmi/id/sys_vendor": "QEMU\n"}, "kvm"),
        (
            {"sys/class/dmi/id/sys_vendor": "Microsoft\n", "sys/class/dmi/id/product_name": "Virtual Machine\n"},
            "hyperv",
        ),
        ({"sys/class/dmi/id/sys_vendor": "Amazon EC2\n", "sys/class/dmi/id/product_name": "c7g.large\n"}, "amazon"),
        ({"sys/class/dmi/id/sys_vendor": "Amazon EC2\n", "sys/class/dmi/id/product_name": "c7g.metal\n"}, ""),
        ({"proc/cpuinfo": "flags\t\t: fpu hypervisor lahf_lm\n"}, "other"),
        ({"sys/class/dmi/id/sys_vendor": "Dell Inc.\n"}, ""),
    ],
)
def test_hypervisors(machine: Path, files: dict[str, str], vm: str) -> None:
    put(machine, files)
    assert system.container().vm == vm


@pytest.mark.parametrize(
    ("cgroup", "files", "limits"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, (1.5, None)),
        ("0::/a\n", {"a/memory.max": "1073741824\n", "memory.max": "max\n"}, (None, 1 << 30)),
        (
            "4:cpu,cpuacct:/d\n",
            {"cpu/d/cpu.cfs_quota_us": "400000\n", "cpu/d/cpu.cfs_period_us": "100000\n"},
            (4.0, None),
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, (None, None)),
        ("5:memory:/d\n", {"memory/d/memory.limit_in_bytes": "9223372036854771712\n"}, (None, None)),
        ("5:memory:/d\n", {"memory/d/memory.limit_in_bytes": "536870912\n"}, (None, 512 << 20)),
    ],
)
def test_limits_of_control_groups(
    machine: Path, cgroup: str, files: dict[str, str], limits: tuple[float | None, int | None]
) -> None:
    put(machine, {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}})
    found = system.container()
    assert (found.cpu_limit, found.memory_limit) == limits
