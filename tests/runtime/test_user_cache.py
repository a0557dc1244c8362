"""What is kept between sessions, and that nothing depends on it."""

import os
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from reenact.runtime import user_cache

DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the cache folder, which is not there yet."""
    path = tmp_path / "cache"
    monkeypatch.setenv(user_cache.FOLDER_NAME, str(path))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Give a file whose digest is kept."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    user_cache.keep_sha256(path, path.stat(), DIGEST)
    return path


def test_it_lies_where_the_environment_says(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is the one that is named, or else one in the user's cache."""
    assert cache == user_cache.folder()
    monkeypatch.delenv(user_cache.FOLDER_NAME)
    assert user_cache_path("reenact") == user_cache.folder()


def test_what_is_kept_is_found_again() -> None:
    """Values are found under their key and kind, and a later one is in place of an earlier one."""
    assert user_cache.read("kind", "key") is None
    user_cache.write("kind", "key", {"a": 1})
    user_cache.write("kind", "key", {"a": 2})
    assert {"key": "key", "a": 2} == user_cache.read("kind", "key")
    assert [None, None] == [user_cache.read("kind", "another"), user_cache.read("another", "key")]


def test_a_digest_is_that_of_a_file_as_it_was(model: Path) -> None:
    """With another size or another time of change it is not known; as it was again, it is."""
    status = model.stat()
    assert DIGEST == user_cache.kept_sha256(model, status)
    model.write_bytes(b"GGUF and more")
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert user_cache.kept_sha256(model, model.stat()) is None
    model.write_bytes(b"GGUG")
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert user_cache.kept_sha256(model, model.stat()) is None
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert DIGEST == user_cache.kept_sha256(model, model.stat())


def test_a_link_is_the_file(model: Path, tmp_path: Path) -> None:
    """By whatever path a file is opened, its digest is known."""
    link = tmp_path / "link.gguf"
    link.symlink_to(model)
    assert DIGEST == user_cache.kept_sha256(link, link.stat())


@pytest.mark.parametrize("name", [b"a b%20\n\t.gguf", b"\xc3\xa9 \xe2\x82\xac.gguf", b"\xff\xfe.gguf", b"\\xff.gguf"])
def test_a_file_is_found_by_its_digest(tmp_path: Path, name: bytes) -> None:
    """Whatever bytes its name is made of."""
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(b"GGUF")
    user_cache.keep_sha256(path, path.stat(), DIGEST)
    assert [path] == list(user_cache.files_of(DIGEST))


def test_only_files_that_still_are_so_are_found(model: Path, tmp_path: Path) -> None:
    """A file that was changed or removed is not offered, nor is one with another digest."""
    for name in ("changed", "removed", "other"):
        path = tmp_path / name
        path.write_bytes(b"GGUF")
        user_cache.keep_sha256(path, path.stat(), "cd" * 32 if name == "other" else DIGEST)
    (tmp_path / "changed").write_bytes(b"GGUF and more")
    (tmp_path / "removed").unlink()
    assert [model] == list(user_cache.files_of(DIGEST))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'"key"', b'{"key":5}', b'{"key":"/another"}', b'{"key":"\\u0000"}', b"\xff"]
)
def test_a_broken_file_is_as_good_as_none(model: Path, cache: Path, content: bytes) -> None:
    """What cannot be read, or is about something else, is not known; it is kept anew."""
    (entry,) = (cache / "files").iterdir()
    entry.write_bytes(content)
    assert user_cache.kept_sha256(model, model.stat()) is None
    assert [] == list(user_cache.files_of(DIGEST))
    user_cache.keep_sha256(model, model.stat(), DIGEST)
    assert [model] == list(user_cache.files_of(DIGEST))


def test_values_of_another_kind_are_not_known(model: Path) -> None:
    """A digest that is no text is none."""
    status = model.stat()
    values = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": 7}
    user_cache.write("files", user_cache._name(model), values)
    assert user_cache.kept_sha256(model, status) is None


def test_a_folder_that_cannot_be_is_done_without(cache: Path, tmp_path: Path) -> None:
    """Where a file is in the place of the folder nothing is kept, nothing is found, and nothing fails."""
    cache.write_text("not a folder")
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    user_cache.keep_sha256(path, path.stat(), DIGEST)
    assert user_cache.kept_sha256(path, path.stat()) is None
    assert [] == list(user_cache.files_of(DIGEST))
    assert "not a folder" == cache.read_text()


def test_what_cannot_be_put_in_place_is_not_left_about(cache: Path) -> None:
    """A file that was written and cannot have its name is removed; so there is nothing but what is kept."""
    user_cache.write("kind", "key", {"a": 1})
    (entry,) = (cache / "kind").iterdir()
    entry.unlink()
    entry.mkdir()
    user_cache.write("kind", "key", {"a": 2})
    assert [entry] == list((cache / "kind").iterdir())
    assert user_cache.read("kind", "key") is None
