"""The head of a GGUF file, read without llama.cpp."""

import os
import struct
from pathlib import Path

import pytest

from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.gguf_head import gguf_head
from tests.helpers.models.minilm import minilm


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _file(*pairs: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs)


ONE = _text(b"general.architecture") + struct.pack("<I", 8) + _text(b"llama")
LIST = _text(b"tokens") + struct.pack("<IIQ", 9, 8, 2) + _text(b"a") + _text(b"b")
NUMBERS = _text(b"scores") + struct.pack("<IIQ2f", 9, 6, 2, 1.0, 2.0)
FLAG = _text(b"llama.attention.causal") + struct.pack("<IB", 7, 0)


def test_what_a_head_says(tmp_path: Path) -> None:
    """Texts, numbers and flags are told, lists are passed over."""
    path = tmp_path / "m.gguf"
    path.write_bytes(_file(ONE, LIST, NUMBERS, FLAG))
    assert {"general.architecture": "llama", "llama.attention.causal": False} == gguf_head(path)


@pytest.mark.parametrize(
    "raw",
    [
        b"x",
        b"GGUF",
        b"GGUF" + b"\xff" * 64,
        _file(ONE)[:-1],
        _file(_text(b"a") + struct.pack("<I", 99)),
        _file(_text(b"a") + struct.pack("<IIQ", 9, 9, 1)),
        _file(_text(b"a") + struct.pack("<IIQ", 9, 8, 2**63)),
        _file(_text(b"a") + struct.pack("<IIQ", 9, 12, 2**62)),
    ],
)
def test_what_is_no_head(tmp_path: Path, raw: bytes) -> None:
    """Whatever a file holds, nothing is raised and nothing made up."""
    path = tmp_path / "m.gguf"
    path.write_bytes(raw)
    assert {} == gguf_head(path)


def test_what_was_read_before_counts(tmp_path: Path) -> None:
    """A head that ends too early says what it said until there."""
    path = tmp_path / "m.gguf"
    path.write_bytes(_file(ONE, LIST)[:-1])
    assert {"general.architecture": "llama"} == gguf_head(path)
    path.write_bytes(b"")
    assert {} == gguf_head(path)


def test_the_installed_model() -> None:
    """It is a llama with a chat template."""
    head = gguf_head(installed_model())
    assert "llama" == head["general.architecture"]
    assert "<|im_start|>" in str(head["tokenizer.chat_template"])
    assert os.fspath(installed_model()).endswith(".gguf")


def test_a_model_for_embeddings(tmp_path: Path) -> None:
    """It says how it pools."""
    head = gguf_head(minilm(tmp_path / "minilm.gguf"))
    assert "bert" == head["general.architecture"]
    assert head["bert.pooling_type"]
