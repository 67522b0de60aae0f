"""HAProxy's statistics page, as CSV or JSON."""

from urllib.parse import urlsplit

from nms_workers.services.haproxy import stats
from nms_workers.services.haproxy.target import HaproxyTarget
from nms_workers.transport.http import HttpClient


class StatsPage:
    """The page of one process. Safe to share between threads."""

    def __init__(self, target: HaproxyTarget) -> None:
        base = (target.url or "").partition(";")[0]
        base += "" if urlsplit(base).path else "/"
        query = f"?{target.stats_query}" if target.stats_query else ""
        # HAProxy knows its page by the whole of `stats uri`, and what follows a `;` as the format
        page = target.model_copy(update={"url": f"{base}{query};{target.stats_format}"})
        self._format = target.stats_format
        self._http = HttpClient(page, service="haproxy")

    def close(self) -> None:
        """Let go of connections."""
        self._http.close()

    def rows(self) -> list[stats.Row]:
        """Every frontend, backend, server and listener.

        Raises:
            TargetError: as `HttpClient` says; `ParseError` also when it is another page.
        """
        answer = self._http.get()
        if self._format == "json" or answer.body.lstrip()[:1] == b"<":  # of a web page it tells what it is
            return stats.from_json(answer.json(stats.Json))
        return stats.from_csv(answer.text)
