"""`CLIENT LIST` in a few numbers, however many clients there are.

Source: https://redis.io/docs/latest/commands/client-list/.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from nms_workers.errors import ParseError
from nms_workers.records import MAX_LABEL_VALUE, Sample

OTHER = "other"

_FLAGS = {  # the letters that an operator asks about; others are of a moment
    "N": "normal",
    "M": "master",
    "S": "replica",
    "O": "monitor",
    "P": "pubsub",
    "b": "blocked",
    "x": "transaction",
    "t": "tracking",
    "c": "closing",
    "u": "unblocked",
    "U": "unix_socket",
    "r": "cluster_read_only",
    "e": "no_evict",
}
_FIGURES = (  # metric, field of CLIENT LIST, how many clients become one number
    ("redis_client_idle_max_seconds", "idle", max),
    ("redis_client_age_max_seconds", "age", max),
    ("redis_client_output_buffer_bytes", "omem", sum),
    ("redis_client_output_buffer_max_bytes", "omem", max),
    ("redis_client_query_buffer_bytes", "qbuf", sum),
    ("redis_client_memory_bytes", "tot-mem", sum),
)


def summary(clients: Sequence[Mapping[str, str]], limit: int, labels: dict[str, str]) -> Iterator[Sample]:
    """The samples of a list of clients.

    Args:
        clients: field to text, as the server names them; at least our own connection.
        limit: how many users, and how many names, get a series each; the rest is `other`.
        labels: added to every sample.

    Raises:
        ParseError: a field is missing or no number.
    """
    try:
        for metric, field, join in _FIGURES:
            yield Sample(metric, join(int(client[field]) for client in clients), labels)
        yield from _counts("user", Counter(client["user"] for client in clients), limit, labels)
        yield from _counts("name", Counter(client["name"] for client in clients), limit, labels)
        flags = Counter(_FLAGS[letter] for client in clients for letter in client["flags"] if letter in _FLAGS)
        yield from _counts("flag", flags, len(_FLAGS), labels)
    except (KeyError, ValueError) as exc:
        raise ParseError(f"CLIENT LIST has a shape we do not know: {exc}") from None


def _counts(label: str, counts: Counter[str], limit: int, labels: dict[str, str]) -> Iterator[Sample]:
    metric = f"redis_clients_by_{label}"
    for value, number in counts.most_common(limit):
        yield Sample(metric, number, labels | {label: value[:MAX_LABEL_VALUE]})
    if rest := counts.total() - sum(number for _, number in counts.most_common(limit)):
        yield Sample(metric, rest, labels | {label: OTHER})
