"""What the collector counts, in the default Prometheus registry."""

from prometheus_client import Counter, Gauge

DATAGRAMS = Counter("nms_flows_datagrams", "Datagrams received from exporters that may send.")
REFUSED = Counter("nms_flows_refused_datagrams", "Datagrams of senders that flows.exporters does not name.")
TOO_LARGE = Counter("nms_flows_too_large_datagrams", "Datagrams that were left out because of their size.")
KERNEL_DROPS = Counter("nms_flows_kernel_drops", "Datagrams that the kernel dropped: the receive buffer was full.")
BUFFER = Gauge("nms_flows_receive_buffer_bytes", "What the kernel gave us for datagrams that wait.", ("address",))
RECORDS = Counter("nms_flows_records", "Flows decoded.", ("exporter",))
PROBLEMS = Counter("nms_flows_problems", "What could not be decoded, or not as it stood.", ("exporter", "reason"))
LOST = Counter("nms_flows_lost", "What the sequence numbers skipped: flows, records, datagrams.", ("exporter", "unit"))
LATE = Counter("nms_flows_late", "What came after all and is in nms_flows_lost_total.", ("exporter", "unit"))
HELD = Gauge("nms_flows_held_sets", "Data sets that wait for their template.")
DROPPED = Counter("nms_flows_dropped", "Flows that were decoded and not kept.", ("reason",))
WAITING = Gauge("nms_flows_waiting", "Flows between receiving and writing.")
UNKNOWN_FIELDS = Gauge("nms_flows_unknown_fields", "Fields of templates that no table of ours knows.")
HOMELESS = Counter("nms_flows_without_target", "Counter samples and findings of exporters of no target.", ("what",))
