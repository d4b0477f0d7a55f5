"""RDMA ports as the kernel shows them: which can be used, what they are attached to, who uses them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from cwai_bench.probes import hca


class Sysfs:
    """A /sys/class and a /dev/infiniband of a test's own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.dev = folder / "class", folder / "dev"
        self.dev.mkdir()

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text + "\n")

    def device(self, name: str, *, ports: int = 1, state: str = "4: ACTIVE", rate: str = "400 Gb/sec (4X NDR)") -> None:
        for port in range(1, ports + 1):
            here = f"infiniband/{name}/ports/{port}"
            self.write(f"{here}/state", state)
            self.write(f"{here}/rate", rate)
            self.write(f"{here}/gid_attrs/ndevs/0", f"eth_{name}_{port}")
        for key, value in {
            "local_cpulist": "0-1,8-9",
            "current_link_speed": "32.0 GT/s PCIe",
            "current_link_width": "16",
        }.items():
            self.write(f"infiniband/{name}/device/{key}", value)
        number = len(list(self.dev.iterdir()))
        self.write(f"infiniband_verbs/uverbs{number}/ibdev", name)
        (self.dev / f"uverbs{number}").touch()

    def ports(self) -> list[hca.Port]:
        return hca.ports(self.root, self.dev, self.root / "pci")


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


def test_an_active_port_is_told_whole(sysfs: Sysfs) -> None:
    sysfs.device("mlx5_0")
    assert sysfs.ports() == [
        hca.Port("mlx5_0", "mlx5_0", 1, 50e9, ("eth_mlx5_0_1",), (0, 1, 8, 9), "32.0 GT/s PCIe", 16)
    ]
    assert sysfs.ports()[0].trouble is None


def test_a_port_has_its_number_where_there_are_several(sysfs: Sysfs) -> None:
    sysfs.device("mlx4_0", ports=2)
    assert [(p.name, p.device, p.port) for p in sysfs.ports()] == [("mlx4_0:1", "mlx4_0", 1), ("mlx4_0:2", "mlx4_0", 2)]


def test_ports_that_are_down_and_virtual_functions_are_left_out(sysfs: Sysfs) -> None:
    sysfs.device("mlx5_0", state="1: DOWN")
    sysfs.device("mlx5_1")
    sysfs.device("mlx5_2")
    sysfs.write("infiniband/mlx5_2/device/physfn/vendor", "0x15b3")
    assert [p.name for p in sysfs.ports()] == ["mlx5_1"]


def test_without_rdma_there_are_no_ports(tmp_path: Path) -> None:
    assert hca.ports(tmp_path / "none", tmp_path / "none") == []


def test_a_software_device_has_no_pcie_link_and_no_numa_node(sysfs: Sysfs) -> None:
    sysfs.write("infiniband/rxe0/ports/1/state", "4: ACTIVE")
    sysfs.write("infiniband/rxe0/ports/1/rate", "2.5 Gb/sec (1X SDR)")
    (port,) = sysfs.ports()
    assert (port.speed, port.cpus, port.pcie_speed, port.pcie_width) == (0.3125e9, (), "", 0)


@pytest.mark.parametrize(
    ("rate", "netdev", "expected"),
    [("10 Gb/sec (4X)", "200000", 25e9), ("200 Gb/sec (4X HDR)", "-1", 25e9), ("unknown", "100000", 12.5e9)],
)
def test_the_speed_is_the_larger_that_a_driver_tells(sysfs: Sysfs, rate: str, netdev: str, expected: float) -> None:
    sysfs.device("hns_0", rate=rate)
    sysfs.write("net/eth_hns_0_1/speed", netdev)
    assert sysfs.ports()[0].speed == expected


def test_a_device_that_cannot_be_opened_says_why(sysfs: Sysfs) -> None:
    sysfs.device("mlx5_0")
    (sysfs.dev / "uverbs0").unlink()
    (port,) = sysfs.ports()
    assert port.trouble is not None
    assert "mlx5_0" in port.trouble.en
    assert "/dev/infiniband" in port.trouble.zh


def test_a_device_of_others_says_so(sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    sysfs.device("mlx5_0")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "may not open" in str(sysfs.ports()[0].trouble)


@pytest.mark.parametrize(
    ("text", "expected"), [("0-3,8", (0, 1, 2, 3, 8)), ("5", (5,)), ("", ()), ("x", ()), ("1-", (1,)), ("3-x", ())]
)
def test_lists_of_cpus(text: str, expected: tuple[int, ...]) -> None:
    assert hca.cpus_of(text) == expected


def test_each_nic_has_a_cpu_of_its_own_near_it() -> None:
    near, far = (0, 1), (2, 3)
    assert hca.seats([near, near, far, near, ()], range(4)) == [0, 1, 2, -1, -1]
    assert hca.seats([near], {1}) == [1]


def test_the_allowed_cpus_are_no_fewer_than_those_of_this_thread() -> None:
    bound = os.sched_getaffinity(0)
    assert hca.allowed_cpus() >= bound
    assert os.sched_getaffinity(0) == bound


@pytest.mark.parametrize(("words", "busy"), [(250_000, False), (2_500_000_000 // 4, True)])
def test_traffic_over_rdma_makes_a_nic_busy(sysfs: Sysfs, words: int, busy: bool) -> None:
    """A tenth of a second at 50 GB/s: 1 MB is nothing, 2.5 GB half of it."""
    sysfs.device("mlx5_0")
    sysfs.device("mlx5_1")
    counters = "infiniband/mlx5_0/ports/1/counters"
    sysfs.write(f"{counters}/port_rcv_data", "0")
    sysfs.write(f"{counters}/port_xmit_data", "0")

    def move() -> None:
        time.sleep(0.03)
        sysfs.write(f"{counters}/port_xmit_data", str(words))

    mover = threading.Thread(target=move)
    mover.start()
    found = hca.busy(sysfs.ports(), window=0.1, root=sysfs.root)
    mover.join()
    assert list(found) == (["mlx5_0"] if busy else [])


def test_the_nearest_gpu_shares_most_of_the_way_on_pci(sysfs: Sysfs, tmp_path: Path) -> None:
    """Two switches with a NIC and a GPU each, an audio function, and a card of somebody else."""
    tree = {
        "pci0000:15/0000:15:01.0/0000:16:00.0/0000:1b:00.0": ("0x10de", "0x030200"),
        "pci0000:15/0000:15:01.0/0000:16:00.0/0000:1b:00.1": ("0x10de", "0x040300"),
        "pci0000:3d/0000:3d:01.0/0000:3e:00.0/0000:43:00.0": ("0x10de", "0x030200"),
        "pci0000:3d/0000:3d:01.0/0000:3e:00.0/0000:44:00.0": ("0x1a03", "0x030000"),
    }
    (sysfs.root / "pci").mkdir(parents=True)
    for path, (vendor, kind) in tree.items():
        here = tmp_path / "devices" / path
        here.mkdir(parents=True)
        (here / "vendor").write_text(vendor + "\n")
        (here / "class").write_text(kind + "\n")
        (sysfs.root / "pci" / here.name).symlink_to(here)
    gpus = hca.nvidia_gpus(sysfs.root / "pci")
    assert [gpu.name for gpu in gpus] == ["0000:1b:00.0", "0000:43:00.0"]
    for nic, gpu in (("pci0000:3d/0000:3d:01.0/0000:3f:00.0", "0000:43:00.0"), ("pci0000:80/x", "0000:1b:00.0")):
        assert hca.nearest_gpu(tmp_path / "devices" / nic, gpus) == gpu
    assert hca.nearest_gpu(tmp_path, []) == ""
    sysfs.device("mlx5_0")
    assert sysfs.ports()[0].gpu == "0000:1b:00.0"
