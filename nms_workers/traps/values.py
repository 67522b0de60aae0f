"""The values of a notification as people and JSON read them."""

from nms_workers.traps import ber

MAX_TEXT = 1000


def written(tag: int, contents: bytes) -> int | str | None:
    """A value: numbers as numbers, addresses and object identifiers with dots, octets as text where they are text,
    else as hexadecimal digits; at most `MAX_TEXT` characters.
    """
    if tag == ber.INTEGER:
        return int.from_bytes(contents, signed=True)
    if tag in (ber.COUNTER, ber.GAUGE, ber.TICKS, ber.COUNTER64):
        return int.from_bytes(contents)
    if tag == ber.ADDRESS:
        return ".".join(map(str, contents))
    if tag == ber.OBJECT_IDENTIFIER:
        return ber.oid_text(contents)
    if tag == ber.NULL:
        return None
    return octets(contents)


def octets(contents: bytes) -> str:
    """Octets as text where they are printable, else as hexadecimal digits."""
    try:
        text = contents.rstrip(b"\x00").decode()
    except UnicodeDecodeError:
        text = ""
    if contents and (not text or not all(char.isprintable() or char in "\r\n\t" for char in text)):
        return contents[: MAX_TEXT // 3].hex(":")
    return text[:MAX_TEXT]
