"""What the commands print: tables for people, JSON for machines."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

COLOURS = {
    "ok": "green", "unchanged": "green", "succeeded": "green",
    "partial": "yellow", "skipped": "yellow", "expired": "yellow", "queued": "yellow", "running": "yellow",
}  # fmt: skip


def as_json(value: object) -> None:
    """Print JSON with times in ISO 8601."""
    body = msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2)
    sys.stdout.write(body.decode() + "\n")


def table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, title: str | None = None) -> None:
    """Print rows; a column whose values are numbers is set to the right. Nothing is cut when the output is a file."""
    rows = list(rows)
    console = Console(width=None if sys.stdout.isatty() else 240, highlight=False)
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        numeric = bool(rows) and all(isinstance(row.get(column), int | float | None) for row in rows)
        grid.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(_cell(row.get(column)) for column in columns))
    console.print(grid)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
    if isinstance(value, datetime):
        return f"{value.astimezone():%Y-%m-%d %H:%M:%S}"
    if isinstance(value, Mapping):
        value = ", ".join(f"{key}={one}" for key, one in value.items())
    text = str(value)
    colour = COLOURS.get(text)
    if colour is None and text in {"timeout", "unreachable", "auth", "refused", "parse", "lost", "error", "failed"}:
        colour = "red"
    return f"[{colour}]{text}[/]" if colour else text.replace("[", r"\[")
