"""Searches that come page by page from one view of the indices (point in time and `search_after`).

Source: https://www.elastic.co/docs/reference/elasticsearch/rest-apis/paginate-search-results#search-after
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from nms_workers.errors import Refused, TargetError
from nms_workers.services.elasticsearch import model
from nms_workers.services.elasticsearch.session import Session

MOST = 100_000  # documents of one search
_PAGE = 1000  # documents of one answer
_KEEP = "1m"  # that the server keeps the view between two pages


def hits(  # noqa: PLR0913 - they are named
    session: Session,
    index: str,
    query: Mapping[str, Any] | None,
    *,
    limit: int,
    sort: Sequence[Mapping[str, Any]],
    source: bool | Sequence[str],
) -> Iterator[model.Hit]:
    """See `ElasticsearchClient.search`.

    Raises:
        Refused: the limit is out of bounds, or the cluster did not finish a page in time.
    """
    if not 1 <= limit <= MOST:
        raise Refused(f"a search brings 1 to {MOST} documents, not {limit}", hint="narrow the query")
    view = session.ask(lambda es: es.open_point_in_time(index=index, keep_alive=_KEEP), model.PointInTime).id
    wanted = {
        "query": dict(query or {"match_all": {}}),
        "sort": [dict(one) for one in sort] or [{"_shard_doc": "asc"}],
        "source": source if isinstance(source, bool) else list(source),
        "track_total_hits": False,
        "filter_path": ["pit_id", "timed_out", "hits.hits"],
    }
    left, after = limit, None
    try:
        while left > 0:
            size = min(left, _PAGE)
            page = _page(session, wanted | {"size": size, "search_after": after}, view)
            if page.timed_out:
                raise Refused(f"the cluster did not finish the search of {index} in time", hint="narrow the query")
            yield from page.hits.hits
            if len(page.hits.hits) < size:
                return
            view = page.pit_id or view
            left -= size
            after = page.hits.hits[-1].sort
    finally:
        with suppress(TargetError):  # the server closes it by itself in a minute
            session.ask(lambda es: es.close_point_in_time(id=view), dict[str, Any])


def _page(session: Session, wanted: Mapping[str, Any], view: str) -> model.Page:
    return session.ask(lambda es: es.search(pit={"id": view, "keep_alive": _KEEP}, **wanted), model.Page)
