"""What the transport counts, in the default Prometheus registry. The prefix of everything about ourselves is `nms`."""

from prometheus_client import Counter, Gauge, Summary

_TARGET = ("service", "target")

REQUESTS = Counter("nms_http_requests", "HTTP requests sent, by how they ended.", (*_TARGET, "outcome"))
SECONDS = Summary("nms_http_request_seconds", "Time from sending a request to the end of its answer.", _TARGET)
RECEIVED = Counter("nms_http_received_bytes", "Bytes of bodies received, decompressed.", _TARGET)
RETRIES = Counter("nms_http_retries", "HTTP requests sent again after a fault.", _TARGET)
CACHE = Counter(
    "nms_http_cache_requests", "Requests looked up in the cache; result is hit or miss.", (*_TARGET, "result")
)
INSTANCE_UP = Gauge("nms_http_instance_up", "Whether the balancer uses this instance.", (*_TARGET, "instance"))
INSTANCE_REMOVALS = Counter("nms_http_instance_removals", "Times the balancer left it out.", (*_TARGET, "instance"))

BREAKER_OPENED = Counter("nms_breaker_opened", "Times this process saw the breaker open.", ("key",))
BREAKER_SKIPPED = Counter("nms_breaker_skipped", "Calls not made because the breaker was open.", ("key",))
BREAKER_SHARED = Gauge(
    "nms_breaker_shared", "1: the fleet shares its breakers in Redis; 0: this process is on its own."
)
