"""``make run``: the main job on this machine with two local ranks, into a store beside the project.

Whatever the verdict, a complete report is a success: this machine was examined. Ends with 0 then, else with 1 and
what went wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cwai_bench.text import Text, default_lang

STORE = Path(__file__).resolve().parent.parent / "cwai-out"
VERDICTS = {
    0: Text("every required item passed", "所有必检项通过"),
    1: Text("something failed", "有检测项不通过"),
    3: Text("no verdict: something required is not known", "无法得出结论：有必检项结果未知"),
}


def main() -> int:
    lang = default_lang()
    before = runs()
    command = [sys.executable, "-m", "cwai_bench", "run", "-np", "2", "--store", str(STORE), *sys.argv[1:]]
    code = subprocess.run(command, check=False).returncode
    new = sorted(runs() - before)
    if code not in VERDICTS or len(new) != 1:
        say(Text("no report: exit code {c}", "没有生成报告：退出码 {c}").fill(c=code).to(lang))
        return 1
    folder = new[0]
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    page = folder / "report.html"
    if report["status"] != "complete" or report["gate"]["exit_code"] != code or not page.is_file():
        say(
            Text("the report is not complete: status {s}, exit code {c}, {p}", "报告不完整：状态 {s}，退出码 {c}，{p}")
            .fill(s=report["status"], c=code, p=folder)
            .to(lang)
        )
        return 1
    took = report["finished"] - report["started"]
    say(Text("verdict: exit code {c} ({w})", "结论：退出码 {c}（{w}）").fill(c=code, w=VERDICTS[code]).to(lang))
    say(Text("duration: {s:.0f} s", "耗时：{s:.0f} 秒").fill(s=took).to(lang))
    say(Text("HTML report: {p}", "HTML 报告：{p}").fill(p=page).to(lang))
    return 0


def runs() -> set[Path]:
    found = {path.parent for path in STORE.glob("*/report.json")}
    return {folder for folder in found if not folder.name.startswith(".")}  # those are on their way in


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
