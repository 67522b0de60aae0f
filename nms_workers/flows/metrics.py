"""What the collector counts, in the default Prometheus registry."""

from prometheus_client import Counter, Gauge

DATAGRAMS = Counter("nms_flows_datagrams", "Datagrams received from exporters that may send.")
REFUSED = Counter("nms_flows_refused_datagrams", "Datagrams of senders that flows.exporters does not name.")
TOO_LARGE = Counter("nms_flows_too_large_datagrams", "Datagrams that were left out because of their size.")
KERNEL_DROPS = Counter("nms_flows_kernel_drops", "Datagrams that the kernel dropped: the receive buffer was full.")
BUFFER = Gauge("nms_flows_receive_buffer_bytes", "What the kernel gave us for datagrams that wait.", ("address",))
RECORDS = Counter("nms_flows_records", "Flows decoded, by exporter; those beyond flows.max_exporters as other.", ("exporter",))
PROBLEMS = Counter("nms_flows_problems", "What could not be decoded, or not as it stood.", ("exporter", "reason"))
LOST = Counter("nms_flows_lost", "What the sequence numbers say never came, late ones taken off.", ("exporter", "unit"))
TEMPLATES = Gauge("nms_flows_templates", "Templates in force.", ("exporter",))
HELD = Gauge("nms_flows_held_sets", "Data sets that wait for their template.")
DROPPED = Counter("nms_flows_dropped", "Flows that were decoded and not kept.", ("reason",))
WAITING = Gauge("nms_flows_waiting", "Flows between receiving and writing.")
UNKNOWN_FIELDS = Gauge("nms_flows_unknown_fields", "Fields of templates that no table of ours knows.")
COUNTERS_WITHOUT_PLACE = Counter("nms_flows_interface_counters_without_target", "Counter samples of exporters of no target.")
