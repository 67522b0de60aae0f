"""What polls and actions ask of the history. Roll-ups hold every flow once in each kind; their times are minutes.

`:networks` are those of the exporters that a target shows; an empty array stands for all.
"""

from sqlalchemy import text

EXPORTERS = text(
    """
    SELECT host(address) AS exporter, service, name, versions, first_seen, last_seen, datagrams, flows, lost, templates
    FROM (SELECT *, address AS exporter FROM flow_exporters) AS known
    LEFT JOIN targets ON targets.id = target_id
    WHERE last_seen > :oldest
      AND (CAST(:networks AS inet[]) = '{}' OR exporter <<= ANY(CAST(:networks AS inet[])))
    ORDER BY flows DESC
    """
)

EXPORTER_SUMS = text(
    """
    SELECT host(exporter) AS exporter, sum(octets_scaled) AS octets, sum(packets_scaled) AS packets, sum(flows) AS flows
    FROM flow_rollups_1m
    WHERE kind = 'ingress' AND ts >= :since AND ts < :until
      AND (CAST(:networks AS inet[]) = '{}' OR exporter <<= ANY(CAST(:networks AS inet[])))
    GROUP BY exporter
    """
)

INTERFACE_SUMS = text(
    """
    SELECT host(exporter) AS exporter, target_id, interface, count(*) OVER () AS all_of_them,
           max(interfaces ->> CAST(interface AS text)) AS told,
           sum(octets_scaled) FILTER (WHERE kind = 'ingress') AS in_octets,
           sum(packets_scaled) FILTER (WHERE kind = 'ingress') AS in_packets,
           sum(octets_scaled) FILTER (WHERE kind = 'egress') AS out_octets,
           sum(packets_scaled) FILTER (WHERE kind = 'egress') AS out_packets
    FROM flow_rollups_1m LEFT JOIN flow_exporters ON address = exporter
    WHERE kind IN ('ingress', 'egress') AND interface IS NOT NULL AND ts >= :since AND ts < :until
      AND (CAST(:networks AS inet[]) = '{}' OR exporter <<= ANY(CAST(:networks AS inet[])))
    GROUP BY exporter, target_id, interface
    ORDER BY sum(octets_scaled) DESC LIMIT :most
    """
)

INTERFACES = text(
    """
    SELECT target_id, attributes ->> 'index' AS index, key
    FROM entities WHERE kind = 'interface' AND gone_at IS NULL AND target_id = ANY(CAST(:targets AS integer[]))
    """
)

SPEEDS = text(
    """
    SELECT DISTINCT ON (series.id) series.target_id, series.labels ->> 'interface' AS key,
           values[array_position(series_ids, series.id)] AS speed
    FROM series
    JOIN layouts ON layouts.target_id = series.target_id AND series_ids @> ARRAY[series.id]
    JOIN sample_blocks ON layout_id = layouts.id
    WHERE metric = 'snmp_interface_speed_bits_per_second' AND ts > :oldest
      AND series.target_id = ANY(CAST(:targets AS integer[]))
    ORDER BY series.id, ts DESC
    """
)

LARGEST_CONVERSATIONS = text(
    """
    SELECT host(exporter) AS exporter, host(source_address) AS source, host(destination_address) AS destination,
           sum(octets_scaled) AS octets
    FROM flow_rollups_1m
    WHERE kind = 'conversation' AND source_address IS NOT NULL AND ts >= :since AND ts < :until
      AND (CAST(:networks AS inet[]) = '{}' OR exporter <<= ANY(CAST(:networks AS inet[])))
    GROUP BY exporter, source_address, destination_address
    ORDER BY octets DESC LIMIT :most
    """
)

PAST_OF_CONVERSATIONS = text(
    """
    SELECT host(exporter) AS exporter, host(source_address) AS source, host(destination_address) AS destination, ts,
           sum(octets_scaled) AS octets
    FROM flow_rollups_1h
    JOIN unnest(CAST(:exporters AS inet[]), CAST(:sources AS inet[]), CAST(:destinations AS inet[]))
        AS now (exporter, source_address, destination_address) USING (exporter, source_address, destination_address)
    WHERE kind = 'conversation' AND ts >= :since AND ts < :until
    GROUP BY exporter, source_address, destination_address, ts
    """
)

PAST_OF_EXPORTERS = text(
    """
    SELECT host(exporter) AS exporter, ts, sum(octets_scaled) AS octets
    FROM flow_rollups_1h
    WHERE kind = 'ingress' AND ts >= :since AND ts < :until
      AND (CAST(:networks AS inet[]) = '{}' OR exporter <<= ANY(CAST(:networks AS inet[])))
    GROUP BY exporter, ts
    """
)

FLOWS_OF_SOURCE = text(
    """
    SELECT host(exporter) AS exporter, host(destination_address) AS destination, protocol, destination_port AS port,
           count(*) AS flows, sum(packets) AS packets, sum(octets) AS octets,
           min(flow_start) AS first, max(flow_end) AS last
    FROM flows
    WHERE received >= :since AND source_address <<= CAST(:source AS inet)
      AND (CAST(:networks AS inet[]) = '{}' OR exporter <<= ANY(CAST(:networks AS inet[])))
    GROUP BY exporter, destination_address, protocol, destination_port
    ORDER BY packets DESC, destination_address, destination_port LIMIT :most
    """
)

FOUND_OF_SOURCE = text(
    """
    SELECT DISTINCT ON (kind, fingerprint) kind, fingerprint, state, ts, message, attributes
    FROM events
    WHERE ts >= :since AND kind IN ('port_scan', 'fan_out') AND attributes ->> 'source' = :source
    ORDER BY kind, fingerprint, ts DESC LIMIT 20
    """
)
