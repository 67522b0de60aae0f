"""How flows and their roll-ups lie in PostgreSQL: one array a field, as data for the schema, the writer and the reads.

An array is cut short where it says nothing: it is null when every flow has the default, and holds one element when all
have the same value. The views put that right again.
"""

from typing import Literal, NamedTuple

Type = Literal["timestamptz", "inet", "macaddr", "bigint", "integer", "smallint"]


class Column(NamedTuple):
    """One field of a flow.

    Args:
        name: of the field of `services.flows.record.FLOW`, and of the column.
        type: of an element.
        default: what a null array stands for: SQL of one element, or the name of another column.
    """

    name: str
    type: Type
    default: str = "0"


_NO_ADDRESS, _NO_MAC, _NO_TIME = "'::'", "'00:00:00:00:00:00'", "'1970-01-01 00:00:00+00'"

FLOW_COLUMNS = (
    Column("flow_start", "timestamptz", _NO_TIME),
    Column("flow_end", "timestamptz", _NO_TIME),
    Column("source_address", "inet", _NO_ADDRESS),
    Column("destination_address", "inet", _NO_ADDRESS),
    Column("next_hop", "inet", _NO_ADDRESS),
    Column("bgp_next_hop", "inet", _NO_ADDRESS),
    Column("post_nat_source_address", "inet", _NO_ADDRESS),
    Column("post_nat_destination_address", "inet", _NO_ADDRESS),
    Column("octets", "bigint"),
    Column("packets", "bigint"),
    Column("octets_scaled", "bigint", "octets"),
    Column("packets_scaled", "bigint", "packets"),
    Column("source_mac", "macaddr", _NO_MAC),
    Column("destination_mac", "macaddr", _NO_MAC),
    Column("sampling_interval", "bigint"),
    Column("ingress_interface", "bigint"),
    Column("egress_interface", "bigint"),
    Column("ingress_vrf", "bigint"),
    Column("source_as", "bigint"),
    Column("destination_as", "bigint"),
    Column("mpls_label_1", "bigint"),
    Column("mpls_label_2", "bigint"),
    Column("mpls_label_3", "bigint"),
    Column("flow_label", "bigint"),
    Column("observation_domain", "bigint"),
    Column("application_id", "bigint"),
    Column("source_port", "integer"),
    Column("destination_port", "integer"),
    Column("post_nat_source_port", "integer"),
    Column("post_nat_destination_port", "integer"),
    Column("vlan", "integer"),
    Column("post_vlan", "integer"),
    Column("tcp_control_bits", "integer"),
    Column("icmp_type_code", "integer"),
    Column("ip_version", "smallint"),
    Column("protocol", "smallint"),
    Column("class_of_service", "smallint"),
    Column("source_prefix_length", "smallint"),
    Column("destination_prefix_length", "smallint"),
    Column("minimum_ttl", "smallint"),
    Column("maximum_ttl", "smallint"),
    Column("direction", "smallint"),
    Column("flow_end_reason", "smallint"),
    Column("forwarding_status", "smallint"),
    Column("export_version", "smallint"),
)

KEY_COLUMNS = (
    Column("source_address", "inet"),
    Column("destination_address", "inet"),
    Column("protocol", "smallint"),
    Column("port", "integer"),
    Column("interface", "bigint"),
    Column("source_as", "bigint"),
    Column("destination_as", "bigint"),
)
MEASURES = ("octets", "packets", "flows", "octets_scaled", "packets_scaled")

KINDS: dict[str, tuple[str, ...]] = {
    "ingress": ("interface",),
    "egress": ("interface",),
    "conversation": ("source_address", "destination_address"),
    "port": ("protocol", "port"),
    "as": ("source_as", "destination_as"),
}
"""The kinds of roll-up, each with its keys. A member whose keys are null is the sum of those that were not kept."""

LEVELS = {"1m": "1 minute", "5m": "5 minutes", "1h": "1 hour"}
"""The windows of the roll-ups, each made from the one before."""

# Sets of arrays are estimated far too large, so that small reads would be compiled first.
FOR_LARGE_SETS = "SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true)"


def unfolded(column: Column) -> str:
    """SQL of a set: the values of a column of `flow_blocks`, one a flow."""
    if column.default in {other.name for other in FLOW_COLUMNS}:
        stored = f"coalesce({column.name}, {column.default}, ARRAY[0]::{column.type}[])"
    else:
        stored = f"coalesce({column.name}, ARRAY[{column.default}]::{column.type}[])"
    return f"unnest(flow_column({stored}, flows)) AS {column.name}"


FLOW_COLUMN_FUNCTION = """
CREATE FUNCTION flow_column(stored anyarray, flows integer) RETURNS anyarray LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN cardinality(stored) = 1 THEN array_fill(stored[1], ARRAY[flows]) ELSE stored END $$
"""

FLOWS_VIEW = f"""
CREATE VIEW flows AS
SELECT received, exporter, {", ".join(map(unfolded, FLOW_COLUMNS))}
FROM flow_blocks
"""  # noqa: S608 - names of our own


def rollup_view(level: str) -> str:
    """SQL that makes the view of one level, one row a key."""
    names = [*(column.name for column in KEY_COLUMNS), *MEASURES]
    members = ", ".join(f"unnest({name}) AS {name}" for name in names)
    return f"CREATE VIEW flow_rollups_{level} AS SELECT ts, exporter, kind, {members} FROM flow_rollup_blocks_{level}"  # noqa: S608
