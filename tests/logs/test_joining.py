"""Which lines are one entry."""

import pytest

from nms_workers.logs.joining import Joiner, Piece, rule_of, rules

TRACEBACK = """ERROR it failed
Traceback (most recent call last):
  File "a.py", line 1, in <module>
    run()
  File "b.py", line 2, in run
    raise Unreachable
nms_workers.errors.Unreachable: no route

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "c.py", line 3, in <module>
ValueError: no"""

JAVA = """2026-11-22 20:30:00 ERROR it failed
java.lang.IllegalStateException: closed
\tat org.example.A.run(A.java:1)
\t... 3 more
Caused by: java.io.IOException: gone
\tat org.example.B.read(B.java:2)"""

KEY = "-----BEGIN EC PRIVATE KEY-----\nabc\ndef\n-----END EC PRIVATE KEY-----"

STATEMENT = "2026-11-22 LOG:  statement: SELECT 1\n\tFROM t\n\tWHERE x"

PANIC = """panic: runtime error

goroutine 1 [running]:
main.main()
\t/app/main.go:5 +0x1d"""


def entries(kind: str, text: str, *, name: str = "", lines: int = 500, size: int = 64_000) -> list[str]:
    """The entries that a text is read as."""
    joiner = Joiner(rule_of(kind, name), lines, size)
    found = [joiner.add(Piece(line, str(at), str(at + 1))) for at, line in enumerate(text.split("\n"))]
    whole = [one for one in (*found, joiner.flush()) if one is not None]
    places = [(one.pieces[0].start, one.pieces[-1].after) for one in whole]
    assert [start for start, _ in places] == ["0", *(after for _, after in places[:-1])]  # nothing left out, in order
    return ["\n".join(piece.text for piece in one.pieces) for one in whole]


@pytest.mark.parametrize(
    ("kind", "text"),
    [("", TRACEBACK), ("", JAVA), ("", KEY), ("postgresql", STATEMENT), ("prometheus", PANIC), ("elasticsearch", JAVA)],
    ids=["traceback", "java", "key", "statement", "panic", "elasticsearch"],
)
def test_one_entry(kind: str, text: str) -> None:
    assert entries(kind, f"before\n{text}\nafter\nlast") == ["before", text, "after", "last"]


def test_lines_of_their_own() -> None:
    assert entries("", "a\nb\nc") == ["a", "b", "c"]
    assert entries("suricata", "a\n  b") == ["a", "  b"]
    assert entries("", "a\n  b", name="none") == ["a", "  b"]
    assert entries("suricata", "a\n  b", name="default") == ["a\n  b"]


def test_bounded_in_lines_and_in_size() -> None:
    assert entries("", "a\n b\n c\n d\n e", lines=2) == ["a\n b", " c\n d", " e"]
    assert entries("", "a\n bbbbb\n ccccc\n d", size=10) == ["a\n bbbbb", " ccccc\n d"]


def test_every_rule_is_of_known_parts() -> None:
    assert {"default", "none"} <= set(rules())
    assert rule_of("nothing like that", "nor that") is rules()["default"]
