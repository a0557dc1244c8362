"""Cuts and flipped bits of a log, plain and compressed: a share of ``make measure-damage``."""

from pathlib import Path

import pytest

from reenact.runtime.log import compressed
from tests.measure.damage import N_PARTS, Whole, damage, flips_of
from tests.replay import logs

LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("size", "stride"), [(8_000, 13), pytest.param(20_000, 1, marks=LONG), pytest.param(80_000, 19, marks=LONG)]
)
def test_every_cut_and_every_flip_is_seen(tmp_path: Path, size: int, stride: int) -> None:
    """Every cut opens to the longest valid prefix, and a flipped bit of any byte is found."""
    results = damage(tmp_path, size, stride, lambda _doing, _fraction: None)
    assert ["jsonl", "jsonl.zst"] == list(results)
    for whole, found in results.values():
        assert [] == found.wrong
        assert len(whole.data) // stride <= found.n_flips <= found.n_cuts
        assert found.n_torn <= (not whole.is_compressed)


class Anything:
    """A value that nothing differs from."""

    def __ne__(self, _: object) -> bool:
        return False


def test_what_is_not_seen_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that looks at no seal passes over flips, and each is reported."""
    whole = Whole.of(logs.short(tmp_path / "log.jsonl.zst"))
    monkeypatch.setattr(compressed, "_seal", lambda _: Anything())
    wrong = [one for part in range(N_PARTS) for one in flips_of(whole, part, 1, tmp_path).wrong]
    assert wrong
    assert {"sound with 38 lines"} == {one.partition(": ")[2] for one in wrong}
