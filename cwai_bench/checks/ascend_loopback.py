"""The loopback test of the optical modules of Ascend NPUs: which end of a link is bad. It takes the ports from whoever
uses them, and so is run only when asked for by name (``--disruptive ascend.optical.loopback``).

hccn_tool sets the loopback, and the NPU's own port must then come up by itself. Looped at the module's electrical side
the light plays no part: a port that stays down is bad on this side. Looped at its optical side the module's light does:
what is down only there is the module, or dirt in it. So Huawei's MindCluster tells them apart, and so long it waits
for a link (component/ascend-faultdiag, toolkit_src, host_loopback_collector.py and docs, commit 22bb3d9 of 2026-08).
"""

from __future__ import annotations

from cwai_bench.checks import Command, FactView, LongRun, NotKnown, Outcome, failed, node_check, parsed, passed
from cwai_bench.checks.ascend import NPUS, chips, of_all_cards, training
from cwai_bench.checks.ascend_tests import SCOPE
from cwai_bench.model import Action, Severity
from cwai_bench.readers import ascend_loopback as reader
from cwai_bench.readers.ascend_loopback import Looped, Mode
from cwai_bench.text import Text, joined

ITEM = "ascend.optical.loopback"
COMMAND = Command("hccn_tool", "-optical", "-t", timeout=3600.0)
NOT_FOUND = 127
"""What a shell ends with that does not find a command."""
SHOWN = 8
"""Modules told of in words."""
EXPECTED = 300.0
"""Seconds: ten in each of two loopbacks, and ten or more until the link is back, for each of eight modules."""

# One module at a time: two NPUs of one card can share one. Whatever ends the script, no loopback stays.
SCRIPT = """#!/bin/sh
tool() {
  echo "$ hccn_tool -i $npu $*"
  said=$(echo y | hccn_tool -i "$npu" "$@" 2>&1)
  code=$?
  printf '%s\\n= %s\\n' "$said" "$code"
}
link_is_up() { case $said in *UP*) true ;; *) false ;; esac; }
undo() { [ -z "$looped" ] || tool -optical -t 0; }
trap 'undo; exit 143' HUP INT TERM

command -v hccn_tool > /dev/null || exit 127
for device in /dev/davinci[0-9]*; do
  [ -e "$device" ] || continue
  npu=${device#/dev/davinci}
  tool -link -g
  before=down
  link_is_up && before=up
  for mode in 1 2; do
    looped=yes
    tool -optical -t $mode
    case $said in *successfully*) sleep 10; tool -link -g ;; esac
  done
  tool -optical -t 0
  looped=
  case $said in *successfully*)
    for _ in 1 2 3; do
      sleep 10
      tool -link -g
      link_is_up || [ $before = down ] && break
    done
  esac
done
"""

_HERE = Text("NPU {n}: down though looped on this side of the module", "NPU {n}：光模块电侧环回后仍 DOWN")
_MODULE = Text("NPU {n}: down only when looped on the optical side", "NPU {n}：仅光侧环回后 DOWN")
_LEFT = Text("NPU {n}: the loopback could not be undone: {s}", "NPU {n}：环回未能解除：{s}")
_LOST = Text("NPU {n}: no link after the test, which it had before", "NPU {n}：测试前已连接，测试后未恢复")
_BEYOND = Text(
    "NPU {n}: no link without a loopback, though the module is well: fibre or switch",
    "NPU {n}：光模块正常但无环回时不通，应查光纤或交换机",
)


def _faults(npu: str, looped: Looped) -> list[Text]:
    found: list[Text] = []
    if looped.up.get(Mode.HOST) is False:
        found.append(_HERE.fill(n=npu))
    elif looped.up.get(Mode.MEDIA) is False:
        found.append(_MODULE.fill(n=npu))
    if looped.up.keys() & {Mode.HOST, Mode.MEDIA} and Mode.NONE in looped.refused:
        found.append(_LEFT.fill(n=npu, s=looped.refused[Mode.NONE]))
    elif looped.before and looped.up.get(Mode.NONE) is False:
        found.append(_LOST.fill(n=npu))
    return found


@node_check(
    ITEM,
    title=Text("Loopback test of the NPUs' optical modules", "NPU 光模块环回测试"),
    method=Text(
        "for each NPU hccn_tool -i N -optical -t 1, then 2, each with -link -g ten seconds later; -t 0 at the end",
        "逐个 NPU 执行 hccn_tool -i N -optical -t 1、再执行 2，各等待十秒后执行 -link -g；最后 -t 0",
    ),
    criterion=Text(
        "every port comes up in both loopbacks, and is up again afterwards if it was before",
        "两种环回下网口均 UP，且测试后恢复到测试前的连接状态",
    ),
    suggestion=Text(
        "down on this side: change the module and the cable with another port's, and test again: the fault goes with "
        "the bad part, or stays with the NPU; down on the optical side only: clean the connector, then replace the "
        "module; an open loopback: hccn_tool -i N -optical -t 0",
        "电侧环回后仍 DOWN：与其他网口交换光模块与线缆后重测，故障随坏件走，否则在 NPU；仅光侧环回后 DOWN：清洁连接器，"
        "再更换光模块；环回未解除：hccn_tool -i N -optical -t 0",
    ),
    reads=NPUS,
    severity=Severity.CRITICAL,
    action=Action.ISOLATE,
    needs=("hccn_tool", f"--disruptive {ITEM}"),
    seen="container",
    scope=SCOPE,
    runs=LongRun(COMMAND, EXPECTED, SCRIPT),
)
@of_all_cards
def optical_loopback(facts: FactView) -> Outcome:
    training(facts)
    reading = facts.command(*COMMAND.argv)
    if reading.exit_code == NOT_FOUND:
        raise NotKnown("missing_tool", Text("hccn_tool is not installed", "未安装 hccn_tool"))
    tested = parsed(reader.loopback, reading.text, "hccn_tool -optical -t")
    faults = {npu: told for npu, looped in tested.items() if (told := _faults(npu, looped))}
    if faults:
        return failed(
            ", ".join(f"NPU {npu}" for npu in faults)[:300],
            joined([t for told in faults.values() for t in told][:SHOWN]),
        )
    refused = {npu: (mode, said) for npu, looped in tested.items() for mode, said in looped.refused.items()}
    if refused:
        npu, (mode, said) = next(iter(refused.items()))
        raise NotKnown(
            "unsupported",
            Text(
                "{k} of {n} modules cannot be looped: NPU {u}, -t {m}: {s}",
                "{k}/{n} 个光模块无法环回：NPU {u}，-t {m}：{s}",
            ).fill(k=len(refused), n=len(tested), u=npu, m=mode.value, s=said),
        )
    unasked = {str(chip.device) for chip in chips(facts)} - tested.keys()
    if unasked:
        raise NotKnown(
            "missing_source",
            Text("not tested: NPU {n}", "未测试：NPU {n}").fill(n=", ".join(sorted(unasked, key=int))),
        )
    if reading.exit_code:
        raise NotKnown("error", Text("it ended with exit code {c}", "退出码为 {c}").fill(c=reading.exit_code))
    beyond = [_BEYOND.fill(n=npu) for npu, looped in tested.items() if not looped.before]
    return passed(f"{len(tested)}/{len(tested)}", joined(beyond[:SHOWN]) if beyond else None)
