"""Which part made paths of a running job fail, by what its net plugin says."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from cwai_bench.cli.net_paths import table, told
from cwai_bench.discover.net_plugin import Comm, NetPlugin, Path
from cwai_bench.judge.net_paths import findings

PEERS = ("10.0.0.2", "10.0.0.3")


def path(nic: int, *, down: bool = False, state: str = "", code: int = errno.ETIMEDOUT) -> Path:
    return Path(
        local=f"10.0.{nic}.1",
        remote=f"10.0.{nic}.2",
        local_name=f"mlx5_{nic}:1",
        remote_name=f"mlx5_{nic}:1",
        state=state or ("failed" if down else "healthy"),
        cause="error" if down else "",
        error="Connection timed out" if down else "",
        code=code if down else 0,
        ago_ms=2500 if down else 0,
        bytes=1 << 30,
        lost=0,
        stalls=0,
        failures=int(down),
    )


def job(paths: dict[str, Sequence[Path]]) -> NetPlugin:
    comms = [Comm("send", peer, "rdma", 9, 1 << 30, 0, "", list(of_peer)) for peer, of_peer in paths.items()]
    return NetPlugin(2, 1, [], 1, True, 30, comms, 0)


def said(net: NetPlugin) -> list[tuple[str, list[str]]]:
    return [(finding.kind, finding.ends) for finding in findings(net, "here")]


def test_while_nothing_is_down_nothing_is_said() -> None:
    assert said(job({peer: [path(0), path(1)] for peer in PEERS})) == []
    assert said(job({})) == []


def test_a_nic_that_no_peer_reaches_comes_first_and_what_it_hangs_on_is_not_ruled_out() -> None:
    (finding,) = findings(job({peer: [path(0, down=True), path(1)] for peer in PEERS}), "here")
    assert finding.kind == "ambiguous"
    likely = finding.candidates[0]
    assert (likely.kind, likely.ends) == ("nic", ["here/mlx5_0:1"])
    assert likely.probability > 0.6
    assert not any(end.startswith("10.") for candidate in finding.candidates for end in candidate.ends)


def test_a_port_that_tells_of_itself_is_named() -> None:
    net = job({peer: [path(0, down=True, code=errno.ENETDOWN), path(1)] for peer in PEERS})
    assert said(net) == [("nic", ["here/mlx5_0:1"])]
    assert told(findings(net, "here"), "en").startswith("what is down: NIC here/mlx5_0:1, confidence ")
    assert told(findings(net, "here"), "zh").startswith("故障部位：网卡 here/mlx5_0:1，置信度 ")


def test_with_one_peer_it_is_ambiguous_unless_the_port_itself_tells() -> None:
    one = job({PEERS[0]: [path(0, down=True), path(1)]})
    (finding,) = findings(one, "here")
    assert finding.kind == "ambiguous"
    assert {end for candidate in finding.candidates for end in candidate.ends} >= {
        "here/mlx5_0:1",
        "10.0.0.2/mlx5_0:1",
    }
    assert "undecided" in told([finding], "en")
    sure = job({PEERS[0]: [path(0, down=True, code=errno.ENETDOWN), path(1)]})
    assert said(sure) == [("nic", ["here/mlx5_0:1"])]


def test_a_nic_of_ours_that_others_reach_is_not_the_first_to_be_thought_of() -> None:
    net = job({PEERS[0]: [path(0, down=True), path(1)], PEERS[1]: [path(0), path(1)]})
    (finding,) = findings(net, "here")
    assert finding.kind == "ambiguous"
    odds = {(c.kind, *c.ends): c.probability for c in finding.candidates}
    assert finding.candidates[0].ends == ["10.0.0.2/mlx5_0:1"]
    assert odds["nic", "here/mlx5_0:1"] < odds["nic", "10.0.0.2/mlx5_0:1"] / 3


def test_what_was_refused_for_its_key_is_configuration() -> None:
    net = job({PEERS[0]: [path(0, down=True, code=errno.EACCES), path(1)], PEERS[1]: [path(0), path(1)]})
    assert ("configuration", ["10.0.0.2/mlx5_0:1", "here/mlx5_0:1"]) in said(net)


def test_a_path_that_is_only_suspect_or_was_never_there_says_nothing() -> None:
    net = job({peer: [path(0, state="suspect"), path(1, state="failed")] for peer in PEERS})
    assert said(net) == []


def test_the_table_tells_what_happened_and_when() -> None:
    shown = table(job({PEERS[0]: [path(0, down=True)]}), "en")
    assert "to 10.0.0.2: RDMA mlx5_0:1 > mlx5_0:1" in shown
    assert "failed (the connection broke: Connection timed out, 2.5 s ago)" in shown
    assert "2.5 s前" in table(job({PEERS[0]: [path(0, down=True)]}), "zh")
