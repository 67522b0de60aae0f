"""The health of data sources: what each says, many at once, and none for longer than it may take."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Literal, NamedTuple

from nms_workers.errors import Timeout
from nms_workers.services.grafana.client import GrafanaClient
from nms_workers.services.grafana.model import Datasource
from nms_workers.services.grafana.refusals import told, words
from nms_workers.transport.deadline import deadline, time_left
from nms_workers.transport.http import Response
from nms_workers.transport.response import check

Verdict = Literal["healthy", "unhealthy", "unchecked", "forbidden", "gone"]

_BY_WORDS: dict[str, Verdict] = {
    "plugin.notRegistered": "unhealthy",
    "plugin not found": "unhealthy",
    "plugin.notImplemented": "unchecked",
    "data source not found": "gone",
}
_BY_STATUS: dict[int, Verdict] = {403: "forbidden", 404: "unchecked", 501: "unchecked"}


class Checked(NamedTuple):
    """What a data source said of its health.

    Args:
        verdict: `unchecked`: its type has no health check. `forbidden`: we may not ask. `gone`: deleted meanwhile.
        words: its own, in one line.
        seconds: it took to say so.
    """

    verdict: Verdict
    words: str
    seconds: float


def checked(client: GrafanaClient, sources: Sequence[Datasource]) -> Iterator[tuple[Datasource, Checked]]:
    """Ask all for their health, `checks_at_once` at a time, in their order.

    Raises:
        Timeout: the time of the whole run is used up; one source that does not answer is unhealthy.
        Unreachable, AuthError, ParseError: it is Grafana that does not answer as it should.
    """
    with ThreadPoolExecutor(client.target.checks_at_once, "grafana-health") as pool:
        asked = [pool.submit(copy_context().run, _check, client, source) for source in sources]
        try:
            for source, answer in zip(sources, asked, strict=True):
                yield source, answer.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _check(client: GrafanaClient, source: Datasource) -> Checked:
    began = time.monotonic()
    try:
        with deadline(client.target.check_timeout):
            verdict, said = judged(client.ask_health(source.uid))
    except Timeout:
        if time_left() <= 0:  # of the whole run
            raise
        verdict, said = "unhealthy", f"no answer in {client.target.check_timeout:g} s"
    return Checked(verdict, said, time.monotonic() - began)


def judged(response: Response) -> tuple[Verdict, str]:
    """What an answer to a health check means. Grafana 9 and 10.0 say in words what later ones say in `messageId`.

    | answer | meaning |
    |---|---|
    | 200 with status OK, 400 with another status | what the plugin says |
    | 501; 404 "Not found"; `plugin.notImplemented` | this type has no health check |
    | 404 "Plugin not found"; `plugin.notRegistered` | its plugin is not installed |
    | 404 of the source itself | it was deleted meanwhile |
    | 403 | we lack `datasources:query` |
    | 500, and 503 with words of Grafana's | the plugin is broken |

    Source: pkg/api/datasources.go, pkg/plugins/errors.go of Grafana.

    Raises:
        Unreachable: 503 from something in front of Grafana.
    """
    said = told(response)
    text = words(said)
    if response.status == 503 and not text:
        check(response, "GET", (), ())
    if response.status not in (200, 400):
        known = _BY_WORDS.get(said.message_id) or _BY_WORDS.get(text.lower()) or _BY_STATUS.get(response.status)
        return known or "unhealthy", text or f"Grafana answered with {response.status}"
    response.json(dict[str, Any])  # a web page is no health
    return ("healthy" if said.status == "OK" else "unhealthy"), text
