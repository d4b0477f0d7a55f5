"""RDMA devices of made-up systems."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cwai_bench.discover import rdma
from cwai_bench.sources import Rdma

GID = "fe80:0000:0000:0000:a088:c203:00d1:4400"
V4 = "0000:0000:0000:0000:0000:ffff:0a64:010b"
NONE = "0000:0000:0000:0000:0000:0000:0000:0000"


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def made_up(root: Path, name: str, address: str, port: dict[str, str], *, netdev: str, virtual: bool = False) -> None:
    pci = put(root / "pci" / address, {"numa_node": "1\n", f"net/{netdev}/x": ""})
    if virtual:
        (pci / "physfn").mkdir()
    here = put(
        root / "class" / name,
        {"fw_ver": "28.39.3004\n", "board_id": "MT_0000000838\n", "hca_type": "MT4129\n"}
        | {f"ports/1/{path}": text for path, text in port.items()},
    )
    (here / "device").symlink_to(pci)


PORT = {
    "link_layer": "InfiniBand\n",
    "state": "4: ACTIVE\n",
    "phys_state": "5: LinkUp\n",
    "rate": "400 Gb/sec (4X NDR)\n",
    "lid": "0x65\n",
    "sm_lid": "0x1\n",
    "pkeys/0": "0xffff\n",
    "pkeys/1": "0x0000\n",
    "gids/0": f"{GID}\n",
    "gids/1": f"{NONE}\n",
    "gids/2": "fe80:0000:0000:0000:0000:0000:0000:0000\n",
    "gids/10": f"{V4}\n",
    "gid_attrs/types/10": "RoCE v2\n",
    "gid_attrs/ndevs/10": "eth0\n",
    "counters/symbol_error": "7\n",
    "counters/port_xmit_wait": "N/A (no PMA)\n",
    "hw_counters/out_of_sequence": "4294967295\n",
    "hw_counters/lifespan": "10\n",
}


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for constant, path in (("DEVICES", "class"), ("VERBS", "verbs"), ("USER", "dev")):
        monkeypatch.setattr(rdma, constant, tmp_path / path)
    return tmp_path


def look(monkeypatch: pytest.MonkeyPatch, meanwhile: dict[str, str], root: Path) -> Rdma:
    """Ask, while ``meanwhile`` is written between both looks."""
    monkeypatch.setattr(time, "sleep", lambda _: put(root, meanwhile))
    return rdma.rdma()


def test_a_made_up_node(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(system, "mlx5_1", "0000:1a:00.1", PORT, netdev="ib1", virtual=True)
    made_up(system, "mlx5_2", "0000:1a:00.0", PORT, netdev="ib0")
    put(system / "class/mlx5_2/tc/1", {"traffic_class": "Global tclass=106\n"})
    put(system / "verbs", {"uverbs0/ibdev": "mlx5_2\n", "abi_version": "6\n"})
    put(system / "dev", {"uverbs0": "", "rdma_cm": ""})
    found = look(monkeypatch, {"class/mlx5_2/ports/1/counters/symbol_error": "9\n"}, system)
    assert [d.name for d in found.devices] == ["mlx5_2", "mlx5_1"], "physical functions first"
    assert found.connection_manager == "ok"
    nic, function = found.devices
    assert (nic.firmware, nic.board, nic.hca_type) == ("28.39.3004", "MT_0000000838", "MT4129")
    assert (nic.address, nic.numa_node, nic.netdevs) == ("0000:1a:00.0", 1, ["ib0"])
    assert (nic.verbs, function.verbs) == ("ok", "missing")
    assert (nic.virtual_function, function.virtual_function) == (False, True)
    (port,) = nic.ports
    assert (port.link_layer, port.state, port.phys_state) == ("InfiniBand", "ACTIVE", "LinkUp")
    assert (port.rate, port.lid, port.sm_lid) == ("400 Gb/sec (4X NDR)", 0x65, 1)
    assert (port.pkeys, port.traffic_class) == ({0: 0xFFFF}, "Global tclass=106")
    assert [(g.index, g.gid, g.type, g.netdev) for g in port.gids] == [(0, GID, "", ""), (10, V4, "RoCE v2", "eth0")]
    assert port.before == {"symbol_error": 7, "out_of_sequence": 4294967295}
    assert port.after["symbol_error"] == 9


def test_a_node_without_rdma_is_not_waited_for(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("there is nothing to look at"))
    found = rdma.rdma()
    assert (found.devices, found.connection_manager) == ([], "missing")


def test_what_is_read_is_bounded(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"gids/{i}": f"{GID}\n" for i in range(400)} | {f"counters/c{i}": "1\n" for i in range(300)}
    made_up(system, "mlx5_0", "0000:1a:00.0", many | {"state": "garbage", "lid": "x" * 10}, netdev="ib0")
    (device,) = look(monkeypatch, {}, system).devices
    (port,) = device.ports
    assert (len(port.gids), len(port.before)) == (rdma.GIDS_LIMIT, rdma.COUNTERS_LIMIT)
    assert (port.state, port.phys_state, port.lid) == ("", "", 0)


def test_a_device_that_is_no_pci_function(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soft-RoCE: no device behind it, no counters folder."""
    put(system / "class/rxe0/ports/1", {"state": "4: ACTIVE\n", "hw_counters/retry_exceeded_err": "0\n"})
    (device,) = look(monkeypatch, {}, system).devices
    assert (device.address, device.numa_node, device.netdevs) == ("", -1, [])
    assert device.ports[0].before == {"retry_exceeded_err": 0}
