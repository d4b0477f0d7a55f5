"""Items of the collective library, its plugins and its settings: at home, and with a fault planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest

from cwai_bench.checks import CHECKS
from cwai_bench.checks.nccl import NCCL, SETTINGS
from cwai_bench.judge import check_facts
from cwai_bench.model import Facts, Status, Verdict
from tests.unit.conftest import Planted, home_of

PASS, WARN, FAIL, UNKNOWN, SKIP = Status.PASS, Status.WARN, Status.FAIL, Status.UNKNOWN, Status.SKIP
Plant = Callable[[Planted], Planted]
OURS = [id for id in CHECKS if CHECKS[id].info.scope == "nccl"]
CTCCL, WHEEL = "/opt/ctccl/lib/libnccl.so.2", "/opt/conda/lib/python3.11/site-packages/nvidia/nccl/lib/libnccl.so.2"


class Case(NamedTuple):
    """``says``: what the observed value, the detail or the reason code must hold."""

    check: str
    plant: Plant
    status: Status
    says: str
    node: str = "good"


def judged(facts: Facts, check: str) -> Verdict:
    (verdict,) = check_facts([facts], [check])
    return verdict


def answer(node: Planted, name: str) -> Any:
    return msgspec.json.decode((node.root / f"calls/{name}.json").read_bytes())


def setting(**environment: str) -> Plant:
    """Add to the environment, which wins over the files."""
    return lambda n: n.call("nccl_settings", environment=answer(n, "nccl_settings")["environment"] | environment)


def conf(*lines: tuple[str | None, str], status: str = "ok", asked: bool = False) -> Plant:
    """The user's own file, with these lines more."""

    def plant(n: Planted) -> Planted:
        told = answer(n, "nccl_settings")["files"]
        told[0] |= {"status": status, "asked": asked, "lines": [[i + 1, *line] for i, line in enumerate(lines)]}
        return n.call("nccl_settings", files=told)

    return plant


def loads(path: str, how: str = "RPATH", by: str = "torch 2.5.1 (/opt/conda)") -> Plant:
    """Torch loads another library, and any program that of LD_PRELOAD."""

    def plant(n: Planted) -> Planted:
        program = {"by": "program", "how": "LD_PRELOAD", "path": CTCCL}
        return n.call("nccl", uses=[{"by": by, "how": how, "path": path}, program])

    return plant


def library(**changes: object) -> Plant:
    """Change what is told of the library that is loaded."""
    return lambda n: n.rows("nccl", "libraries", {"path": CTCCL}, **changes)


def plugin(kind: str, **changes: object) -> Plant:
    return lambda n: n.rows("nccl", "plugins", {"kind": kind}, **changes)


def both(*plants: Plant) -> Plant:
    def plant(n: Planted) -> Planted:
        for each in plants:
            each(n)
        return n

    return plant


def process(status: str = "ok", uses: list[dict[str, str]] | None = None) -> Plant:
    return lambda n: n.call("nccl", process=4242, status=status, uses=uses or [], libraries=[])


def down(name: str) -> Plant:
    """A device whose port is not active."""

    def plant(n: Planted) -> Planted:
        told = answer(n, "rdma")
        next(device for device in told["devices"] if device["name"] == name)["ports"][0]["state"] = "DOWN"
        return n.call("rdma", devices=told["devices"])

    return plant


FOO = {"wanted": "foo", "tried": ["foo", "libnccl-net-foo.so"], "path": "", "exports": []}
NO_PLUGIN = plugin("net", path="", exports=[])
PLAIN_NCCL = "NCCL version 2.19.4+cuda12.2"
CASES = [
    Case("nccl.library", lambda n: n.call("nccl", preloads=["/opt/old/libnccl.so.2"]), FAIL, "/opt/old/libnccl.so.2"),
    Case("nccl.library", library(problem="it is no ELF file", line=""), FAIL, "it is no ELF file"),
    Case("nccl.library", library(line=""), UNKNOWN, "no version line"),
    Case("nccl.library", lambda n: n.call("nccl", uses=[], libraries=[]), SKIP, "absent"),
    Case("nccl.library", process("denied"), UNKNOWN, "permission"),
    Case("nccl.library", process("missing"), UNKNOWN, "has ended"),
    Case("nccl.library", process(), UNKNOWN, "or not yet"),
    Case(
        "nccl.drop_in", loads(WHEEL), FAIL, f"{CTCCL} ≠ torch 2.5.1 (/opt/conda): NCCL version 2.21.5+cuda12.4, {WHEEL}"
    ),
    Case("nccl.drop_in", both(loads(WHEEL), library(line=PLAIN_NCCL)), WARN, f"{PLAIN_NCCL}, {CTCCL} ≠ torch"),
    Case("nccl.drop_in", both(loads(WHEEL), library(line=PLAIN_NCCL, named=False)), SKIP, "absent"),
    Case("nccl.plugins", plugin("net", **FOO), FAIL, "net foo: not found"),
    Case("nccl.plugins", plugin("net", **FOO), FAIL, "libnccl-net-foo.so"),
    Case("nccl.plugins", plugin("net", exports=[]), WARN, "exports no ncclNetPlugin_v*"),
    Case("nccl.plugins", plugin("net", exports=["ncclNetPlugin_v12"]), WARN, "the library looks for ncclNetPlugin_v5"),
    Case("nccl.plugins", plugin("net", wanted="hpcx", exports=["ncclNetPlugin_v4"]), FAIL, "exports ncclNetPlugin_v4"),
    Case("nccl.plugins", plugin("net", wanted="hpcx", lacks=["libsharp_coll.so.5"]), FAIL, "libsharp_coll.so.5"),
    Case("nccl.plugins", plugin("tuner", **FOO), FAIL, "tuner foo: not found"),
    Case(
        "nccl.plugins", plugin("net", wanted="x.so", problem="it is for aarch64", exports=[]), FAIL, "it is for aarch64"
    ),
    Case("nccl.plugins", both(NO_PLUGIN, setting(NCCL_NET="AWS Libfabric")), FAIL, "NCCL_NET=AWS Libfabric; -"),
    Case("nccl.plugins", setting(NCCL_NET="SHARP"), PASS, "v5, v6, v7, v8"),
    Case("nccl.plugins", NO_PLUGIN, PASS, "-"),
    Case("nccl.files", conf(status="missing", asked=True), FAIL, "/home/ops/.nccl.conf missing"),
    Case("nccl.files", conf(status="denied"), FAIL, "/home/ops/.nccl.conf denied"),
    Case("nccl.files", conf((None, "NCCL_DEBUG INFO")), WARN, "/home/ops/.nccl.conf:1"),
    Case("nccl.files", conf(("NCCL_CROSS_NIC", "2"), ("export NCCL_CROSS_NIC", "1")), WARN, ".nccl.conf:2"),
    Case("nccl.files", conf(("NCCL_TOPO_FILE", '"/etc/topo.xml"')), WARN, ".nccl.conf:1"),
    Case("nccl.files", conf(("LD_PRELOAD", CTCCL)), WARN, ".nccl.conf:1"),
    Case("nccl.files", conf(("NCCL_CROSS_NIC", "2")), PASS, "/home/ops/.nccl.conf 1, /etc/nccl.conf 3"),
    Case("nccl.names", setting(NCCL_IB_TIMOUT="22"), WARN, "NCCL_IB_TIMOUT → NCCL_IB_TIMEOUT"),
    Case("nccl.names", setting(NCCL_MNNVL_ENABLE="1"), WARN, "NCCL_MNNVL_ENABLE"),
    Case("nccl.names", setting(CTCCL_IB_RETRY_DISABLE="0", NCCL_IBEXT_DISABLE="0", NCCL_VERSION="2.19"), PASS, "8"),
    Case("nccl.values", setting(NCCL_IB_QPS_PER_CONNECTION="129"), FAIL, "NCCL_IB_QPS_PER_CONNECTION=129"),
    Case("nccl.values", setting(NCCL_IB_RETRY_CNT="8"), FAIL, "is not in 0..7"),
    Case("nccl.values", setting(NCCL_IB_TIMEOUT="32"), FAIL, "is not in 0..31"),
    Case("nccl.values", setting(NCCL_IB_DISABLE="no"), FAIL, "NCCL reads 0"),
    Case("nccl.values", setting(NCCL_CROSS_NIC="3"), FAIL, "NCCL_CROSS_NIC=3"),
    Case("nccl.values", setting(NCCL_SOCKET_NTHREADS="16", NCCL_NSOCKS_PERTHREAD="8"), FAIL, "= 128"),
    Case("nccl.values", setting(NCCL_DEBUG="LOUD"), FAIL, "NCCL_DEBUG=LOUD"),
    Case("nccl.values", conf(("NCCL_IB_QPS_PER_CONNECTION", "0")), FAIL, "NCCL_IB_QPS_PER_CONNECTION=0"),
    Case("nccl.values", setting(NCCL_IB_TC="106", NCCL_DEBUG="info", NCCL_IB_SL=""), PASS, "7"),
    Case("nccl.devices", setting(NCCL_IB_DISABLE="1"), WARN, "NCCL_IB_DISABLE=1 ≠ mlx5_0"),
    Case("nccl.devices", both(NO_PLUGIN, setting(NCCL_IB_DISABLE="1")), FAIL, "RDMA is switched off"),
    Case("nccl.devices", setting(NCCL_NET="Socket"), FAIL, "NCCL_NET=Socket"),
    Case("nccl.devices", setting(NCCL_IB_HCA="mlx4"), FAIL, "NCCL_IB_HCA=mlx4 ≠ mlx5_0"),
    Case("nccl.devices", setting(NCCL_IB_HCA="=mlx5_0:2"), FAIL, "it leaves no device"),
    Case("nccl.devices", lambda n: n.call("rdma", devices=[]), PASS, "NCCL_IB_HCA=^=mlx5_8,mlx5_9"),
    Case("nccl.devices", setting(NCCL_IB_HCA="^mlx5"), FAIL, "it leaves no device"),
    Case("nccl.devices", setting(NCCL_IB_HCA="=mlx5_0,mlx5_17:1"), WARN, "mlx5_17:1 names no device"),
    Case("nccl.devices", setting(NCCL_IB_HCA="=mlx5_8", NCCL_IB_GID_INDEX="3"), FAIL, "mlx5_8 has no such GID"),
    Case("nccl.devices", setting(NCCL_IB_HCA="=mlx5_8", NCCL_IB_GID_INDEX="0"), WARN, "of RoCE v1"),
    Case("nccl.devices", setting(NCCL_IB_HCA="=mlx5_8", NCCL_IB_GID_INDEX="1"), PASS, "NCCL_IB_GID_INDEX=1"),
    Case("nccl.devices", setting(NCCL_IB_GID_INDEX="99"), PASS, "99"),  # InfiniBand looks at none
    Case("nccl.devices", setting(NCCL_SOCKET_IFNAME="eht0"), FAIL, "NCCL_SOCKET_IFNAME=eht0 ≠"),
    Case("nccl.devices", setting(NCCL_SOCKET_IFNAME="=bond0,bond7"), WARN, "bond7 names no interface"),
    Case("nccl.forced", setting(NCCL_ALGO="Ring"), WARN, "NCCL_ALGO=Ring"),
    Case("nccl.forced", setting(NCCL_PROTO="LL128"), WARN, "corrupts data"),
    Case("nccl.forced", setting(NCCL_IB_TIMEOUT="0"), WARN, "waits for ever"),
    Case("nccl.forced", setting(NCCL_NET_GDR_LEVEL="LOC"), WARN, "GPUDirect"),
    Case("nccl.forced", setting(NCCL_DEBUG="TRACE"), WARN, "logs every call"),
    Case("nccl.forced", setting(CTCCL_IB_RETRY_DISABLE="1"), WARN, "not sent again"),
    Case("nccl.log", lambda n: n.call("nccl_settings", log="missing"), FAIL, "its folder is not there"),
    Case("nccl.log", lambda n: n.call("nccl_settings", log="denied"), FAIL, "may not write"),
    Case("nccl.log", setting(NCCL_DEBUG_FILE="/var/log/nccl.log"), WARN, "overwrite"),
]


@pytest.mark.parametrize("check", OURS)
def test_an_item_passes_on_its_home(check: str, good_facts: Facts) -> None:
    assert home_of(check) == "good"
    assert judged(good_facts, check).status in (PASS, Status.NA)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.check} {c.says}")
def test_a_planted_fault_is_found(case: Case, planted: Planted) -> None:
    found = judged(case.plant(planted).facts(), case.check)
    assert found.status is case.status, found
    said = (found.observed, found.reason_code, found.detail.en if found.detail else "")
    assert any(case.says in text for text in said), said


def test_every_item_has_a_fault() -> None:
    judged_by_rule = {id for id in OURS if CHECKS[id].info.kind.value == "node"}
    assert {c.check for c in CASES if c.status in (FAIL, WARN)} == judged_by_rule


def test_a_device_that_is_chosen_must_be_active(planted: Planted) -> None:
    both(down("mlx5_0"), setting(NCCL_IB_HCA="=mlx5_0"))(planted)
    found = judged(planted.facts(), "nccl.devices")
    assert (found.status, found.detail and found.detail.en) == (
        FAIL,
        "NCCL_IB_HCA==mlx5_0: no device of these is active",
    )


def test_a_list_of_networks_needs_one_that_works(planted: Planted) -> None:
    told = answer(planted, "nccl")["plugins"]
    planted.call("nccl", plugins=[told[0] | FOO, told[0] | {"wanted": "hpcx"}, *told[1:]])
    assert judged(planted.facts(), "nccl.plugins").status is WARN


def test_without_a_library_only_a_likeness_is_a_typing_error(planted: Planted) -> None:
    planted.call("nccl", uses=[], libraries=[], plugins=[])
    assert judged(setting(NCCL_SOMETHING_NEW="1")(planted).facts(), "nccl.names").status is PASS
    found = judged(setting(NCCL_IB_QPS_PER_CONECTION="4")(planted).facts(), "nccl.names")
    assert (found.status, found.observed) == (WARN, "NCCL_IB_QPS_PER_CONECTION → NCCL_IB_QPS_PER_CONNECTION")


def test_a_line_of_a_file_that_the_environment_overrides_does_not_count(planted: Planted) -> None:
    both(conf(("NCCL_IB_RETRY_CNT", "99")), setting(NCCL_IB_RETRY_CNT="7"))(planted)
    assert judged(planted.facts(), "nccl.values").status is PASS


def test_both_calls_are_what_the_items_read() -> None:
    assert {s.key for id in OURS for s in CHECKS[id].reads} == {NCCL.key, SETTINGS.key, "call:network", "call:rdma"}
