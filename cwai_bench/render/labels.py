"""The words of a report that are the same in every report, in both languages."""

from __future__ import annotations

from cwai_bench.model import Action, FindingKind, ItemKind, ReasonCode, Severity, Status
from cwai_bench.text import Text, plain

STATUS: dict[Status, Text] = {
    Status.PASS: Text("passed", "通过"),
    Status.WARN: Text("warning", "警告"),
    Status.FAIL: Text("failed", "不通过"),
    Status.UNKNOWN: Text("unknown", "未知"),
    Status.SKIP: Text("skipped", "跳过"),
    Status.NA: Text("not judged", "不涉及"),
}

BADGE: dict[Status, Text] = {
    Status.PASS: Text("PASS", "通过"),
    Status.WARN: Text("WARN", "警告"),
    Status.FAIL: Text("FAIL", "不通过"),
    Status.UNKNOWN: Text("UNKNOWN", "未知"),
    Status.SKIP: Text("SKIP", "跳过"),
    Status.NA: Text("NA", "不涉及"),
}

STATUS_MEANING: dict[Status, Text] = {
    Status.PASS: Text("as it should be", "符合要求"),
    Status.WARN: Text("works, yet not as it should be", "可用，但不理想"),
    Status.FAIL: Text("not as it should be", "不符合要求"),
    Status.UNKNOWN: Text("should have been known, and is not", "本应得出结论，但未能得出"),
    Status.SKIP: Text("does not apply here, or was not chosen", "此处不适用，或未被选择"),
    Status.NA: Text("listed, not judged: no baseline was set", "仅列出各值：未设基线，不作判断"),
}

KIND: dict[ItemKind, Text] = {
    ItemKind.NODE: Text("node", "节点通用"),
    ItemKind.CONSISTENCY: Text("consistency", "多节点一致性"),
    ItemKind.CONFIGURABLE: Text("configurable", "节点可配置"),
    ItemKind.SCRIPT: Text("script", "自定义脚本"),
    ItemKind.PROBE: Text("probe", "性能探测"),
}

SEVERITY: dict[Severity, Text] = {
    Severity.CRITICAL: Text("critical", "严重"),
    Severity.MAJOR: Text("major", "重要"),
    Severity.MINOR: Text("minor", "次要"),
}

ACTION: dict[Action, Text] = {
    Action.NONE: Text("nothing to do", "无需处理"),
    Action.MONITOR: Text("keep an eye on it", "持续观察"),
    Action.FIX_CONFIG: Text("mend the configuration", "修改配置"),
    Action.RESET: Text("reset the device", "复位设备"),
    Action.REBOOT: Text("reboot the node", "重启节点"),
    Action.ISOLATE: Text("take the node out of use", "隔离节点"),
    Action.CONTACT_VENDOR: Text("contact the vendor", "联系厂商"),
}

REASON: dict[ReasonCode, Text] = {
    "absent": Text("not present here", "此处不存在"),
    "not_selected": Text("not chosen", "未选择"),
    "no_criterion": Text("no criterion was given", "未给出判断标准"),
    "missing_source": Text("the source is missing", "数据来源缺失"),
    "missing_tool": Text("a tool is missing", "缺少工具"),
    "permission": Text("permission denied", "权限不足"),
    "timeout": Text("timed out", "超时"),
    "parse": Text("the answer could not be understood", "无法解析输出"),
    "unsupported": Text("not supported", "不支持"),
    "busy": Text("in use by others", "正被占用"),
    "one_rank": Text("needs more than one rank", "需要多个进程"),
    "no_baseline": Text("no baseline was set", "未设基线"),
    "baseline_lacks": Text("the baseline has no such value", "基线中没有该值"),
    "not_comparable": Text("the values cannot be compared", "数值不可比"),
    "node_lost": Text("the node was lost", "节点失联"),
    "rank_lost": Text("a rank was lost", "进程丢失"),
    "cause": Text("follows from another item", "由其他检测项的故障导致"),
    "aborted": Text("given up before its end", "中途中止"),
    "wrong_data": Text("wrong data arrived", "数据校验失败"),
    "error": Text("an error occurred", "发生错误"),
}

RUN_TYPE: dict[str, Text] = {
    "run": Text("full run", "完整检测"),
    "check": Text("server check", "服务器检测"),
    "rdma": Text("network performance check", "网络性能检测"),
    "collective": Text("collective library check", "通讯库性能检测"),
    "gpu": Text("GPU check", "GPU 性能检测"),
    "multipath": Text("multipath check", "多路径传输检测"),
    "gate": Text("gate before a job", "作业准入检测"),
}

RUN_STATUS: dict[str, Text] = {
    "running": Text("still running", "进行中"),
    "complete": Text("complete", "已完成"),
    "partial": Text("partial: something was lost on the way", "部分完成：途中有丢失"),
    "terminated": Text("stopped before its end", "被终止"),
    "error": Text("ended by an error", "因错误结束"),
}

EXIT_MEANING: dict[int, Text] = {
    0: Text("every required item passed", "所有必需项均通过"),
    1: Text("something failed", "有检测项不通过"),
    2: Text("the command, or a file given to it, is wrong", "命令或所给文件有误"),
    3: Text("no verdict: something required is not known", "无法下结论：有必需项未知"),
    130: Text("interrupted (SIGINT)", "被中断（SIGINT）"),
    143: Text("told to stop (SIGTERM)", "被要求停止（SIGTERM）"),
}

GATE: dict[Status, Text] = {
    Status.PASS: Text("Passed", "通过"),
    Status.WARN: Text("Passed, with warnings", "通过，有警告"),
    Status.FAIL: Text("Failed", "不通过"),
    Status.UNKNOWN: Text("No verdict", "无结论"),
    Status.SKIP: Text("Nothing applied", "无适用项"),
    Status.NA: Text("Nothing was judged", "未作判断"),
}

RANK_STATE: dict[str, Text] = {
    "started": Text("started", "启动"),
    "item_begin": Text("began", "开始"),
    "item_end": Text("ended", "结束"),
    "signalled": Text("was told to stop", "被要求停止"),
    "finished": Text("finished", "完成"),
    "failed": Text("failed with an error", "因错误失败"),
    "died": Text("died", "异常退出"),
    "stalled": Text("stalled", "停滞"),
    "overdue": Text("past its deadline", "超过时限"),
    "lost": Text("lost with its node", "随节点失联"),
}

MEASURE_STATUS: dict[str, Text] = {
    "ok": Text("measured", "已测量"),
    "skip": Text("skipped", "跳过"),
    "error": Text("ended by an error", "因错误结束"),
    "timeout": Text("timed out", "超时"),
    "aborted": Text("given up before its end", "中途中止"),
}

# ------------------------------------------------------------------------- the report as a whole

REPORT = Text("Report", "检测报告")
REPORT_ID = Text("Report id", "报告编号")
CHECK_TYPE = Text("Check type", "检测类型")
START = Text("Start", "开始时间")
END = Text("End", "结束时间")
DURATION = Text("Duration", "检测耗时")
RUN_STATUS_LABEL = Text("Status", "状态")
RUN_IS = Text(
    "This run is not complete ({status}); what follows is what was kept.",
    "本次运行未完整结束（{status}），以下为已保留的结果。",
)
TOOL = Text("Tool", "工具版本")
COMMAND = Text("Command", "命令")
WORLD = Text("{nodes}, {ranks}", "{nodes}，{ranks}")
NODES_DONE = Text("Nodes done", "完成节点")
DONE_BUT = Text("{done} (not whole: {nodes})", "{done}（未完成：{nodes}）")
RANKS = Text("Ranks", "进程数")
BASELINE = Text("Baseline", "基线")
NOT_SET = Text("not set", "未设置")
CODE_MEANS = Text("exit code {code}: {meaning}", "退出码 {code}：{meaning}")
BECAUSE = Text("Because", "原因")
LEAVE_OUT = Text("Nodes to leave out", "建议剔除的节点")
GATE_CASE = Text("verdict of the run", "本次运行的总体结论")
ITEMS_PASSED = Text("Items passed", "通过项")
PASSED_AND = Text("{n}/{m} ({others})", "{n}/{m}（{others}）")
SOME = Text("{n} {status}", "{n} 项{status}")
ATTENTION = Text("Needs attention", "需要关注")
AND_MORE = Text("… and {n} more: see the report", "……另有 {n} 项，详见报告")
FOLLOW = Text("{n} items of {where} follow from that: {cause}", "{where} 有 {n} 项因此未知：{cause}")
NOT_KNOWN_ABOVE = Text("not known, see above: {n}", "未知，见上：{n}")
WARNINGS_ABOVE = Text("warnings, see above: {n}", "告警，见上：{n}")

# -------------------------------------------------------------------------------------- the page

CONTENTS = Text("Contents", "目录")
OVERVIEW = Text("Overview", "概览")
FILTER = Text("Filter: node, item, value …", "筛选：节点、检测项、值……")
OPEN_ALL = Text("Open or close all", "全部展开/收起")
FOOT = Text(
    "Made by cwai-bench. This file holds both languages, needs no network and asks nothing of anybody.",
    "由 cwai-bench 生成。本文件包含中英文，无需联网，不会向任何地址发送请求。",
)

# ----------------------------------------------------------------------------------------- items

RESULTS = Text("Results", "检测结果")
VERDICT = Text("Verdict", "结论")
ITEM = Text("Item", "检测项")
KIND_LABEL = Text("Kind", "类型")
BASELINE_SET = Text("Baseline node", "基线节点")
WHERE = Text("Where", "位置")
YES_NAMED = Text("yes: {name}", "是：{name}")
NO = Text("no", "否")
DASH = Text("–", "–")
ALL_NODES = Text("all {n} nodes", "全部 {n} 个节点")
ALL_RANKS = Text("all {n} ranks", "全部 {n} 个进程")
METHOD = Text("Method", "检测方法")
CRITERION = Text("Criterion", "判断标准")
SUGGESTION = Text("Suggestion", "处理建议")
ACTION_LABEL = Text("Action", "处理动作")
SEVERITY_LABEL = Text("Severity", "严重程度")
WEIGHT = Text("{severity}, {required}", "{severity}，{required}")
REQUIRED = Text("required", "必需")
OPTIONAL = Text("not required", "非必需")
DETAIL = Text("Detailed result", "检测结果详情")
DETAIL_SHORT = Text("Detail", "详情")
OBSERVED = Text("Observed", "实测")
EXPECTED = Text("Expected", "预期")
NOT_BUT = Text("{observed}; expected: {expected}", "{observed}；预期：{expected}")
AT = Text("{where}: {what}", "{where}：{what}")
REASON_LABEL = Text("Reason", "原因")
HINT = Text("Hint", "提示")
SUPPRESSED = Text("Suppressed", "已豁免")
SUPPRESSED_WHY = Text("until {until}, by {owner}: {reason}", "由 {owner} 豁免至 {until}：{reason}")
EVIDENCE = Text("Evidence", "证据")
CUT = Text("cut: the rest is in the facts of the run", "已截断：其余内容见该次运行的原始采集")
MORE_EVIDENCE = Text(
    "{n} more pieces of evidence of subjects that came out alike: see report.json",
    "结果相同的其他对象另有 {n} 条证据，见 report.json",
)
MORE_RESULTS = Text("{n} more results: see report.json", "另有 {n} 条结果，见 report.json")
NO_VERDICT = Text("no verdict was reached on this item", "该项没有得出结论")
VALUES = Text("Values", "各值分布")
VALUE = Text("Value", "值")
COUNT = Text("Count", "数量")
NODES = Text("Nodes", "节点")

# -------------------------------------------------------------------------------------- networks

NETWORK = Text("Network", "网络性能")
NETWORK_NOTE = Text(
    "Bandwidth is what the receiver took in, over RDMA what was acknowledged, in Gb/s (1e9 bits per second);"
    " latency is a full round trip.",
    "带宽按接收端收到的数据计算（RDMA 按已确认的数据），单位 Gb/s（每秒 1e9 比特）；时延为完整往返时间。",
)
BANDWIDTH = Text("Bandwidth", "带宽")
LATENCY = Text("Latency", "时延")
CLIENT = Text("Client", "客户端")
SERVER = Text("Server", "服务端")
TRANSPORT = Text("Network", "网络类型")
DIRECTION = Text("Direction", "方向")
ONE_WAY = Text("one-way", "单向")
TWO_WAY = Text("two-way", "双向")
ROUND_TRIP = Text("round trip", "往返")
TEST = Text("Test", "测试项")
TEST_DIRECTION = Text("{metric}, {direction}", "{metric}（{direction}）")
SIZE = Text("Message size", "消息大小")
STREAMS = Text("Streams", "流数")
SAMPLES = Text("Samples", "样本数")
UNIT = Text("Unit", "单位")
GBPS = plain("Gb/s")
US = plain("us")
AVERAGE_GBPS = Text("Average (Gb/s)", "平均带宽（Gb/s）")
PEAK_GBPS = Text("Peak (Gb/s)", "峰值带宽（Gb/s）")
LOWEST_GBPS = Text("Lowest (Gb/s)", "最低带宽（Gb/s）")
LINK_GBPS = Text("Link speed (Gb/s)", "链路速率（Gb/s）")
MAX_US = Text("Max (us)", "最大（us）")
MEAN_US = Text("Mean (us)", "平均（us）")
DATA = Text("Data check", "数据校验")
DATA_RIGHT = Text("right", "正确")
DATA_WRONG = Text("wrong data", "数据错误")
DATA_NOT_CHECKED = Text("not checked", "未校验")
DATA_NOISY = Text("{data}; {why}", "{data}；{why}")
NOISY = Text("{figure}; noisy", "{figure}；受干扰")
HIGHEST_BANDWIDTH = Text("{metric}: highest average", "{metric}：最高平均带宽")
LOWEST_LATENCY = Text("{metric}: lowest p50", "{metric}：最低 p50")
BANDWIDTH_BY_SIZE = Text(
    "{metric} over the message size: the median pair, and the band from the slowest to the fastest",
    "{metric} 随消息大小的变化：中位链路，阴影为最慢到最快的链路",
)
LATENCY_BY_SIZE = BANDWIDTH_BY_SIZE
SPREAD = Text(
    "{metric} at {size}: lowest, average and peak interval of each pair", "{metric}（{size}）：各链路的最低、平均与峰值"
)
LATENCY_SPREAD = Text(
    "{metric} at {size}: min, p50 and p99 of each pair", "{metric}（{size}）：各链路的最小值、p50 与 p99"
)
ALL_PAIRS = Text(
    "{metric} at {size} in {unit}, from each row to each column", "{metric}（{size}，{unit}）：行为发送端，列为接收端"
)
PAIR_COUNTS = Text(
    "{caption}: {n} ends, {m} pairs, {d} without a result", "{caption}：{n} 个端，{m} 个配对，其中 {d} 个无结果"
)
NAMED = Text("Parts that the pairs name", "由配对结果定位的部件")
PART = Text("Part", "部件")
PART_KIND = Text("What it is", "类型")
FINDING_KIND: dict[FindingKind, Text] = {
    "node": Text("node", "节点"),
    "nic": Text("NIC", "网卡"),
    "path": Text("path", "路径"),
    "flake": Text("once, not again", "偶发，复测正常"),
    "ambiguous": Text("undecided", "无法判定"),
}
ONLY_WAY = {
    "": Text("{kind}", "{kind}"),
    "out": Text("{kind}, sending", "{kind}（发送方向）"),
    "in": Text("{kind}, receiving", "{kind}（接收方向）"),
}
ALL_ALIKE = Text("all pairs alike", "所有配对")
BAD_PAIRS = Text("Bad pairs", "异常配对")
MEDIAN_OF_BAD = Text("Their median", "异常配对中位数")
SHOULD_BE = Text("Expected, or usual", "预期值或常见值")
SCALE_BAD = Text("of a part that is named", "属于已定位的部件")
SCALE_DEAD = Text("no result", "无结果")
SCALE_BLANK = Text("not measured", "未测量")

# ----------------------------------------------------------------------------------- several paths

MULTIPATH = Text("Several paths at once", "多路径传输")
MULTIPATH_NOTE = Text(
    "Gb/s are 1e9 bits of payload per second, from when the other end was ready until all of it was there; medians."
    " A path alone is all of its connections. Where one failed, small transfers over TCP look for the part (of RDMA,"
    " between the interfaces on its ports). Faults of a rehearsal are planted within the engine, on no device.",
    "Gb/s 为每秒 1e9 比特的有效数据，自接收端就绪起至全部到达，取中位数。"
    "单条路径指其全部连接。路径失效时以 TCP 小传输定位部件（RDMA 则在端口的网络接口之间进行）。"
    "演练故障仅设于引擎内，不涉及任何设备。",
)
OF_CONNECTION = Text("connection {n} {what}", "连接 {n} {what}")
PATH_ALONE = Text("Each path alone", "各路径单独吞吐")
PATH = Text("Path", "路径")
PATHS_COUNT = Text("Paths", "路径数")
POLICY = Text("Policy", "调度策略")
POLICY_TITLE = Text("All paths at once, by policy", "全部路径同时使用，按策略")
POLICY_NAME: dict[str, Text] = {
    "single": Text("single: one connection of the fastest path", "single：仅最快路径的一条连接"),
    "round_robin": Text("round_robin: in turn", "round_robin：轮流"),
    "equal": Text("equal: the same to each", "equal：均分"),
    "weighted": Text("weighted: by what each carries alone", "weighted：按单独吞吐加权"),
    "pull": Text("pull: ours, to whoever has room", "pull：本工具，按空闲拉取"),
}
SCENARIO_LABEL = Text("Scenario", "场景")
SCENARIO: dict[str, Text] = {
    "as_is": Text("as it is", "保持原样"),
    "cut": Text("cut", "切断"),
    "degraded": Text("slowed down", "降速"),
    "flapping": Text("flapping", "时断时续"),
}
BETWEEN = Text("Between", "两端")
MEDIAN_GBPS = Text("Median (Gb/s)", "中位数（Gb/s）")
LOW_GBPS = Text("Lowest (Gb/s)", "最低（Gb/s）")
HIGH_GBPS = Text("Highest (Gb/s)", "最高（Gb/s）")
SUM_GBPS = Text("Bound (Gb/s)", "上限（Gb/s）")
OF_BOUND = Text("Of the bound", "占上限")
REPETITIONS = Text("Times", "次数")
PATH_CHANGES = Text("What happened to paths", "路径事件")
AFTER_FIRST_BYTE = Text("After the first byte (s)", "首字节后（秒）")
PATH_TIMELINE = Text(
    "{lane}, {scenario}, {policy}: {size} in {seconds} s, what each path delivered",
    "{lane}，{scenario}，{policy}：{size}，用时 {seconds} 秒，各路径交付速率",
)
PATH_TIMELINE_ENDED = Text(
    "{lane}, {scenario}, {policy}: {size}, never complete: {why}", "{lane}，{scenario}，{policy}：{size}，未完成：{why}"
)
PATH_FAULTS = Text("What made paths fail", "路径故障定位")
PATH_FAILED = Text("Paths that failed", "失效路径")
CONFIDENCE = Text("Confidence", "置信度")
DRAIN = Text("What to do without", "建议停用")
FINDING = Text("What it is", "结论")
REHEARSED = Text("{what} (rehearsed)", "{what}（演练）")
ALL_FINE = Text("all probes were fine", "探测均正常")
PROBES_MADE = Text("Probes", "探测次数")
OURS_REACHES = Text("{lane}, {scenario}", "{lane}，{scenario}")
OURS_SHARE = Text(
    "pull {much} Gb/s, {share} of {bound} Gb/s over {paths} paths",
    "pull {much} Gb/s，{paths} 条路径上限 {bound} Gb/s 的 {share}",
)
PLANTED = Text("planted: {what}", "所设故障：{what}")
PLANTED_OVER = Text("taken away: {what}", "故障解除：{what}")
PATH_STATE: dict[str, Text] = {
    "healthy": Text("healthy", "健康"),
    "suspect": Text("suspect", "可疑"),
    "failed": Text("failed", "失效"),
    "probing": Text("probing", "试探中"),
    "probation": Text("on probation", "观察期"),
}
PATH_CAUSE: dict[str, Text] = {
    "connected": Text("connected again", "已重新连接"),
    "answered": Text("probes were answered", "试探得到应答"),
    "delivered": Text("it delivers", "恢复交付"),
    "stalled": Text("nothing was delivered for too long", "长时间没有交付"),
    "silent": Text("it stayed silent", "持续无应答"),
    "error": Text("the connection broke", "连接中断"),
    "garbled": Text("what came is not of this protocol", "收到的内容不符合协议"),
    "corrupt": Text("a checksum was wrong", "校验和错误"),
    "refused": Text("it could not be connected again", "无法重新连接"),
}
PATH_PART: dict[str, Text] = {
    "path": Text("path", "路径"),
    "nic": Text("NIC", "网卡"),
    "node": Text("node", "节点"),
    "fabric": Text("fabric", "网络"),
    "configuration": Text("configuration", "配置"),
    "ambiguous": Text("undecided", "无法判定"),
    "flake": Text("once, not again", "偶发，复测正常"),
}

# ------------------------------------------------------- collectives, and what else was measured

COLLECTIVES = Text("Collectives", "通讯库性能")
COLLECTIVES_NOTE = Text(
    "GB/s are 1e9 bytes per second. The average is over all ranks, percentiles are of the slowest. Times are of single "
    "operations, each after a barrier; pipelined is the mean of many, one after another, as nccl-tests measures, and "
    "bandwidth is made of it. A rank that waits for others takes longest; one that arrives late takes shortest.",
    "GB/s 为每秒 1e9 字节。平均值取自所有进程，百分位取最慢的进程。耗时为单次操作（每次之前有屏障）；"
    "流水为连续多次操作的平均值（与 nccl-tests 相同），带宽由其得出。等待他人的进程耗时最长，最晚到达的进程耗时最短。",
)
OPERATION = Text(
    "{operation} ({library}): {ranks} on {nodes}, {smallest} to {largest}, {iterations} iterations, {warmups} warm-ups",
    "{operation}（{library}）：{nodes}、{ranks}，{smallest} 至 {largest}，迭代 {iterations} 次，预热 {warmups} 次",
)
OPERATION_FIGURES = Text(
    "algorithm {algorithm} GB/s, bus {bus} GB/s at {large}; p50 {time} us at {small}",
    "算法带宽 {algorithm} GB/s，总线带宽 {bus} GB/s（{large}）；p50 {time} us（{small}）",
)
DATA_SIZE = Text("Data size", "数据大小")
BYTES = Text("Bytes", "字节数")
AVERAGE_TIME = Text("Average (us)", "平均耗时（us）")
IN_PLACE = Text("{operation} in place", "{operation} 原地")
PIPELINED_TIME = Text("Pipelined (us)", "流水（us）")
ALGORITHM_BANDWIDTH = Text("Algorithm (GB/s)", "算法带宽（GB/s）")
BUS_BANDWIDTH = Text("Bus (GB/s)", "总线带宽（GB/s）")
GBYTES = plain("GB/s")
LONGEST = Text("Longest rank", "最长：进程、p50")
SHORTEST = Text("Shortest rank", "最短：进程、p50")
CHECK_RESULT = Text("Check result", "校验结果")
RANKS_MISSING = Text("only {n} of {m} ranks came to the end of it", "{m} 个进程中仅 {n} 个完成")
BUS_BY_SIZE = Text("{operation}: bus bandwidth over the data size", "{operation}：总线带宽随数据大小的变化")
BY_RANK = Text("{operation} at {size}: the time of each rank", "{operation}（{size}）：各进程耗时")
GPUS = Text("GPUs", "GPU 性能")
GPUS_NOTE = Text(
    "GB/s are 1e9 bytes, TFLOP/s 1e12 floating-point operations per second. Of copies within a card's memory bytes "
    "read and bytes written count both; two-way is each way.",
    "GB/s 为每秒 1e9 字节，TFLOP/s 为每秒 1e12 次浮点运算。显存内复制的读与写均计入；双向为每个方向的值。",
)
CARD = Text("Card", "卡")
OTHER = Text("Other measurements", "其他测量")

# ---------------------------------------------------------------------- ranks, plan, environment

RANK_EVENTS = Text("What happened to ranks", "进程事件")
TIMELINE = Text("Ranks to which something happened, from the start of the run", "发生异常的进程（自运行开始）")
TIME_UTC = Text("Time (UTC)", "时间（UTC）")
SINCE_START = Text("After start (s)", "距开始（秒）")
RANK = Text("Rank", "进程")
NODE = Text("Node", "节点")
WHAT = Text("What happened", "事件")
ENDED_BY = Text("{state} (signal {n})", "{state}（信号 {n}）")
PROGRESS = Text("Where it was", "进度")
PLAN = Text("Plan", "检测计划")
PLAN_NOTE = Text(
    "{checks} and {probes}, expected to take {time}; {left} left out.",
    "{checks}、{probes}，预计用时 {time}；{left} 项未执行。",
)
PLAN_BUDGET = Text("{note} Time budget: {budget}.", "{note}时间预算：{budget}。")
PROBES = Text("Probes", "性能探测")
SCRIPTS = Text("Your own scripts", "自定义脚本")
DIGEST = Text("SHA-256 of its text", "脚本内容的 SHA-256")
NAME = Text("Name", "名称")
EXPECTED_TIME = Text("Expected", "预计用时")
DEADLINE = Text("Given up after", "时限")
PARAMETERS = Text("Parameters", "参数")
LEFT_OUT = Text("Left out, and why", "未执行项及原因")
ENVIRONMENT = Text("Environment", "环境")
SETTINGS = Text("Settings", "设置")

# ----------------------------------------------------------------------------- numbers of things

NODE_COUNT = (Text("{n} node", "{n} 个节点"), Text("{n} nodes", "{n} 个节点"))
RANK_COUNT = (Text("{n} rank", "{n} 个进程"), Text("{n} ranks", "{n} 个进程"))
CHECK_COUNT = (Text("{n} check", "{n} 个检测项"), Text("{n} checks", "{n} 个检测项"))
SCRIPT_COUNT = (Text("{n} script", "{n} 个自定义脚本"), Text("{n} scripts", "{n} 个自定义脚本"))
PROBE_COUNT = (Text("{n} probe", "{n} 个性能探测"), Text("{n} probes", "{n} 个性能探测"))


def counted(n: int, one: Text, many: Text) -> Text:
    """``1 node``, ``2 nodes``."""
    return (one if n == 1 else many).fill(n=n)
