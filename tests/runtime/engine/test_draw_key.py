"""Keys of draws."""

from itertools import product

from reenact.runtime.engine.draw_key import draw_key


def test_keys_are_pinned() -> None:
    """A key never changes between versions: old logs are computed again with it."""
    assert [draw_key(0, 0), draw_key(1, 0), draw_key(0, 1), draw_key(7, 3, 1)] == PINNED


def test_neighbours_are_unrelated() -> None:
    """Seeds, indices and attempts close together give keys that are all different."""
    keys = [draw_key(*values) for values in product(range(50), range(50), range(4))]
    assert len(keys) == len(set(keys))


def test_the_next_seed_is_not_the_shifted_stream() -> None:
    """The stream of seed s + 1 shares no key with that of seed s, at any shift."""
    streams = [{draw_key(seed, index) for index in range(1000)} for seed in (41, 42)]
    assert set() == streams[0] & streams[1]


def test_no_key_draws_from_the_system() -> None:
    """Keys are 32 bits, and never the one that makes llama.cpp draw from the operating system."""
    keys = [draw_key(seed, 0) for seed in range(20_000)]
    assert all(0 <= key < 0xFFFFFFFF for key in keys)


PINNED = [956087953, 1837991619, 13008816, 323752561]
