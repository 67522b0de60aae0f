"""Agents of devices that no recording is had of: rows as the vendors' MIB files define them."""

from collections.abc import Mapping

from tests.services.snmp.faulty import Oid

Rows = Mapping[Oid, int | bytes]


def oid(text: str) -> Oid:
    """As the agent has it."""
    return tuple(map(int, text.split(".")))


def rows(told: Mapping[str, int | bytes]) -> dict[Oid, int | bytes]:
    """With the uptime that every device tells, and something behind all tables, so that none is the last of all."""
    return {oid(name): value for name, value in {"1.3.6.1.2.1.1.3.0": 1000, **told, "1.3.9.1.0": 1}.items()}


_MT, _OS10, _DRAC, _FRU = (
    "1.3.6.1.4.1.14988.1.1.3",
    "1.3.6.1.4.1.674.11000.5000.100.4.1",
    "1.3.6.1.4.1.674.10892.5.4.700",
    "1.3.6.1.4.1.9.9.117.1",
)
VENDORS: dict[str, tuple[str, dict[str, int | bytes], dict[tuple[str, str], float]]] = {
    "mikrotik": (
        "1.3.6.1.4.1.14988.1",
        {
            f"{_MT}.10.0": 415,
            f"{_MT}.8.0": 243,
            f"{_MT}.12.0": 187,
            f"{_MT}.13.0": 770,
            f"{_MT}.17.0": 5200,
            f"{_MT}.100.1.2.17": b"cpu-temperature",
            f"{_MT}.100.1.3.17": 52,
            f"{_MT}.100.1.4.17": 1,
            f"{_MT}.100.1.2.18": b"psu1-voltage",
            f"{_MT}.100.1.3.18": 121,
            f"{_MT}.100.1.4.18": 3,
        },
        {
            ("snmp_sensor_celsius", "board"): 41.5,
            ("snmp_sensor_volts", "supply"): 24.3,
            ("snmp_sensor_watts", "supply"): 18.7,
            ("snmp_sensor_amperes", "supply"): 0.77,
            ("snmp_sensor_revolutions_per_minute", "fan 1"): 5200,
            ("snmp_sensor_celsius", "cpu-temperature"): 52,
            ("snmp_sensor_volts", "psu1-voltage"): 12.1,
        },
    ),
    "dell": (
        "1.3.6.1.4.1.674.11000.5000.100.2.1.1",
        {
            f"{_OS10}.1.3.1.11.1": 31,
            f"{_OS10}.2.1.1.4.1": 1,
            f"{_OS10}.2.1.1.4.2": 2,
            f"{_OS10}.2.3.1.7.1": 1,
            f"{_DRAC}.20.1.5.1.1": 3,
            f"{_DRAC}.20.1.6.1.1": 235,
            f"{_DRAC}.20.1.8.1.1": b"System Board Inlet",
            f"{_DRAC}.12.1.5.1.1": 3,
            f"{_DRAC}.12.1.6.1.1": 7080,
            f"{_DRAC}.12.1.8.1.1": b"Fan1",
            "1.3.6.1.4.1.89.1.9.0": 17,
        },
        {
            ("snmp_sensor_celsius", "chassis"): 31,
            ("snmp_part_good", "power supply#1"): 1,
            ("snmp_part_good", "power supply#2"): 0,
            ("snmp_part_good", "fan"): 1,
            ("snmp_sensor_celsius", "System Board Inlet"): 23.5,
            ("snmp_sensor_revolutions_per_minute", "Fan1"): 7080,
            ("snmp_sensor_good", "Fan1"): 1,
            ("snmp_cpu_utilization_ratio", "total"): 0.17,
        },
    ),
    "ubiquiti": (
        "1.3.6.1.4.1.41112.1.4",
        {"1.3.6.1.4.1.41112.1.4.8.3.0": 23, "1.3.6.1.4.1.41112.1.4.8.4.0": 48},
        {("snmp_cpu_utilization_ratio", "total"): 0.23, ("snmp_sensor_celsius", "host"): 48},
    ),
    "aruba": (
        "1.3.6.1.4.1.14823.1.1.40",
        {
            "1.3.6.1.4.1.14823.2.2.1.2.1.13.1.2.1": b"Control processor",
            "1.3.6.1.4.1.14823.2.2.1.2.1.13.1.3.1": 34,
            **{
                f"1.3.6.1.4.1.14823.2.2.1.2.1.15.1.{column}.1": size
                for column, size in ((2, 4000), (3, 1000), (4, 3000))
            },
        },
        {
            ("snmp_cpu_utilization_ratio", "Control processor"): 0.34,
            ("snmp_memory_size_bytes", "1"): 4_096_000,
            ("snmp_memory_used_bytes", "1"): 1_024_000,
            ("snmp_memory_free_bytes", "1"): 3_072_000,
        },
    ),
    "cisco": (
        "1.3.6.1.4.1.9.12.3.1.3.1",
        {
            "1.3.6.1.2.1.47.1.1.1.1.7.22": b"PowerSupply-1",
            "1.3.6.1.2.1.47.1.1.1.1.7.534": b"FanModule-1",
            "1.3.6.1.2.1.47.1.1.1.1.7.900": b"Ethernet1/1 Rx power",
            f"{_FRU}.1.2.1.2.22": 8,
            f"{_FRU}.4.1.1.1.534": 2,
            "1.3.6.1.4.1.9.9.109.1.1.1.1.5.1": 40,
            "1.3.6.1.4.1.9.9.109.1.1.1.1.8.1": 41,
            "1.3.6.1.4.1.9.9.221.1.1.1.1.3.1.1": b"reserve",
            "1.3.6.1.4.1.9.9.221.1.1.1.1.7.1.1": 4_294_967_295,
            "1.3.6.1.4.1.9.9.221.1.1.1.1.18.1.1": 6_000_000_000,
            **{
                f"1.3.6.1.4.1.9.9.91.1.1.1.1.{column}.900": value
                for column, value in ((1, 6), (2, 8), (3, 1), (4, 25), (5, 1))
            },
        },
        {
            ("snmp_part_good", "PowerSupply-1"): 0,
            ("snmp_part_good", "FanModule-1"): 1,
            ("snmp_cpu_utilization_ratio", "1"): 0.41,
            ("snmp_memory_used_bytes", "reserve"): 6_000_000_000,
            ("snmp_sensor_watts", "Ethernet1/1 Rx power"): 0.0025,
            ("snmp_sensor_status", "Ethernet1/1 Rx power"): 1,
        },
    ),
    "poe": (
        "1.3.6.1.4.1.99999",
        {
            **{
                f"1.3.6.1.2.1.105.1.1.1.{column}.1.5": value
                for column, value in ((3, 1), (6, 4), (8, 2), (11, 3), (12, 4), (13, 5), (14, 6))
            },
            **{f"1.3.6.1.2.1.105.1.3.1.1.{column}.1": value for column, value in ((2, 370), (3, 1), (4, 62))},
        },
        {
            ("snmp_poe_power_watts", "1"): 370,
            ("snmp_poe_consumption_watts", "1"): 62,
            ("snmp_poe_status", "1"): 1,
            ("snmp_poe_port_detection_status", "1"): 4,
            ("snmp_poe_port_overload_total", "1"): 5,
            ("snmp_poe_port_short_total", "1"): 6,
        },
    ),
    "sensors": (
        "1.3.6.1.4.1.99999",
        {
            f"1.3.6.1.2.1.99.1.1.1.{column}.{index}": value
            for index, row in {
                1: (1, 9, 0, 7, 1),
                2: (7, 9, 0, 50, 1),
                3: (9, 9, 0, 55, 1),
                4: (11, 9, 1, 25, 1),
                5: (12, 9, 0, 1, 3),
            }.items()
            for column, value in enumerate(row, 1)
        },
        {
            ("snmp_sensor_other", "1"): 7,
            ("snmp_sensor_hertz", "2"): 50,
            ("snmp_sensor_humidity_ratio", "3"): 0.55,
            ("snmp_sensor_airflow_cubic_meters_per_minute", "4"): 2.5,
            ("snmp_sensor_truth", "5"): 1,
        },
    ),
}
"""Name to sysObjectID, what the agent tells, and what is to be measured: (metric, its first label) to number."""
