"""Finds models by their names: in ollama's store, in Hugging Face's cache, and the installed one.

The rules that hold here:

* Nothing is written and nothing is fetched: a name leads to a file on this machine.
* Other programs write those folders. Malformed entries are left out, and a malformed digest opens no file.
* A name without a tag has the tag "latest", and case does not matter.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

from attrs import frozen

from reenact.actors.errors import InvalidRequest, ModelNotFound, shown
from reenact.actors.header import ModelFacts
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.regular import text_of_name
from reenact.runtime.user_cache import files_of

Store = Literal["ollama", "huggingface", "installed"]

_OLLAMAS_HOST: Final = "registry.ollama.ai"
"""The folder of the manifests whose names begin without a host."""
_LIBRARY: Final = "library"
"""The folder of those that have no namespace either."""
_MODEL_LAYER: Final = "application/vnd.ollama.image.model"
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_MAX_MANIFEST: Final = 2**20
"""The most bytes of a manifest; ollama's have about a thousand."""
_QUANTIZATION: Final = re.compile(r"(?:^|[-._])((?:IQ|Q|TQ)[0-9]\w*|BF16|F16|F32|MXFP4\w*)$", re.IGNORECASE)
_LATER_PART: Final = re.compile(r"-(?!00001)[0-9]{5}-of-[0-9]{5}$")
"""A later file of a model in several files; llama.cpp needs only the path of the first one."""
_INSTALLED: Final = "smollm2"


@frozen(kw_only=True)
class StoredModel:
    """A model that has a name."""

    name: str
    """Its name with its tag, in lower case."""
    path: Path
    store: Store
    sha256: str | None = None
    """The digest that the store has for it."""
    family: str = ""
    parameter_size: str = ""
    quantization: str = ""

    @property
    def header_name(self) -> str | None:
        """The model's name in a log's header; None for its file's name, which for a blob would be a digest."""
        return self.name if self.store == "ollama" else None


def full_name(name: str) -> str:
    """Return a name in lower case, with its tag, and without the registry and the library that ollama implies."""
    name = name.strip().lower().removeprefix(f"{_OLLAMAS_HOST}/").removeprefix(f"{_LIBRARY}/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def stored_models() -> list[StoredModel]:
    """Return the models on this machine, in the order of their names; ollama's store takes precedence for a name."""
    found: dict[str, StoredModel] = {}
    for model in (*_of_ollama(), *_of_huggingface(), *_installed()):
        found.setdefault(model.name, model)
    return sorted(found.values(), key=lambda model: model.name)


def named_model(written: str | os.PathLike[str]) -> StoredModel:
    """Return the model with this path or name.

    Raises:
        InvalidRequest: There is neither such a file nor such a name.
    """
    path = Path(written)
    if path.exists() or path.suffix == ".gguf":
        return StoredModel(
            name=full_name(text_of_name(path.stem)), path=path, store="installed", quantization=_quantization(path)
        )
    wanted = full_name(os.fspath(written))
    models = stored_models()
    for model in models:
        if model.name == wanted:
            return model
    several = [model for model in models if model.name.partition(":")[0] == wanted.partition(":")[0]]
    if ":" not in os.fspath(written) and len(several) == 1:
        return several[0]
    cure = (
        f"there are {', '.join(model.name for model in several)}" if several else "`reenact models` lists what is here"
    )
    raise InvalidRequest("model", f"{shown(os.fspath(written))} is neither a file nor a model that is here; {cure}")


def chosen(written: Path | None) -> StoredModel:
    """Return the model with this path or name, or by default the installed one.

    Raises:
        InvalidRequest: There is no such model.
    """
    return installed() if written is None else named_model(written)


def recorded_model(model: ModelFacts) -> Path:
    """Return a file with the digest that a log's header names: one that was opened before, or the installed model.

    Raises:
        ModelNotFound: No such file is known here.
    """
    for path in files_of(model.sha256):
        return path
    with suppress(InvalidRequest, OSError):
        path = installed_model()
        if path.stat().st_size == model.size and path.name == model.name:
            return path
    raise ModelNotFound(
        f"{model.name} (SHA-256 {model.sha256[:12]}…) is not among the files that were opened here before: name it with"
        " --model"
    )


def _quantization(path: Path) -> str:
    found = _QUANTIZATION.search(text_of_name(path.stem))
    return found.group(1).upper() if found else ""


# ---------------------------------------------------------------- ollama


def _of_ollama() -> Iterator[StoredModel]:
    named = os.environ.get("OLLAMA_MODELS")
    folder = Path(named) if named else Path.home() / ".ollama" / "models"
    for manifest in _files(folder / "manifests", "*/*/*/*"):
        host, namespace, model, tag = manifest.relative_to(folder / "manifests").parts
        parts = [host] if host != _OLLAMAS_HOST else []
        parts += [namespace] if parts or namespace != _LIBRARY else []
        found = _manifest(folder, manifest, full_name("/".join([*parts, model]) + f":{tag}"))
        if found is not None:
            yield found


def _manifest(folder: Path, path: Path, name: str) -> StoredModel | None:
    """Return the model of a manifest, if it names one whose file exists."""
    layers = _json(path).get("layers")
    for layer in layers if isinstance(layers, list) else []:
        if not isinstance(layer, dict) or layer.get("mediaType") != _MODEL_LAYER:
            continue
        digest = _DIGEST.fullmatch(str(layer.get("digest")))
        blob = None if digest is None else folder / "blobs" / f"sha256-{digest.group(1)}"
        if digest is None or blob is None or not blob.is_file():
            continue
        config = _config(folder, path)
        return StoredModel(
            name=name,
            path=blob,
            store="ollama",
            sha256=digest.group(1),
            family=_text(config, "model_family"),
            parameter_size=_text(config, "model_type"),
            quantization=_text(config, "file_type"),
        )
    return None


def _config(folder: Path, manifest: Path) -> dict[str, Any]:
    config = _json(manifest).get("config")
    digest = _DIGEST.fullmatch(str(config.get("digest"))) if isinstance(config, dict) else None
    return {} if digest is None else _json(folder / "blobs" / f"sha256-{digest.group(1)}")


def _json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty one if there is none."""
    with suppress(OSError, ValueError, RecursionError):
        if path.stat().st_size <= _MAX_MANIFEST:
            found = json.loads(path.read_bytes())
            return found if isinstance(found, dict) else {}
    return {}


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


# ---------------------------------------------------------------- Hugging Face, and what is installed


def _of_huggingface() -> Iterator[StoredModel]:
    home = os.environ.get("HF_HOME")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    folder = Path(cache) if cache else (Path(home) if home else Path.home() / ".cache" / "huggingface") / "hub"
    for path in _files(folder, "models--*--*/snapshots/*/**/*.gguf"):
        if "mmproj" in path.name.lower() or _LATER_PART.search(path.stem):
            continue
        repository = path.relative_to(folder).parts[0].removeprefix("models--").replace("--", "/", 1)
        quantization = _quantization(path)
        tag = quantization or text_of_name(path.stem)
        yield StoredModel(
            name=full_name(f"{repository}:{tag}"), path=path, store="huggingface", quantization=quantization
        )


def installed() -> StoredModel:
    """Return the installed SmolLM2.

    Raises:
        InvalidRequest: It is not installed.
    """
    path = installed_model()
    return StoredModel(name=full_name(_INSTALLED), path=path, store="installed", quantization=_quantization(path))


def _installed() -> Iterator[StoredModel]:
    with suppress(InvalidRequest):
        yield installed()


def _files(folder: Path, pattern: str) -> list[Path]:
    """Return the files that match a pattern, sorted; none if the folder cannot be read."""
    with suppress(OSError):
        return sorted(path for path in folder.glob(pattern) if path.is_file())
    return []
