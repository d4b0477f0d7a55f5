"""The GPU probes: what they plan, what they ask of the compiled module, and what they tell of its answers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cwai_bench import native
from cwai_bench.errors import DeadlineError, DeviceError, UsageError
from cwai_bench.model import Measurement
from cwai_bench.plan import Choice, make_plan
from cwai_bench.probes import World, gpu
from cwai_bench.text import plain
from tests.unit.ranks import measured, planned

PROBES = ("gpu.copy", "gpu.host_copy", "gpu.peer_copy", "gpu.gemm", "gpu.compute")
ONE_NODE = World(1, ("a",), False, gpus=(2,))


def card(ordinal: int, capability: str = "9.0") -> native.Gpu:
    return native.Gpu(ordinal, "NVIDIA H200", f"0000:{ordinal:02x}:00.0", 1 << 37, 1 << 36, 132, capability, 50 << 20)


@dataclass
class Module:
    """The compiled module's answers, and what it was asked."""

    cards: list[native.Gpu] = field(default_factory=lambda: [card(0), card(1)])
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, Callable[[dict[str, Any]], Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def gpus(self) -> list[native.Gpu]:
        return self.cards

    def ask(self, name: str) -> Callable[..., Any]:
        def answer(**given: Any) -> Any:
            with self.lock:
                self.asked.append((name, given))
            return self.answers[name](given)

        return answer


def samples(*values: float) -> Any:
    return np.array(values)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Module:
    found = Module()
    found.answers = {
        "gpu_copy": lambda _: native.GpuCopy(samples(2e12, 2.2e12, 2.1e12), 0, -1),
        "gpu_host_copy": lambda _: native.GpuCopy(samples(5e10), 0, -1),
        "gpu_peer_copy": lambda _: native.GpuCopy(samples(4e11), 0, -1, direct=True),
        "gpu_gemm": lambda _: native.GpuGemm(True, "cuBLASLt 13.0.2", samples(7e14), 12, True),
        "gpu_compute": lambda _: native.GpuCompute(
            True, "cuBLASLt 13.0.2", 200, 1024, 0, 0.01, 0, -1, -1, 0.0, 0.0, 0.0
        ),
        "gpu_memory": lambda _: native.GpuMemoryCheck(1 << 36, 4, 3e12, 0, -1, 0, 0),
    }
    monkeypatch.setattr(gpu, "look", lambda: len(found.cards))
    monkeypatch.setattr(native, "gpus", found.gpus)
    for name in found.answers:
        monkeypatch.setattr(native, name, found.ask(name))
    return found


def run(probe: str, nodes: tuple[str, ...] = ("a",), **options: Any) -> list[Measurement]:
    (spec,), left = planned(probe, ONE_NODE, **options)
    assert left == []
    return measured(probe, nodes, spec, patience=spec.deadline)


# ---------------------------------------------------------------------------------------------- plan


@pytest.mark.parametrize("probe", PROBES)
def test_where_no_node_has_a_gpu_it_is_left_out_with_the_reason(probe: str) -> None:
    specs, left = planned(probe, World(2, ("a", "b"), True, gpus=(0, 0)))
    assert specs == []
    assert [(item.what, item.reason_code) for item in left] == [(probe, "absent")]


@pytest.mark.parametrize("world", [World(2, ("a", "b"), True, gpus=(0, 1)), World(1, ("a",), False)])
@pytest.mark.parametrize("probe", PROBES)
def test_one_node_with_a_gpu_is_enough_and_so_is_not_knowing(probe: str, world: World) -> None:
    specs, left = planned(probe, world)
    assert [spec.id for spec in specs] == [f"{probe}#0"]
    assert left == []
    assert specs[0].expected < specs[0].deadline


def test_in_a_run_each_takes_about_two_seconds_a_card() -> None:
    for probe in PROBES:
        (spec,), _ = planned(probe, World(1, ("a",), False, gpus=(1,)))
        assert spec.expected <= 3.0, probe


def test_a_precision_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError) as refused:
        planned("gpu.gemm", ONE_NODE, precisions=("bf16", "fp4"))
    assert "fp4" in refused.value.message.en
    assert refused.value.next_step is not None
    assert "fp8" in refused.value.next_step.zh


def test_the_command_with_no_gpu_anywhere_says_so() -> None:
    with pytest.raises(UsageError) as refused:
        make_plan(Choice("gpu"), World(1, ("a",), False, gpus=(0,)))
    assert "NVIDIA GPU" in refused.value.message.en


def test_the_command_plans_gpus_alone_and_run_plans_them_too() -> None:
    assert [s.info.scope for s in make_plan(Choice("gpu"), ONE_NODE).probes] == ["gpu"] * len(PROBES)
    whole = make_plan(Choice("run"), ONE_NODE)
    assert set(PROBES) <= {s.probe for s in whole.probes}
    without = make_plan(Choice("run"), World(1, ("a",), False, gpus=(0,)))
    assert set(PROBES) <= {item.what for item in without.left_out}
    assert not set(PROBES) & {s.probe for s in without.probes}


def test_a_node_shows_its_gpus_by_their_device_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "DEVICES", tmp_path)
    assert gpu.look() == 0
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia0x"):
        (tmp_path / name).touch()
    assert gpu.look() == 3


# ------------------------------------------------------------------------------------------- measure


def test_copies_within_memory_count_reads_and_writes(module: Module) -> None:
    found = run("gpu.copy")
    assert [m.subject.id for m in found] == ["a/gpu0"] * 4 + ["a/gpu1"] * 4
    assert {(m.parameters["bytes"], m.parameters["streams"]) for m in found} == {
        (64 << 20, 1),
        (64 << 20, 2),
        (1 << 30, 1),
        (1 << 30, 2),
    }
    assert all(m.stats is not None and m.stats.p50 == 4.2e12 and m.unit == "B/s" and m.correct for m in found)
    assert found[0].parameters["card"] == "NVIDIA H200"
    assert found[0].parameters["pci"] == "0000:00:00.0"


def test_all_cards_work_at_once_but_for_copies_from_the_host(module: Module) -> None:
    met = threading.Barrier(2, timeout=10)

    def together(_given: dict[str, Any]) -> native.GpuGemm:
        met.wait()
        return native.GpuGemm(True, "cuBLASLt", samples(7e14), 12, False)

    module.answers["gpu_gemm"] = together
    assert all(m.status == "ok" and m.parameters["together"] == 2 for m in run("gpu.gemm"))

    busy = threading.Lock()

    def alone(_given: dict[str, Any]) -> native.GpuCopy:
        assert busy.acquire(blocking=False)
        busy.release()
        return native.GpuCopy(samples(5e10), 0, -1)

    module.answers["gpu_host_copy"] = alone
    found = run("gpu.host_copy")
    assert [m.parameters["direction"] for m in found if m.subject.id == "a/gpu0"] == [
        "host-to-card",
        "card-to-host",
        "two-way",
    ]


def test_peers_are_measured_each_way_and_both_ways_once(module: Module) -> None:
    module.cards = [card(0), card(1), card(2)]
    found = run("gpu.peer_copy")
    ways = [(m.subject.id, m.parameters["direction"]) for m in found]
    assert len(ways) == len(set(ways)) == 6 + 3
    assert ("a/gpu2→gpu0", "one-way") in ways
    assert ("a/gpu2→gpu0", "two-way") not in ways
    assert all(m.subject.kind == "card" and m.parameters["direct"] is True for m in found)


def test_one_card_has_no_peer(module: Module) -> None:
    module.cards = [card(0)]
    (told,) = run("gpu.peer_copy")
    assert (told.status, told.reason_code, told.subject.id) == ("skip", "absent", "a")


def test_products_of_all_precisions_of_a_size_that_suits_the_card(module: Module) -> None:
    module.cards = [card(0), card(1, "8.6")]
    found = run("gpu.gemm")
    assert [m.parameters["precision"] for m in found if m.subject.id == "a/gpu0"] == list(gpu.PRECISIONS)
    sizes = {(m.subject.id, m.parameters["precision"]): m.parameters["rows"] for m in found}
    assert (sizes["a/gpu0", "fp64"], sizes["a/gpu1", "fp64"]) == (4096, 2048)
    assert sizes["a/gpu1", "bf16"] == 8192
    assert {m.parameters["layout"] for m in found} == {"TN"}
    assert all(m.unit == "FLOP/s" for m in found)


def test_what_a_card_does_not_know_is_skipped_by_name_and_the_rest_is_measured(module: Module) -> None:
    def answer(given: dict[str, Any]) -> native.GpuGemm:
        supported = given["precision"] != "fp8"
        return native.GpuGemm(supported, "cuBLASLt 11.9", samples(3e14) if supported else samples(), 8, False)

    module.answers["gpu_gemm"] = answer
    found = run("gpu.gemm", precisions=("fp8", "bf16"))
    skipped = [m for m in found if m.status == "skip"]
    assert [(m.parameters["precision"], m.reason_code) for m in skipped] == [("fp8", "unsupported")] * 2
    assert skipped[0].reason is not None
    assert "cuBLASLt 11.9" in skipped[0].reason.zh
    assert sum(m.status == "ok" for m in found) == 2


def test_a_product_that_differs_names_the_element(module: Module) -> None:
    def answer(given: dict[str, Any]) -> native.GpuCompute:
        bad = given["gpu"] == 1 and given["precision"] == "fp32"
        where = (17, 900, 91.25, 91.5, 91.25000001) if bad else (-1, -1, 0.0, 0.0, 0.0)
        return native.GpuCompute(True, "cuBLASLt", 143, 1024, 0, 0.01, int(bad), *where)

    module.answers["gpu_compute"] = answer
    wrong = [m for m in run("gpu.compute") if m.correct is not True]
    assert [(m.subject.id, m.reason_code, m.status) for m in wrong] == [("a/gpu1", "wrong_data", "ok")]
    assert wrong[0].reason is not None
    for part in ("143", "row 17", "column 900", "91.25, then 91.5"):
        assert part in wrong[0].reason.en
    assert (wrong[0].parameters["row"], wrong[0].parameters["column"]) == (17, 900)


def test_a_card_that_is_always_wrong_is_told_by_the_cpu(module: Module) -> None:
    module.answers["gpu_compute"] = lambda _: native.GpuCompute(
        True, "cuBLASLt", 143, 1024, 3, 44.0, 0, 5, 6, 10.0, 10.0, 80.0
    )
    wrong = [m for m in run("gpu.compute", precisions=("bf16",)) if m.correct is False]
    assert len(wrong) == 2
    assert wrong[0].reason is not None
    assert "3 of 1024 elements are wrong each time" in wrong[0].reason.en
    assert wrong[0].parameters["bad_count"] == 3


def test_memory_that_changed_is_told_with_what_was_there(module: Module) -> None:
    module.answers["gpu_memory"] = lambda _: native.GpuMemoryCheck(1 << 36, 1, 3e12, 1, 4096, 0xFF, 0xFE)
    wrong = [m for m in run("gpu.compute") if m.correct is False]
    assert [m.metric for m in wrong] == ["gpu.compute.memory"] * 2
    assert wrong[0].reason is not None
    assert "00000000000000fe instead of 00000000000000ff" in wrong[0].reason.en
    assert "应为 00000000000000ff，实为 00000000000000fe" in wrong[0].reason.zh


def test_a_copy_that_arrived_wrong_is_wrong_data(module: Module) -> None:
    module.answers["gpu_copy"] = lambda _: native.GpuCopy(samples(2e12), 5, 77)
    found = run("gpu.copy")
    assert all(m.correct is False and m.reason_code == "wrong_data" for m in found)
    assert found[0].parameters["first_bad_index"] == 77


@pytest.mark.parametrize(
    ("error", "status"), [(DeviceError(plain("no memory")), "error"), (DeadlineError(plain("late")), "timeout")]
)
def test_one_card_that_fails_ends_no_other(module: Module, error: Exception, status: str) -> None:
    def answer(given: dict[str, Any]) -> native.GpuGemm:
        if given["gpu"] == 0:
            raise error
        return native.GpuGemm(True, "cuBLASLt", samples(7e14), 12, False)

    module.answers["gpu_gemm"] = answer
    found = run("gpu.gemm", precisions=("bf16",))
    assert [(m.subject.id, m.status) for m in found] == [("a/gpu0", status), ("a/gpu1", "ok")]
    assert found[0].reason is not None


def test_a_run_that_is_stopped_ends(module: Module) -> None:
    def answer(_given: dict[str, Any]) -> native.GpuCopy:
        raise native.Stopped(plain("stopped"))

    module.answers["gpu_copy"] = answer
    with pytest.raises(native.Stopped):
        run("gpu.copy")


def test_a_node_without_a_gpu_among_others_is_skipped_and_hidden_cards_are_not_fine(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    module.cards = []
    (told,) = run("gpu.copy")
    assert (told.status, told.reason_code, told.subject.kind) == ("skip", "absent", "node")
    monkeypatch.setattr(gpu, "look", lambda: 8)
    (told,) = run("gpu.copy")
    assert told.status == "error"
    assert told.reason is not None
    assert "CUDA_VISIBLE_DEVICES" in told.reason.en

    def refuse() -> list[native.Gpu]:
        raise DeviceError(plain("cuInit failed: CUDA_ERROR_SYSTEM_NOT_READY"))

    monkeypatch.setattr(native, "gpus", refuse)
    (told,) = run("gpu.copy")
    assert (told.status, told.subject.id) == ("error", "a")


def test_only_the_first_rank_of_a_node_drives_its_cards(module: Module) -> None:
    found = run("gpu.copy", nodes=("a", "a", "b"))
    assert {m.rank for m in found} == {0, 2}
    assert {m.subject.id for m in found} == {"a/gpu0", "a/gpu1", "b/gpu0", "b/gpu1"}


def test_longer_runs_are_given_the_time(module: Module) -> None:
    run("gpu.compute", duration=60.0, precisions=("bf16",))
    asked = [given for name, given in module.asked if name == "gpu_compute"]
    assert all(given["duration"] == 180.0 and given["timeout"] > 180.0 for given in asked)


def test_copies_from_the_host_run_near_the_card(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = max(os.sched_getaffinity(0))
    (tmp_path / "0000:00:00.0").mkdir()
    (tmp_path / "0000:00:00.0" / "local_cpulist").write_text(f"{last},4000\n")
    monkeypatch.setattr(gpu, "PCI", tmp_path)
    seen: dict[int, set[int]] = {}

    def answer(given: dict[str, Any]) -> native.GpuCopy:
        seen[given["gpu"]] = os.sched_getaffinity(0)
        return native.GpuCopy(samples(5e10), 0, -1)

    module.answers["gpu_host_copy"] = answer
    before = os.sched_getaffinity(0)
    run("gpu.host_copy")
    assert seen == {0: {last}, 1: before}
    assert os.sched_getaffinity(0) == before


def test_the_library_of_this_python_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "site-packages"
    for path in ("nvidia/cublas/lib/libcublasLt.so.12", "nvidia/cu13/lib/libcublasLt.so.13"):
        (packages / path).parent.mkdir(parents=True)
        (packages / path).touch()
    monkeypatch.setattr("sys.path", [str(tmp_path), str(packages)])
    found = gpu.libraries()
    assert found[:2] == [
        str(packages / "nvidia/cu13/lib/libcublasLt.so.13"),
        str(packages / "nvidia/cublas/lib/libcublasLt.so.12"),
    ]
    assert found[2:5] == ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11"]


def test_specs_hold_what_was_chosen() -> None:
    (spec,), _ = planned("gpu.gemm", ONE_NODE, precisions=("fp8",), duration=2.0)
    assert spec.parameters == {"duration": 2.0, "precisions": "fp8"}
