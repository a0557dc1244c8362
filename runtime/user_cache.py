"""Keeps results between sessions, so that they need not be computed again: digests of files, verdicts of probes.

The rules that hold here:

* They are in a folder of the user's cache (or the one named by ``REENACT_CACHE``), which can be removed at any time.
* Nothing depends on them: a result that cannot be read or written is computed again. A kept digest counts only while
  path, size and time of change are the same.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

import orjson
from platformdirs import user_cache_path

FOLDER_NAME: Final = "REENACT_CACHE"
"""The environment variable that names the folder."""

_FILES: Final = "files"


def folder() -> Path:
    """Return the cache's folder."""
    named = os.environ.get(FOLDER_NAME)
    return Path(named) if named else user_cache_path("reenact")


def read(kind: str, key: str) -> dict[str, Any] | None:
    """Return the values that are kept under a key, or None."""
    with suppress(OSError, ValueError):
        kept = orjson.loads(_path(kind, key).read_bytes())
        if isinstance(kept, dict) and kept.get("key") == key:
            return kept
    return None


def write(kind: str, key: str, values: dict[str, Any]) -> None:
    """Keep values under a key, and replace earlier ones."""
    path = _path(kind, key)
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Another process may do the same: the last one wins, and no reader sees a part of a file.
        new = path.with_suffix(f".{token_hex(4)}")
        try:
            new.write_bytes(orjson.dumps({"key": key, **values}))
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def remove(kind: str, key: str) -> None:
    """Remove the values under a key, if there are any."""
    with suppress(OSError):
        _path(kind, key).unlink()


def kept_sha256(path: Path, status: os.stat_result) -> str | None:
    """Return the digest of a file with this status; None if it is not known."""
    kept = read(_FILES, _name(path))
    if kept is None or (kept.get("size"), kept.get("mtime_ns")) != (status.st_size, status.st_mtime_ns):
        return None
    found = kept.get("sha256")
    return found if isinstance(found, str) else None


def keep_sha256(path: Path, status: os.stat_result, digest: str) -> None:
    """Keep the digest of a file."""
    values = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest}
    write(_FILES, _name(path), values)


def files_of(digest: str) -> Iterator[Path]:
    """Return the files that had this digest when they were last opened, and still have their size and time."""
    entries: list[Path] = []
    with suppress(OSError):
        entries = sorted((folder() / _FILES).glob("*.json"))
    for entry in entries:
        with suppress(OSError, ValueError):
            values = orjson.loads(entry.read_bytes())
            name = values.get("key") if isinstance(values, dict) else None
            if isinstance(name, str):
                path = Path(os.fsdecode(unquote_to_bytes(name)))
                if kept_sha256(path, path.stat()) == digest:
                    yield path


def _name(path: Path) -> str:
    """Return a path as text that can be converted back, because a file's name may be any bytes."""
    return quote_from_bytes(os.fsencode(path.resolve()))


def _path(kind: str, key: str) -> Path:
    return folder() / kind / f"{sha256(key.encode()).hexdigest()[:32]}.json"
