"""What the counters of a port are called, how wide they are, and what their growth tells.

Names: Linux drivers/infiniband/core/sysfs.c (``counters``); hw/mlx5/counters.c, sw/rxe/rxe_hw_counters.c,
hw/bnxt_re/hw_counters.c (older names and those of today), hw/hns/hns_roce_main.c (``hw_counters``);
Documentation/networking/device_drivers/ethernet/mellanox/mlx5/counters.rst (``ethtool -S``, here ``ethtool/…``);
Documentation/ABI/testing/sysfs-class-net-statistics (here ``net/…``); ``hccn_tool -stat -g`` of NPUs (``npu/…``).
"""

from __future__ import annotations

import re

# Linux drivers/infiniband/core/sysfs.c (PORT_PMA_ATTR): bits of the counters of PortCounters. They stick at their
# maximum (IBTA vol. 1, 16.1.3.5) until somebody resets them.
STICKY_BITS = {
    "symbol_error": 16,
    "link_error_recovery": 8,
    "link_downed": 8,
    "port_rcv_errors": 16,
    "port_rcv_remote_physical_errors": 16,
    "port_rcv_switch_relay_errors": 16,
    "port_xmit_discards": 16,
    "port_xmit_constraint_errors": 8,
    "port_rcv_constraint_errors": 8,
    "local_link_integrity_errors": 4,
    "excessive_buffer_overrun_errors": 4,
    "VL15_dropped": 16,
    "port_xmit_wait": 32,
}
MAXIMA = {name: (1 << bits) - 1 for name, bits in STICKY_BITS.items()}
# drivers/infiniband/hw/mlx5/counters.c: the counters of a queue set are 32 bits wide and start again at zero.
WRAPPING = frozenset(
    (
        "duplicate_request",
        "implied_nak_seq_err",
        "local_ack_timeout_err",
        "out_of_buffer",
        "out_of_sequence",
        "packet_seq_err",
        "req_cqe_error",
        "resp_cqe_error",
        "rnr_nak_retry_err",
        "req_rnr_retries_exceeded",
        "req_transport_retries_exceeded",
        "roce_adp_retrans",
        "roce_adp_retrans_to",
        "roce_slow_restart",
        "roce_slow_restart_cnps",
        "roce_slow_restart_trans",
    )
)


def growth(name: str, before: int, after: int) -> int | None:
    """By how much a counter grew; None when it sticks at its maximum and can tell no more.

    Some drivers show wider counters under the same names: then a value lies above the maximum, and nothing sticks.
    """
    if after == before == MAXIMA.get(name):
        return None
    if after >= before:
        return after - before
    if name in WRAPPING and before < 1 << 32:
        return (after - before) % (1 << 32)
    return after  # somebody set it to zero in between


def moved(name: str, before: int, after: int) -> int | None:
    """As :func:`growth`, of a short look; None as well when the counter went back and was not at its end: it was reset,
    and what came before that is not known.
    """
    grew = growth(name, before, after)
    if after >= before or grew is None:
        return grew
    # Nothing counts half of its range between two looks at it: then it did not wrap.
    return grew if name in WRAPPING and before < 1 << 32 and grew < 1 << 31 else None


# ------------------------------------------------------------------------------------------------ what growth tells
# Of each sort first the names of InfiniBand and mlx5, then those of bnxt_re, hns and rxe.

LINK_ERRORS = (
    "symbol_error",
    "link_error_recovery",
    "port_rcv_errors",
    "port_rcv_remote_physical_errors",
    "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
)
CORRUPT = ("rx_icrc_encapsulated",)
DROPS = (
    "port_xmit_discards",
    "port_rcv_constraint_errors",
    "port_xmit_constraint_errors",
    "VL15_dropped",
    "rx_roce_discards",
    "tx_roce_discards",
    "rx_roce_drops",
)
RETRIES = (
    "local_ack_timeout_err",
    "req_transport_retries_exceeded",
    "roce_adp_retrans",
    "roce_adp_retrans_to",
    "to_retransmits",
    "max_retry_exceeded",
    "retry_exceeded_err",
    "completer_retry_err",
)
ORDER = (
    "packet_seq_err",
    "out_of_sequence",
    "implied_nak_seq_err",
    "duplicate_request",
    "seq_err_naks_rcvd",
    "rcvd_seq_err",
    "out_of_seq_request",
)
RECEIVER = (
    "rnr_nak_retry_err",
    "req_rnr_retries_exceeded",
    "out_of_buffer",
    "rnr_naks_rcvd",
    "retry_rnr_exceeded_err",
    "rcvd_rnr_err",
    "send_rnr_err",
)
CONGESTION = (
    "np_ecn_marked_roce_packets",
    "np_cnp_sent",
    "rp_cnp_handled",
    "rp_cnp_ignored",
    "roce_slow_restart_cnps",
    "rx_cnp_pkts",
    "tx_cnp_pkts",
    "rx_cnp_pkt",
    "tx_cnp_pkt",
)
CNP = ("np_cnp_sent", "rp_cnp_handled", "rx_cnp_pkts", "tx_cnp_pkts", "rx_cnp_pkt", "tx_cnp_pkt")
"""Congestion notifications that a port sent or got."""
DOWNED = "link_downed"
FLAPS = (DOWNED, "ethtool/link_down_events_phy", "net/carrier_down_count")
"""The same event, as counted in several places."""
ETHERNET_ERRORS = (
    "ethtool/rx_crc_errors_phy",
    "ethtool/rx_symbol_err_phy",
    "ethtool/rx_pcs_symbol_err_phy",
    "net/rx_crc_errors",
    "net/rx_frame_errors",
)
BROKEN = ("rx_roce_errors", "tx_roce_errors", "rx_err_pkt", "tx_err_pkt", "send_err")
"""Packets that the NIC itself could not take or send."""
NO_BUFFER = ("ethtool/rx_discards_phy", "net/rx_missed_errors")
PCIE_FAULTS = (
    "ethtool/rx_pci_signal_integrity",
    "ethtool/tx_pci_signal_integrity",
    "ethtool/outbound_pci_buffer_overflow",
)
PCIE_STALLS = ("ethtool/outbound_pci_stalled_rd_events", "ethtool/outbound_pci_stalled_wr_events")
STORMS = ("ethtool/tx_pause_storm_error_events",)
PAUSE = re.compile(r"(?:ethtool/|npu/mac_)(rx|tx)_(?:prio|pfc_pri)([0-7])_(?:pause|pkt_num)")
NPU_CORRUPT = ("npu/roce_verification_err_num",)
"""ICRC, length or port: the tool counts them as one."""
NPU_RETRIES = ("npu/roce_new_pkt_rty_num",)
NPU_ORDER = ("npu/roce_out_of_order_num",)
NPU_ETHERNET = ("npu/mac_rx_fcs_err_pkt_num", "npu/mac_rx_bad_pkt_num", "npu/mac_tx_bad_pkt_num")
NPU_BROKEN = ("npu/roce_rx_err_pkt_num", "npu/roce_tx_err_pkt_num", "npu/roce_qp_status_err_num")
NPU_CNP = ("npu/roce_rx_cnp_pkt_num", "npu/roce_tx_cnp_pkt_num")
WAIT, SENT = "port_xmit_wait", "port_xmit_data"
"""Ticks in which a port had something to send and could not, and words of 4 bytes sent (IBTA vol. 1, 16.1.3.5)."""

_TELLING = frozenset(
    (
        *(*LINK_ERRORS, *CORRUPT, *DROPS, *RETRIES, *ORDER, *RECEIVER, *CONGESTION, *FLAPS, *ETHERNET_ERRORS),
        *(*BROKEN, *NO_BUFFER, *PCIE_FAULTS, *PCIE_STALLS, *STORMS, WAIT, SENT),
        *(*NPU_CORRUPT, *NPU_RETRIES, *NPU_ORDER, *NPU_ETHERNET, *NPU_BROKEN, *NPU_CNP),
    )
)


def is_telling(name: str) -> bool:
    """Whether its growth means more than that there was traffic."""
    return name in _TELLING or PAUSE.fullmatch(name) is not None
