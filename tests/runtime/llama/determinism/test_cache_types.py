"""The type of V: by measurement, once for a build, a CPU and a size of heads."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reenact.runtime.llama.build import engine_facts
from reenact.runtime.llama.determinism import cache_types
from reenact.runtime.llama.determinism.cache_types import fastest_v
from reenact.runtime.user_cache import FOLDER_NAME

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be known of this machine."""
    monkeypatch.setenv(FOLDER_NAME, str(tmp_path))


def taking(f16: float, q8_0: float) -> Callable[[str, int], float]:
    """Return an attention that takes so long for each type."""
    return lambda kind, _head_size: {"f16": f16, "q8_0": q8_0}[kind]


@pytest.mark.parametrize(("f16", "q8_0", "expected"), [(1.0, 2.0, "f16"), (1.4, 1.0, "f16"), (10.0, 1.0, "q8_0")])
def test_f16_gives_way_where_it_takes_far_longer(
    f16: float, q8_0: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scalar loop takes ten times as long, and noise does not."""
    monkeypatch.setattr(cache_types, "_attention", taking(f16, q8_0))
    assert expected == fastest_v(64, engine_facts())


def test_it_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found holds for every later session: its bits do not change with the noise of a machine."""
    monkeypatch.setattr(cache_types, "_attention", taking(10.0, 1.0))
    first = fastest_v(64, engine_facts())
    monkeypatch.setattr(cache_types, "_attention", taking(1.0, 10.0))
    assert (first, "f16") == (fastest_v(64, engine_facts()), fastest_v(128, engine_facts()))


@pytest.mark.parametrize("head_size", [None, 80, 1056, 131_104])
def test_a_head_that_is_not_measured(head_size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """V stays f16, and costs no time, for a head that is unknown, no whole number of blocks, or larger than any."""
    monkeypatch.setattr(cache_types, "_attention", None)
    assert "f16" == fastest_v(head_size, engine_facts())


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_llama_cpp_attends(kind: cache_types.TypeV) -> None:
    """What is measured is an attention of llama.cpp's, which takes some time and no more than a moment."""
    assert 0 < cache_types._attention(kind, 64) < 1
