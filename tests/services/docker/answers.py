"""Answers of engines that cannot be had on every machine: shaped as the API describes them, the values our own."""

from typing import Any

CGROUP2_STATS: dict[str, Any] = {
    "read": "2026-03-01T10:00:00.5Z",
    "preread": "0001-01-01T00:00:00Z",
    "name": "/web",
    "id": "0" * 64,
    "num_procs": 0,
    "storage_stats": {},
    "pids_stats": {"current": 7, "limit": 18_446_744_073_709_551_615},
    "cpu_stats": {
        "cpu_usage": {"total_usage": 3_500_000_000, "usage_in_kernelmode": 500_000_000, "usage_in_usermode": 3 * 10**9},
        "system_cpu_usage": 90_000 * 10**9,
        "online_cpus": 4,
        "throttling_data": {"periods": 20, "throttled_periods": 5, "throttled_time": 1_250_000_000},
    },
    "precpu_stats": {"cpu_usage": {"total_usage": 0}},
    "memory_stats": {
        "usage": 50 << 20,
        "limit": 200 << 20,
        "stats": {
            "anon": 30 << 20, "file": 18 << 20, "kernel_stack": 1 << 14, "slab": 1 << 20, "sock": 0,
            "inactive_file": 10 << 20, "active_file": 8 << 20, "pgfault": 1000, "pgmajfault": 3,
            "workingset_refault_file": 12, "pgscan_direct": 4,
        },
    },
    "networks": {
        name: {
            "rx_bytes": 1000 + i, "rx_packets": 10, "rx_errors": 1, "rx_dropped": 2,
            "tx_bytes": 2000 + i, "tx_packets": 20, "tx_errors": 3, "tx_dropped": 4,
        }
        for i, name in enumerate(("eth0", "eth1"))
    },
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"major": 8, "minor": 0, "op": "read", "value": 4096},
            {"major": 8, "minor": 0, "op": "write", "value": 8192},
        ],
        "io_serviced_recursive": None,
        "io_queue_recursive": None,
        "io_service_time_recursive": None,
        "io_wait_time_recursive": None,
        "io_merged_recursive": None,
        "io_time_recursive": None,
        "sectors_recursive": None,
    },
}  # fmt: skip

# Version 1 with the scheduler that counts everything: most kernels of today leave these lists empty.
CGROUP1_BLOCK: dict[str, Any] = {
    name: [{"major": 8, "minor": 0, "op": op, "value": value}]
    for name, op, value in (
        ("io_service_bytes_recursive", "Read", 4096),
        ("io_serviced_recursive", "Read", 2),
        ("io_queue_recursive", "Total", 1),
        ("io_service_time_recursive", "Read", 2_000_000_000),
        ("io_wait_time_recursive", "Read", 3_000_000_000),
        ("io_merged_recursive", "Write", 5),
        ("io_time_recursive", "", 1500),
        ("sectors_recursive", "", 64),
    )
}

# What the storage driver devicemapper said of its pool, until it was removed with version 25.
POOL = [
    ["Pool Blocksize", "65.54kB"], ["Data Space Used", "11.8GB"], ["Data Space Total", "107.4GB"],
    ["Data Space Available", "36.53GB"], ["Metadata Space Used", "20.97MB"], ["Metadata Space Total", "2.147GB"],
    ["Metadata Space Available", "2.127GB"], ["Deferred Removal Enabled", "false"],
]  # fmt: skip
