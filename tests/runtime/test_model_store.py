"""Models by their names, in stores that are made here."""

from pathlib import Path

import pytest

from reenact.actors.errors import InvalidRequest
from reenact.runtime.model_store import StoredModel, full_name, named_model, stored_models
from tests.helpers.models.store import DIGEST, ollama


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which both stores lie, empty."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def huggingface(stores: Path, repository: str, file: str) -> Path:
    """Put a file into Hugging Face's cache."""
    path = stores / "hub" / f"models--{repository.replace('/', '--')}" / "snapshots" / "1234" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF")
    return path


def names() -> list[str]:
    """Return the names of all models but the installed one."""
    return [model.name for model in stored_models() if model.store != "installed"]


def test_a_model_of_ollama(stores: Path) -> None:
    """A name finds the blob that its manifest names, with what the store says of it; case does not matter."""
    blob = ollama(stores, "registry.ollama.ai/library/Some/8B")
    expected = StoredModel(
        name="some:8b",
        path=blob,
        store="ollama",
        sha256=DIGEST,
        family="llama",
        parameter_size="135M",
        quantization="Q4_0",
    )
    assert expected == named_model("SOME:8b")
    assert expected == named_model("some")


def test_names_of_ollama(stores: Path) -> None:
    """A namespace and a host stand in front where they are others than ollama's own."""
    for name in ("registry.ollama.ai/library/a/latest", "registry.ollama.ai/me/a/latest", "hf.co/me/a/q4"):
        ollama(stores, name)
    assert ["a:latest", "hf.co/me/a:q4", "me/a:latest"] == names()


@pytest.mark.parametrize("digest", ["sha256:../../../secret", f"sha256-{DIGEST}", None, 5, "sha256:" + "ef" * 32])
def test_a_manifest_that_names_no_blob(stores: Path, digest: object) -> None:
    """A digest that is none, and one that is not here, name no model."""
    ollama(stores, "registry.ollama.ai/library/a/latest", digest=digest)
    assert [] == names()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"layers": 5}', '{"layers": [5]}', "[" * 100_000])
def test_a_manifest_that_is_none(stores: Path, text: str) -> None:
    """What cannot be read is left out."""
    ollama(stores, "registry.ollama.ai/library/a/latest")
    (stores / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "a" / "latest").write_text(text)
    assert [] == names()


def test_models_of_huggingface(stores: Path) -> None:
    """A repository's file is named by its quantization; later parts and projectors are no models."""
    for file in ("m-Q4_K_M.gguf", "m.F16.gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"):
        huggingface(stores, "org/Some", file)
    huggingface(stores, "org/Some", "mmproj-F16.gguf")
    assert ["org/some:f16", "org/some:m-q8_0-00001-of-00002", "org/some:q4_k_m"] == names()


def test_the_only_one_needs_no_tag(stores: Path) -> None:
    """A repository with one file is found without its quantization; with two the error names both."""
    path = huggingface(stores, "org/some", "m-Q4_0.gguf")
    assert path == named_model("org/some").path
    huggingface(stores, "org/some", "m-Q8_0.gguf")
    with pytest.raises(InvalidRequest, match="there are org/some:q4_0, org/some:q8_0"):
        named_model("org/some")


def test_a_file_is_a_model(stores: Path) -> None:
    """A path comes before a name, and the model is called as its file is."""
    path = stores / "Mine-Q4_0.gguf"
    path.write_bytes(b"GGUF")
    assert ("mine-q4_0:latest", path, "Q4_0") == (
        named_model(path).name,
        named_model(path).path,
        named_model(path).quantization,
    )


def test_what_is_not_here(stores: Path) -> None:
    """The error says how to find out what is."""
    with pytest.raises(InvalidRequest, match="reenact models"):
        named_model("nothing")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("A", "a:latest"),
        ("a:B", "a:b"),
        (" a ", "a:latest"),
        ("host:5000/a", "host:5000/a:latest"),
        ("library/A", "a:latest"),
        ("registry.ollama.ai/library/a:b", "a:b"),
        ("registry.ollama.ai/user/a", "user/a:latest"),
    ],
)
def test_full_names(written: str, expected: str) -> None:
    """A tag stands behind the last slash; what ollama adds itself is no part of a name."""
    assert expected == full_name(written)
