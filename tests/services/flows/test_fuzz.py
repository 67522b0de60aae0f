"""Nothing that comes may crash the decoders, make them hang, or make them take memory without bound.

The corpus holds what real exporters sent (`exporters.py`) and what means harm (`evil.py`), one file each.
"""

import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nms_workers.services.flows.decoded import Decoded, Reason
from nms_workers.services.flows.record import FLOW
from nms_workers.services.flows.templates import Templates
from tests.services.flows.evil import EVIL
from tests.services.flows.exporters import CORPUS, unpack
from tests.services.flows.support import NOW, patient, read

FILES = sorted(CORPUS.glob("*.bin"))
REAL = [path for path in FILES if not path.name.startswith("evil-")]
SEEDS = [datagram for path in REAL for datagram in unpack(path.read_bytes())[:3]]
SECONDS_OF_CPU = 5.0  # for one file; the slowest takes a fifth of a second on a quiet machine
MOST_BYTES = 64 << 20


def sound(told: Decoded, datagrams: int, templates: Templates) -> None:
    """What holds whatever came."""
    limits = templates.limits
    assert told.flows.dtype == FLOW
    assert told.flows.shape == told.origin.shape == told.received.shape
    assert len(told.flows) <= 2 * limits.records * (datagrams + templates.limits.held)
    assert not len(told.origin) or told.origin.max() < len(told.origins)
    assert all(isinstance(reason, Reason) and origin < len(told.origins) for origin, reason in told.problems)
    assert all(count > 0 for count in told.problems.values())
    assert (told.flows["flow_start"] <= told.flows["flow_end"]).all()
    ends = told.flows["flow_end"] - told.received
    assert (np.abs(ends) <= (limits.clock + limits.late) * 1e6).all()
    assert (told.flows["octets_scaled"] >= told.flows["octets"]).all()
    assert templates.held <= limits.held
    assert templates.held_bytes <= limits.held_bytes
    assert len(templates.unknown_fields) <= limits.names
    assert len(told.skipped) <= 100


def test_the_corpus_is_there() -> None:
    kinds = Counter(path.name.split("-")[0] for path in FILES)
    assert kinds["softflowd"] >= 9
    assert kinds["pmacct"] >= 5
    assert kinds["evil"] >= 20
    assert sum(path.stat().st_size for path in FILES) < 1 << 20


def test_the_evil_part_of_it_is_what_its_writer_writes() -> None:
    files = {path.stem.removeprefix("evil-"): unpack(path.read_bytes()) for path in FILES if "evil-" in path.name}
    assert files == EVIL


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_corpus_is_read_in_bounded_time_and_memory(path: Path) -> None:
    datagrams, templates = unpack(path.read_bytes()), Templates()
    start = time.process_time()
    for some in (datagrams, datagrams[::-1], datagrams):
        sound(read(some, templates), len(some), templates)
    assert time.process_time() - start < SECONDS_OF_CPU
    tracemalloc.start()
    try:
        read(datagrams)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_what_real_exporters_sent_is_cut_off_anywhere(path: Path) -> None:
    """Every prefix of a datagram gives no more than the whole one."""
    datagrams, templates = unpack(path.read_bytes()), Templates()
    read(datagrams, templates)
    data = datagrams[0]
    whole = len(read([data], templates).flows)
    told = [read([data[:size]], templates) for size in range(0, len(data), 7)]
    for one in told:
        sound(one, 1, templates)
    assert max(len(one.flows) for one in told) <= whole
    if path.stem != "pmacct-sflow-broken-agent":
        assert whole > 0
        assert all(one.problems for one in told[:3]), "a datagram without its header is a problem"


@settings(patient, max_examples=300)
@given(st.lists(st.binary(max_size=300), max_size=4))
def test_any_bytes(datagrams: list[bytes]) -> None:
    templates = Templates()
    sound(read(datagrams, templates), len(datagrams), templates)


HEADS = [b"\0\5", b"\0\7", b"\0\x09", b"\0\x0a", b"\0\0\0\5\0\0\0\1", b"\0\0\0\5\0\0\0\2"]


@settings(patient, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(HEADS), st.binary(max_size=400)), min_size=1, max_size=4))
def test_any_bytes_behind_a_version(parts: list[tuple[bytes, bytes]]) -> None:
    templates = Templates()
    sound(read([head + body for head, body in parts], templates), len(parts), templates)


@settings(patient, max_examples=200)
@given(st.sampled_from(SEEDS), st.data())
def test_what_real_exporters_sent_is_damaged(seed: bytes, data: st.DataObject) -> None:
    """Bytes changed, left out and put in; the templates of the right ones stay known."""
    templates = Templates()
    read([seed], templates)
    damaged = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        what = data.draw(st.sampled_from(["change", "ones", "cut", "double"]))
        if what == "change":
            damaged[at] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "ones":
            damaged[at : at + 2] = b"\xff\xff"
        elif what == "cut" and len(damaged) > 20:
            del damaged[at : at + data.draw(st.integers(1, 9))]
        else:
            damaged[at:at] = damaged[at : at + 8]
    told = read([bytes(damaged), seed], templates, received=NOW * 1_000_000)
    sound(told, 2, templates)
