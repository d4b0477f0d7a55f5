"""What the counters of a port are called, how wide they are, and what their growth tells.

Names: Linux drivers/infiniband/core/sysfs.c (``counters``); hw/mlx5/counters.c, sw/rxe/rxe_hw_counters.c,
hw/bnxt_re/hw_counters.c (older names and those of today), hw/hns/hns_roce_main.c (``hw_counters``);
Documentation/networking/device_drivers/ethernet/mellanox/mlx5/counters.rst (``ethtool -S``, here ``ethtool/…``);
Documentation/ABI/testing/sysfs-class-net-statistics (here ``net/…``).
"""

from __future__ import annotations

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
    if name in STICKY_BITS and after == before == (1 << STICKY_BITS[name]) - 1:
        return None
    if after >= before:
        return after - before
    if name in WRAPPING and before < 1 << 32:
        return (after - before) % (1 << 32)
    return after  # somebody set it to zero in between


# ------------------------------------------------------------------------------------------------ what growth tells

LINK_ERRORS = (
    "symbol_error",
    "link_error_recovery",
    "port_rcv_errors",
    "port_rcv_remote_physical_errors",
    "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
)
CORRUPT = ("rx_icrc_encapsulated",)
DROPS = ("port_xmit_discards", "port_rcv_constraint_errors", "port_xmit_constraint_errors", "VL15_dropped")
RETRIES = (
    "local_ack_timeout_err",
    "req_transport_retries_exceeded",
    "roce_adp_retrans",
    "roce_adp_retrans_to",
    "to_retransmits",
    "max_retry_exceeded",
    "retry_exceeded_err",
)
ORDER = ("packet_seq_err", "out_of_sequence", "implied_nak_seq_err", "duplicate_request", "seq_err_naks_rcvd")
RECEIVER = ("rnr_nak_retry_err", "req_rnr_retries_exceeded", "out_of_buffer", "retry_rnr_exceeded_err")
CONGESTION = (
    "np_ecn_marked_roce_packets",
    "np_cnp_sent",
    "rp_cnp_handled",
    "rp_cnp_ignored",
    "roce_slow_restart_cnps",
)
