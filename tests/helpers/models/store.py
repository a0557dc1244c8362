"""A store of models as ollama keeps it, made by hand."""

import json
from pathlib import Path

DIGEST = "ab" * 32
CONFIG = "cd" * 32


def ollama(stores: Path, name: str, *, digest: object = f"sha256:{DIGEST}") -> Path:
    """Put a model into ollama's store; return its file."""
    blobs = stores / "ollama" / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / f"sha256-{DIGEST}").write_bytes(b"GGUF")
    described = {"model_family": "llama", "model_type": "135M", "file_type": "Q4_0"}
    (blobs / f"sha256-{CONFIG}").write_text(json.dumps(described))
    manifest = stores / "ollama" / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest}
    manifest.write_text(json.dumps({"config": {"digest": f"sha256:{CONFIG}"}, "layers": [{}, layer]}))
    return blobs / f"sha256-{DIGEST}"
