"""NVML asked through a stand-in for nvidia-ml-py: what is supported, what is not, and what is lost."""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import pytest

from cwai_bench.discover import CALLS
from cwai_bench.discover.nvidia import CUDA_VARIABLES
from cwai_bench.model import Reading
from cwai_bench.sources import (
    CudaEnvironment,
    EccCounts,
    Nvidia,
    NvidiaFabric,
    NvidiaProcess,
    NvLink,
    NvLinkErrors,
    answered,
)

real = pytest.importorskip("pynvml")
NOT_SUPPORTED, LOST, CORRUPT = 3, 15, 14


def refused(code: int) -> Exception:
    error = real.NVMLError(code)
    assert isinstance(error, Exception)
    return error


class Nvml(ModuleType):
    """The names and numbers of nvidia-ml-py, without a driver: a question without an answer here is not supported."""

    def __init__(self, **answers: Any) -> None:
        super().__init__("pynvml")
        self.answers: dict[str, Any] = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlSystemGetDriverVersion": b"550.127.08",
            "nvmlSystemGetCudaDriverVersion_v2": 12040,
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetPciInfo": SimpleNamespace(busId=b"00000000:19:00.0"),
            "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
            **answers,
        }

    def __getattr__(self, name: str) -> Any:
        genuine = getattr(real, name)
        if not isinstance(genuine, FunctionType):
            return genuine

        def asked(*arguments: Any) -> Any:
            answer = self.answers.get(name, refused(NOT_SUPPORTED))
            answer = answer(*arguments) if callable(answer) else answer
            if isinstance(answer, Exception):
                raise answer
            return answer

        return asked


def joined(_handle: Any, pointer: Any) -> None:
    info = pointer._obj  # what byref() points to: the library hands it on to C as it is
    info.state, info.status, info.cliqueId = 3, 0, 7
    info.clusterUuid[:] = range(16)
    info.healthMask = 0b01_00_01  # degraded bandwidth, route unhealthy


def ask(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> Nvidia:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(**answers))
    found = CALLS["nvml"]()
    assert isinstance(found, Nvidia)
    return found


def fields(known: dict[int, int]) -> Any:
    """nvmlDeviceGetFieldValues: unsigned 64-bit values (type 3) for the known ids."""

    def answer(_handle: Any, asked: list[tuple[int, int]]) -> list[Any]:
        return [
            SimpleNamespace(
                nvmlReturn=0 if id in known else NOT_SUPPORTED,
                valueType=3,
                value=SimpleNamespace(ullVal=known.get(id, 0)),
            )
            for id, _ in asked
        ]

    return answer


def test_a_card_that_says_nothing_is_a_card_of_nones(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(monkeypatch)
    assert (found.driver, found.cuda, found.error, found.lost) == ("550.127.08", "12.4", "", [])
    (card,) = found.cards
    assert (card.address, card.name) == ("0000:19:00.0", "NVIDIA H100 80GB HBM3")
    said = {f: getattr(card, f) for f in card.__struct_fields__ if f not in ("address", "name", "uuid")}
    assert {f: v for f, v in said.items() if v not in (None, {}, [], EccCounts())} == {}


def test_a_card_that_says_all(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([0] * 6 + [1] * 6)  # three of each link, then again
    looks: list[float] = []
    monkeypatch.setattr("cwai_bench.discover.nvidia.time.sleep", looks.append)
    (card,) = ask(
        monkeypatch,
        nvmlDeviceGetUUID=b"GPU-1",
        nvmlDeviceGetEccMode=[1, 0],
        nvmlDeviceGetMemoryErrorCounter=lambda _h, kind, counter, where: kind * 100 + counter * 10 + where,
        nvmlDeviceGetRemappedRows=(1, 2, 1, 0),
        nvmlDeviceGetMemoryInfo=SimpleNamespace(total=85520809984, used=1048576),
        nvmlDeviceGetEnforcedPowerLimit=700_000,
        nvmlDeviceGetCurrentClocksEventReasons=0x48,
        nvmlDeviceValidateInforom=refused(CORRUPT),
        nvmlDeviceGetGpuFabricInfoV=joined,
        nvmlDeviceGetSramEccErrorStatus=lambda _h, pointer: setattr(pointer._obj, "bThresholdExceeded", 1),
        nvmlDeviceGetNvLinkState=lambda _h, link: 1 if link < 2 else refused(NOT_SUPPORTED),
        nvmlDeviceGetNvLinkErrorCounter=lambda _h, link, kind: next(counts) * 100 + link * 10 + kind,
        nvmlDeviceGetFieldValues=fields({230: 1, 82: 44, 164: 26562, 270: 2_500_000_000}),
        nvmlDeviceGetComputeRunningProcesses=[SimpleNamespace(pid=812, usedGpuMemory=None)],
        nvmlSystemGetProcessName=b"/usr/bin/python3 train.py",
    ).cards
    assert (card.ecc, card.ecc_pending, card.remap_pending, card.remap_failed) == (True, False, True, False)
    assert card.ecc_volatile == EccCounts(7, 107, 2, 102)
    assert card.ecc_aggregate == EccCounts(17, 117, 12, 112)
    assert (card.power_limit, card.memory_used, card.memory_temperature, card.recovery) == (700.0, 1 << 20, 44, "Reset")
    assert (card.slowed_by, card.slowed_for) == (["hw_slowdown", "hw_thermal_slowdown"], {"hw_thermal_slowdown": 2.5})
    assert (card.inforom_corrupt, card.sram_threshold_exceeded) == (True, True)
    assert card.fabric == NvidiaFabric(
        "Completed",
        "Success",
        "00010203-0405-0607-0809-0a0b0c0d0e0f",
        7,
        ["bandwidth: Degraded", "route_unhealthy"],
    )
    assert card.links == [
        NvLink(0, True, 26562e6, 0, 1, 2, NvLinkErrors(100, 101, 102)),
        NvLink(1, True, 26562e6, 10, 11, 12, NvLinkErrors(110, 111, 112)),
    ]
    assert looks == [1.0]
    assert card.processes == [NvidiaProcess(812, "python3")]


def test_a_driver_550_tells_of_a_reset_by_two_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    for known, word in (({226: 0, 227: 0}, "None"), ({226: 1, 227: 0}, "Reset"), ({226: 0, 227: 1}, "Drain and Reset")):
        assert ask(monkeypatch, nvmlDeviceGetFieldValues=fields(known)).cards[0].recovery == word


def test_a_card_that_is_lost_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(
        monkeypatch,
        nvmlDeviceGetCount=3,
        nvmlDeviceGetHandleByIndex=lambda index: refused(LOST) if index == 1 else index,
        nvmlDeviceGetSerial=lambda index: refused(LOST) if index == 2 else b"1",
    )
    assert len(found.cards) == 1
    assert found.lost == ["1: GPU is lost", "2: GPU is lost"]


def test_a_driver_that_is_not_there_is_an_error_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(monkeypatch, nvmlInit=refused(9))
    assert (found.error, found.code, found.cards) == ("Driver Not Loaded", 9, [])
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = CALLS["nvml"]()  # type: ignore[assignment]
    assert (found.error, found.code) == ("nvidia-ml-py is not installed", -1)


def test_a_node_without_a_driver_answers_with_an_error() -> None:
    found = CALLS["nvml"]()
    assert isinstance(found, Nvidia)
    assert found.cards or found.error


def test_only_variables_of_the_list_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CUDA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1" * 500)
    monkeypatch.setenv("CUDA_SECRET_TOKEN", "x")
    assert CALLS["cuda_environment"]() == CudaEnvironment({"CUDA_LAUNCH_BLOCKING": "1" * 200})


def test_a_link_of_nvlink_5(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts recoveries elsewhere, and tells bit error rates: 4095 is 15e-255, no error; 1036 is 4e-12."""
    monkeypatch.setattr("cwai_bench.discover.nvidia.LOOK", 0.0)
    (card,) = ask(
        monkeypatch,
        nvmlDeviceGetNvLinkState=lambda _h, link: 1 if link < 1 else refused(NOT_SUPPORTED),
        nvmlDeviceGetFieldValues=fields({215: 3, 220: 1036, 222: 4095}),
    ).cards
    (link,) = card.links or [NvLink(9, False)]
    assert (link.replays, link.recoveries, link.later) == (None, 3, NvLinkErrors(None, 3, None))
    assert link.effective_ber == pytest.approx(4e-12)
    assert link.symbol_ber == pytest.approx(1.5e-254)


def test_a_card_that_is_lost_while_its_links_are_looked_at_keeps_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cwai_bench.discover.nvidia.LOOK", 0.0)
    told = iter([4, 0, 0])
    (card,) = ask(
        monkeypatch,
        nvmlDeviceGetNvLinkState=lambda _h, link: 1 if link < 1 else refused(NOT_SUPPORTED),
        nvmlDeviceGetNvLinkErrorCounter=lambda _h, _link, _kind: next(told, refused(LOST)),
    ).cards
    assert card.links == [NvLink(0, True, None, 4, 0, 0)]


@pytest.mark.parametrize(
    ("status", "text", "had"),
    [
        ("ok", '{"driver": "", "cuda": "", "cards": [], "error": "no library", "code": -1}', False),
        ("ok", '{"driver": "", "cuda": "", "cards": [], "error": "no library", "code": 12}', False),
        ("ok", '{"driver": "", "cuda": "", "cards": [], "error": "Driver Not Loaded", "code": 9}', True),
        ("ok", '{"driver": "550", "cuda": "12.4", "cards": []}', True),
        ("ok", "{", False),
        pytest.param("ok", '{"more": ' + "[" * 50_000 + "]" * 50_000 + "}", False, id="deep"),
        ("error", "", False),
        ("missing", "", False),
        ("timeout", "", True),
    ],
)
def test_nvidia_smi_is_asked_only_where_nvml_cannot_be(status: Any, text: str, had: bool) -> None:
    assert answered(Reading("call:nvml", status, text)) is had
