"""Flows: blocks of them, their roll-ups, who sends them, and which batches are in"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

# name, type of an element, what a null array stands for
_FLOW = """
flow_start timestamptz '1970-01-01 00:00:00+00'
flow_end timestamptz '1970-01-01 00:00:00+00'
source_address inet '::'
destination_address inet '::'
next_hop inet '::'
bgp_next_hop inet '::'
post_nat_source_address inet '::'
post_nat_destination_address inet '::'
octets bigint 0
packets bigint 0
octets_scaled bigint octets
packets_scaled bigint packets
source_mac macaddr '00:00:00:00:00:00'
destination_mac macaddr '00:00:00:00:00:00'
sampling_interval bigint 0
ingress_interface bigint 0
egress_interface bigint 0
ingress_vrf bigint 0
source_as bigint 0
destination_as bigint 0
mpls_label_1 bigint 0
mpls_label_2 bigint 0
mpls_label_3 bigint 0
flow_label bigint 0
observation_domain bigint 0
application_id bigint 0
source_port integer 0
destination_port integer 0
post_nat_source_port integer 0
post_nat_destination_port integer 0
vlan integer 0
post_vlan integer 0
tcp_control_bits integer 0
icmp_type_code integer 0
ip_version smallint 0
protocol smallint 0
class_of_service smallint 0
source_prefix_length smallint 0
destination_prefix_length smallint 0
minimum_ttl smallint 0
maximum_ttl smallint 0
direction smallint 0
flow_end_reason smallint 0
forwarding_status smallint 0
export_version smallint 0
"""
_KEYS = """
source_address inet
destination_address inet
protocol smallint
port integer
interface bigint
source_as bigint
destination_as bigint
"""
_MEASURES = ("octets", "packets", "flows", "octets_scaled", "packets_scaled")
_LEVELS = ("1m", "5m", "1h")


def upgrade() -> None:
    op.execute("DROP TABLE flows")  # nothing ever wrote to it
    flow = [line.split(" ", 2) for line in _FLOW.strip().splitlines()]
    keys = [line.split() for line in _KEYS.strip().splitlines()]
    lz4 = "lz4" in (
        op.get_bind().scalar(sa.text("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")) or ()
    )
    _blocks(flow, lz4)
    for level in _LEVELS:
        _rollups(level, keys, lz4)
    op.execute(
        """
        CREATE TABLE flow_rollup_due (
            level text NOT NULL, ts timestamptz NOT NULL, exporter inet NOT NULL,
            CONSTRAINT flow_rollup_due_pkey PRIMARY KEY (level, ts, exporter)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE flow_batches (
            at timestamptz NOT NULL, id uuid NOT NULL, CONSTRAINT flow_batches_pkey PRIMARY KEY (at, id)
        ) PARTITION BY RANGE (at)
        """
    )
    op.execute(
        """
        CREATE TABLE flow_exporters (
            address inet NOT NULL,
            target_id integer,
            versions smallint[] NOT NULL,
            first_seen timestamptz NOT NULL,
            last_seen timestamptz NOT NULL,
            datagrams bigint NOT NULL,
            flows bigint NOT NULL,
            lost bigint NOT NULL,
            templates integer NOT NULL,
            interfaces jsonb DEFAULT '{}' NOT NULL,
            CONSTRAINT flow_exporters_pkey PRIMARY KEY (address),
            CONSTRAINT flow_exporters_target_id_fkey FOREIGN KEY (target_id) REFERENCES targets (id) ON DELETE SET NULL
        )
        """
    )


def _blocks(flow: list[list[str]], lz4: bool) -> None:
    columns = ", ".join(f"{name} {kind}[]" for name, kind, _ in flow)
    op.execute(
        f"CREATE TABLE flow_blocks (received timestamptz NOT NULL, exporter inet NOT NULL, flows integer NOT NULL, "
        f"{columns}) PARTITION BY RANGE (received)"
    )
    op.execute("CREATE INDEX flow_blocks_received_exporter_idx ON flow_blocks (received, exporter)")
    _compress("flow_blocks", [name for name, _, _ in flow], lz4)
    # As an element an array would be unfolded anew for every flow; as a set it is unfolded once a block.
    op.execute(
        """
        CREATE FUNCTION flow_column(stored anyarray, flows integer) RETURNS anyarray
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        AS $$ SELECT CASE WHEN cardinality(stored) = 1 THEN array_fill(stored[1], ARRAY[flows]) ELSE stored END $$
        """
    )
    stored = {
        name: f"coalesce({name}, ARRAY[{default}]::{kind}[])"
        if default not in ("octets", "packets")
        else f"coalesce({name}, {default}, ARRAY[0]::{kind}[])"
        for name, kind, default in flow
    }
    members = ", ".join(f"unnest(flow_column({one}, flows)) AS {name}" for name, one in stored.items())
    op.execute(f"CREATE VIEW flows AS SELECT received, exporter, {members} FROM flow_blocks")  # noqa: S608


def _rollups(level: str, keys: list[list[str]], lz4: bool) -> None:
    table = f"flow_rollup_blocks_{level}"
    names = [*(name for name, _ in keys), *_MEASURES]
    columns = ", ".join(
        [*(f"{name} {kind}[]" for name, kind in keys), *(f"{name} bigint[] NOT NULL" for name in _MEASURES)]
    )
    op.execute(
        f"CREATE TABLE {table} (ts timestamptz NOT NULL, exporter inet NOT NULL, kind text NOT NULL, {columns}) "
        f"PARTITION BY RANGE (ts)"
    )
    op.execute(f"CREATE INDEX {table}_kind_ts_exporter_idx ON {table} (kind, ts, exporter)")
    _compress(table, names, lz4)
    members = ", ".join(f"unnest({name}) AS {name}" for name in names)
    op.execute(f"CREATE VIEW flow_rollups_{level} AS SELECT ts, exporter, kind, {members} FROM {table}")  # noqa: S608


def _compress(table: str, columns: list[str], lz4: bool) -> None:
    """lz4 costs next to nothing beside storing plainly; pglz, which is there where lz4 is not, three times the rest."""
    how = "SET COMPRESSION lz4" if lz4 else "SET STORAGE EXTERNAL"
    op.execute(f"ALTER TABLE {table} " + ", ".join(f"ALTER COLUMN {name} {how}" for name in columns))
