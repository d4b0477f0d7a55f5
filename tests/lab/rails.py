"""RDMA paths inside a guest: soft-RoCE on both ends of a veth pair each, and packets that truly cross it.

Path ``i`` goes from device ``rxea<i>`` (10.0.i.1 on a<i>) to ``rxeb<i>`` (10.0.i.2 on b<i>). One kernel holds both
ends, and would deliver such packets by itself; the rules send them over the wire, where ``tc`` can shape and
``ip link`` can cut them.
"""

from __future__ import annotations

MODULES = ("rdma_rxe", "ib_uverbs", "rdma_ucm", "veth", "sch_netem", "sch_tbf", "bridge")
DEFAULT_PORT = 18515


def paths(count: int) -> str:
    """Shell commands that set up ``count`` paths; to be run with ``MODULES`` loaded."""
    lines = [
        "set -e",
        "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0",
        "sysctl -qw net.ipv4.conf.all.accept_local=1 net.ipv4.conf.default.accept_local=1",
    ]
    for i in range(count):
        lines += [
            f"ip link add a{i} type veth peer name b{i}",
            f"ip address add 10.0.{i}.1/24 dev a{i}",
            f"ip address add 10.0.{i}.2/24 dev b{i}",
            f"ip link set a{i} mtu 4200 up",
            f"ip link set b{i} mtu 4200 up",
            f"sysctl -qw net.ipv4.conf.a{i}.rp_filter=0 net.ipv4.conf.b{i}.rp_filter=0",
            f"ip route add table 100 10.0.{i}.2/32 dev a{i} src 10.0.{i}.1",
            f"ip route add table 100 10.0.{i}.1/32 dev b{i} src 10.0.{i}.2",
            f"ip rule add pref 5 iif a{i} lookup local",
            f"ip rule add pref 5 iif b{i} lookup local",
        ]
    lines += [
        "ip rule add pref 10 to 10.0.0.0/16 lookup 100",
        "ip rule add pref 20 lookup local",
        "ip rule del pref 0",
    ]
    for i in range(count):
        lines += [f"rdma link add rxea{i} type rxe netdev a{i}", f"rdma link add rxeb{i} type rxe netdev b{i}"]
    return "\n".join(lines) + "\n"


def fabric(count: int) -> str:
    """Shell commands that set up ``count`` NICs on one switch (a bridge): ``rxe<i>`` is 10.1.0.<i+1> on e<i>, and
    p<i> is the port of the switch that it is plugged into; to be run with ``MODULES`` loaded.

    What leaves a device leaves by its own interface, whoever it is for, and only the interface that has an address
    answers for it.
    """
    lines = [
        "set -e",
        "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0",
        "sysctl -qw net.ipv4.conf.all.accept_local=1 net.ipv4.conf.default.accept_local=1",
        "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
        "ip link add br0 type bridge && ip link set br0 mtu 4200 up",
    ]
    for i in range(count):
        lines += [
            f"ip link add e{i} type veth peer name p{i}",
            f"ip link set p{i} mtu 4200 master br0 up",
            f"ip address add 10.1.0.{i + 1}/24 dev e{i}",
            f"ip link set e{i} mtu 4200 up",
            f"sysctl -qw net.ipv4.conf.e{i}.rp_filter=0",
            f"ip route add table {200 + i} 10.1.0.0/24 dev e{i} src 10.1.0.{i + 1}",
            f"ip rule add pref 5 iif e{i} lookup local",
            f"ip rule add pref 10 oif e{i} lookup {200 + i}",
        ]
    lines += ["ip rule add pref 20 lookup local", "ip rule del pref 0"]
    lines += [f"rdma link add rxe{i} type rxe netdev e{i}" for i in range(count)]
    return "\n".join(lines) + "\n"


def between(tool: str, path: int, *options: str) -> str:
    """Shell commands that run ``tool`` of perftest over a path: its server on side b, and its client's output.

    Under emulation perftest now and then cannot calibrate its clock ("Correlation coefficient"), and refuses or prints
    zeros: then it is run again, up to four times.
    """
    words = " ".join((*options, "-F"))
    return f"""
for try in 1 2 3 4; do
  {tool} -d rxeb{path} {words} >/tmp/server.log 2>&1 & server=$!
  until ss -Hltn sport = :{DEFAULT_PORT} | grep -q . || ! kill -0 $server; do sleep 0.1; done
  if {tool} -d rxea{path} {words} 10.0.{path}.2 >/tmp/client.log 2>&1; then failed=; else failed=yes; fi
  if [ $failed ]; then kill $server || true; fi 2>/dev/null
  wait $server || failed=yes
  if [ ! $failed ] && ! grep -q Correlation /tmp/client.log; then break; fi
  cat /tmp/client.log /tmp/server.log >&2
  [ $try -lt 4 ]
done
cat /tmp/client.log
"""
