"""Which part made paths of a running job fail, of what its net plugin says (:mod:`cwai_bench.discover.net_plugin`).

A path that is in use is asked all the time: one that carries data has been fine with its other end, one that is down
and is tried again and again has not. So each counts as ``WITNESS`` probes of its pair of ends, and
:mod:`cwai_bench.path_fault` says what they come to. A process sees its own paths alone: mostly that is *ambiguous*, the
likeliest first, unless a port tells of itself; what processes of other nodes say of theirs decides it.

Import it where it is used: it needs numpy.
"""

from __future__ import annotations

import errno
from collections import Counter

from cwai_bench.discover.net_plugin import NetPlugin
from cwai_bench.model import PathFinding, PathProbe, PathStatus
from cwai_bench.path_fault import PortEvent, Sign, localise

WITNESS = 8
"""At one probe in a hundred that is bad by itself (``path_fault.NOISE``) eight leave no doubt of the pair."""
STATUS: dict[str, PathStatus] = {"healthy": "ok", "probation": "ok", "failed": "failed", "probing": "failed"}
"""Of a path by its state. One that is suspect may only be waited for."""
SIGNS: dict[int, Sign] = {errno.ENETDOWN: "port_down", errno.ENODEV: "port_error"}
"""What an RDMA device says of its own port, or the system of a device that is gone."""
REFUSED = {errno.EFAULT: 4, errno.EBADR: 9, errno.EACCES: 10}
"""The ``enum ibv_wc_status`` of errors that no other path mends (cpp/transport/transport.hpp, ``misconfigured``)."""


def findings(net: NetPlugin, node: str) -> list[PathFinding]:
    """What is bad now; ``node`` is what this one is called. A path of which nothing was heard yet says nothing."""
    probes: list[PathProbe] = []
    events: list[PortEvent] = []
    seen: Counter[tuple[str, str]] = Counter()
    for comm in net.comms:
        for path in comm.paths:
            ends = (f"{node}/{path.local_name}", f"{comm.peer}/{path.remote_name}")
            down = path.state != "healthy"
            status = STATUS.get(path.state)
            if status is None or (down and not path.cause) or ends[0] == ends[1]:
                continue
            code = REFUSED.get(path.code, 0) if down else 0
            probes += [PathProbe(*ends, entropy=seen[ends], status=status, code=code)] * WITNESS
            seen[ends] += 1
            if status == "failed" and comm.transport == "rdma" and path.code in SIGNS:
                events.append(PortEvent(ends[0], SIGNS[path.code]))
    return localise(probes, events)
