"""Makes keyed hashes of tokens, rows and names.

The rules that hold here:

* All hashes depend on a key, which is in no log: without it no guess at a text can be tried.
* By default the hash of an input depends on all inputs before it. So equal beginnings of prompts stay equal, which
  decides what is reused, and how often a token comes shows nowhere.
* By token, an input has the same hash wherever it is. A session whose contexts were shifted may need that, because
  there inputs are compared that have other inputs before them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from hashlib import sha256
from hmac import digest

from reenact.actors.inputs import Input, Row

_MASK = 2**31 - 1
"""Of a token's id, which llama.cpp keeps in 32 bits."""


class Key:
    """A secret key.

    Args:
        secret: The secret, of any length.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = sha256(secret).digest()

    def hash(self, what: str, data: bytes) -> bytes:
        """Return 32 bytes that follow from the key, the kind of data and the data."""
        return digest(self._key, what.encode() + b"\0" + data, "sha256")

    def name(self, what: str, text: str) -> str:
        """Return a name in place of a text."""
        return f"{what}-{self.hash(what, text.encode()).hex()[:16]}"


def _bytes_of(one: Input) -> bytes:
    return one.digest.encode() if isinstance(one, Row) else str(one).encode()


class Hashes(ABC):
    """The hashes of the inputs of all sequences; a label is of an input and, maybe, of those before it.

    Args:
        key: The key.
    """

    why: str
    """The reason why equal tokens have equal ids everywhere; empty if they have not."""

    def __init__(self, key: Key) -> None:
        self.key = key

    @abstractmethod
    def label(self, before: bytes, one: Input) -> bytes:
        """Return the label of an input, after the one with the label ``before``."""

    @abstractmethod
    def token(self, label: bytes) -> int:
        """Return the id of the token with a label."""

    def put(self, label: bytes, one: Input) -> Input:
        """Return the input that takes the place of one with a label."""
        return Row(self.key.hash("row", label).hex()) if isinstance(one, Row) else self.token(label)

    def labels(self, before: bytes, inputs: Iterable[Input]) -> list[bytes]:
        """Return the labels of inputs, one after the other."""
        labels = []
        for one in inputs:
            before = self.label(before, one)
            labels.append(before)
        return labels


class ByBeginning(Hashes):
    """An input's hash depends on all inputs before it."""

    why = ""

    def label(self, before: bytes, one: Input) -> bytes:
        """Return the label of an input, after the one with the label ``before``."""
        return self.key.hash("input", before + _bytes_of(one))

    def token(self, label: bytes) -> int:
        """Return the id of the token with a label."""
        return int.from_bytes(label[:4]) & _MASK


class ByToken(Hashes):
    """An input has the same hash wherever it is, and no other input has it."""

    why = "equal tokens have equal ids everywhere, because its contexts were shifted"

    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self._ids: dict[bytes, int] = {}
        self._taken: set[int] = set()

    def label(self, before: bytes, one: Input) -> bytes:  # noqa: ARG002  # it does not count here
        """Return the label of an input, whatever is before it."""
        return self.key.hash("token", _bytes_of(one))

    def token(self, label: bytes) -> int:
        """Return the id of the token with a label."""
        found = self._ids.get(label)
        if found is None:
            found = int.from_bytes(label[:4]) & _MASK
            while found in self._taken:
                found = (found + 1) & _MASK
            self._ids[label] = found
            self._taken.add(found)
        return found
