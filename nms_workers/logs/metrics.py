"""What the shipper counts, in the default Prometheus registry."""

from prometheus_client import Counter, Gauge

READ = Counter("nms_logs_read_lines", "Lines read, by kind of source (file, container) and stream.", ("from", "stream"))
READ_BYTES = Counter("nms_logs_read_bytes", "Bytes of lines read.", ("from", "stream"))
SHIPPED = Counter("nms_logs_shipped_lines", "Lines that were acknowledged.", ("stream",))
REPEATED = Counter("nms_logs_repeated_entries", "Entries sent again that were there already.", ("stream",))
MASKED = Counter("nms_logs_masked_lines", "Lines of which something secret was masked.", ("stream",))
CUT = Counter("nms_logs_cut_lines", "Lines longer than a line may be; their beginning was shipped.", ("stream",))
LOST = Counter("nms_logs_lost_files", "Files that were gone before it was known that they were read to their end.")
DEAD = Counter("nms_logs_dead_entries", "Entries that were refused for what they are, and put aside.", ("reason",))
RETRIES = Counter("nms_logs_delivery_retries", "Deliveries that did not succeed and were tried again.", ("reason",))
LIMITED = Counter("nms_logs_limited_seconds", "Time in which sources were not read since they say too much.")
LAG = Gauge("nms_logs_lag_seconds", "Age of the newest line that was delivered last.", ("stream",))
WAITING = Gauge("nms_logs_waiting_bytes", "What was read and is not delivered.")
SOURCES = Gauge("nms_logs_sources", "Files and containers that are followed.", ("from",))
OVER = Gauge(
    "nms_logs_sources_over_bound", "Files and containers that are not followed: there are too many.", ("from",)
)
CONNECTED = Gauge("nms_logs_connected", "Whether the last delivery succeeded (1) or not (0).")
