"""A header: the verdict on its promise, and the settings that it may hold."""

from typing import Any

import pytest
from attrs import evolve as changed
from attrs import field, frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.header import DeterminismFacts, Limits, Probed, beyond, within_bounds
from reenact.actors.limits import MAX_INTEGER, bounds
from tests.helpers.header import opened


@pytest.mark.parametrize(
    ("probe", "verdict"),
    [
        ({}, "not probed"),
        ({"one": "same"}, "same"),
        ({"one": "not tried"}, "not probed"),
        ({"one": "same", "other": "not tried"}, "not probed"),
        ({"one": "not tried", "other": "differs"}, "differs"),
        ({"one": "same", "other": "differs"}, "differs"),
    ],
)
def test_the_verdict_of_a_probe(probe: dict[str, Probed], verdict: str) -> None:
    """One way that differs is enough for "differs"; "same" needs that every way was tried, and one at least."""
    facts = DeterminismFacts(asked="auto", policy="schedule-independent", reason="", probe=probe)
    assert verdict == facts.verdict


@pytest.mark.parametrize(
    ("field_name", "value", "expected"),
    [
        ("max_waiting", -1, "a whole number from 0 to 4,096, got -1"),
        ("max_waiting", 4097, "a whole number from 0 to 4,096, got 4097"),
        ("max_waiting", True, "a whole number from 0 to 4,096, got True"),
        ("max_waiting", 1.0, "a whole number from 0 to 4,096, got 1.0"),
        ("max_reader_lag", 0, "a whole number from 1 to 9,007,199,254,740,991, got 0"),
        ("max_pause", 0, "seconds above 0 and up to 10,000,000, or None, got 0.0"),
        ("max_pause", 10_000_000.5, "seconds above 0 and up to 10,000,000, or None, got 10000000.5"),
        ("max_pause", 10_000_001, "seconds above 0 and up to 10,000,000, or None, got 10000001"),
        ("max_pause", True, "seconds above 0 and up to 10,000,000, or None, got True"),
        ("max_pause", "1", "seconds above 0 and up to 10,000,000, or None, got '1'"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_by_name(field_name: str, value: object, expected: str) -> None:
    """A limit of the wrong type or out of bounds is an error that names the field and its bounds."""
    limits: dict[str, Any] = {"max_waiting": 1, "max_reader_lag": 1, field_name: value}
    with pytest.raises(InvalidRequest) as raised:
        Limits(**limits)
    assert (field_name, f"expected {expected}") == (raised.value.field, raised.value.reason)


def test_the_bounds_of_limits_are_allowed() -> None:
    """The least and the greatest values are limits too, and seconds are kept as a float."""
    least = Limits(max_waiting=0, max_reader_lag=1)
    assert (0, 1, None) == (least.max_waiting, least.max_reader_lag, least.max_pause)
    most = Limits(max_waiting=4096, max_reader_lag=MAX_INTEGER, max_pause=10_000_000)
    assert (4096, MAX_INTEGER, "10000000.0") == (most.max_waiting, most.max_reader_lag, repr(most.max_pause))
    assert 0.5 == Limits(max_waiting=0, max_reader_lag=1, max_pause=0.5).max_pause


@frozen(kw_only=True)
class Settings:
    """Settings that depend on the count of slots."""

    n_slots: int = field(validator=within_bounds)
    n_ctx: int = field(validator=within_bounds)
    n_batch: int = field(validator=within_bounds)


def test_bounds_depend_on_the_count_of_slots() -> None:
    """A batch has a row for each slot at least, and the slots share the cells, of which each pads its own."""
    with pytest.raises(InvalidRequest, match=r"n_batch: expected a whole number from 8 to 65,536, got 7"):
        Settings(n_slots=8, n_ctx=1, n_batch=7)
    with pytest.raises(InvalidRequest, match=r"n_ctx: expected a whole number from 1 to 268,435,200, got 268435201"):
        Settings(n_slots=8, n_ctx=268_435_201, n_batch=8)
    with pytest.raises(InvalidRequest, match=r"n_slots: expected a whole number from 1 to 256, got 257"):
        Settings(n_slots=257, n_ctx=1, n_batch=300)
    with pytest.raises(InvalidRequest, match=r"n_slots: expected a whole number from 1 to 256, got 0"):
        Settings(n_slots=0, n_ctx=1, n_batch=300)
    assert 268_435_200 == Settings(n_slots=8, n_ctx=268_435_200, n_batch=8).n_ctx


@frozen
class OneSlot:
    """Settings that say nothing of slots."""

    n_batch: int = field(validator=within_bounds)


def test_settings_without_slots_have_one() -> None:
    """Where no count of slots is set, a batch of one row is enough."""
    assert 1 == OneSlot(1).n_batch


def test_the_bounds_of_every_setting() -> None:
    """Each setting of a session has its bounds, by its name."""
    expected = {
        "n_slots": (1, 256),
        "n_ctx": (1, 2**31 - 256),
        "n_batch": (1, 2**16),
        "n_threads": (1, 512),
        "max_waiting": (0, 4096),
        "max_reader_lag": (1, MAX_INTEGER),
    }
    assert expected == bounds(1)
    assert {**expected, "n_ctx": (1, 2**28 - 256), "n_batch": (8, 2**16)} == bounds(8)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, None),
        ({"n_slots": 256, "n_batch": 256}, None),
        ({"n_slots": 257, "n_batch": 257}, "n_slots: expected a whole number from 1 to 256, got 257"),
        ({"n_slots": 0}, "n_slots: expected a whole number from 1 to 256, got 0"),
        ({"n_slots": 4, "n_batch": 3}, "n_batch: expected a whole number from 4 to 65,536, got 3"),
        ({"n_slots": 1, "n_ctx": 2**31 - 256}, None),
        (
            {"n_slots": 1, "n_ctx": 2**31 - 255},
            "n_ctx: expected a whole number from 1 to 2,147,483,392, got 2147483393",
        ),
        ({"n_slots": 1, "n_ctx_seq": 2**31}, None),
        (
            {"n_slots": 1, "n_ctx_seq": 2**31 + 1},
            "n_ctx_seq: expected a whole number from 1 to 2,147,483,648, got 2147483649",
        ),
        ({"n_ctx_seq": 1}, None),
        ({"n_ctx_seq": 0}, "n_ctx_seq: expected a whole number from 1 to 1,073,741,824, got 0"),
        ({"n_threads": 0}, "n_threads: expected a whole number from 1 to 512, got 0"),
        ({"n_batch": 2**16}, None),
        (
            {"n_ctx_seq": 2**17, "n_batch": 2**16 + 1},
            "n_batch: expected a whole number from 2 to 65,536, got 65537",
        ),
        ({"pooling": "mean", "n_batch": 2**16}, None),
        ({"pooling": "mean", "n_ctx_seq": 2**17, "n_batch": 2**17 + 2}, None),
        (
            {"pooling": "mean", "n_ctx_seq": 2**17, "n_batch": 2**17 + 3},
            "n_batch: expected a whole number from 2 to 131,074, got 131075",
        ),
        ({"pooling": "mean", "n_batch": 1}, "n_batch: expected a whole number from 2 to 65,536, got 1"),
    ],
)
def test_a_context_that_cannot_be_is_found(changes: dict[str, Any], found: str | None) -> None:
    """A setting out of bounds is named with them; where texts are pooled a batch may be as long as a context."""
    assert found == beyond(changed(opened().context, **changes))
