"""The metrics that a process of the fleet has about itself, for Prometheus."""

from nms_workers.settings import Settings


def serve(port: int, settings: Settings) -> None:
    """Serve them on this port of the address `web.metrics_host`, from a thread; 0: do not.

    Raises:
        OSError: the port is taken.
    """
    if port:
        from prometheus_client import start_http_server

        start_http_server(port, addr=settings.web.metrics_host)
