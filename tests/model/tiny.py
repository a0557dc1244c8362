"""A model of random weights that looks its positions up in a table, which ends: a GPT-2 of one layer."""

from pathlib import Path
from typing import Final

import gguf
import numpy as np

_WIDTH: Final = 64
_N_VOCAB: Final = 40


def tiny(path: Path, *, n_positions: int) -> Path:
    """Write the model to ``path``, its matrices in Q8_0 and the table in F32, and return it."""
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(n_positions)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(2 * _WIDTH)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"word {i}" for i in range(_N_VOCAB - 3))])
    writer.add_token_scores([0.0] * _N_VOCAB)
    kinds = gguf.TokenType
    writer.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.NORMAL] * (_N_VOCAB - 3)])
    layer = {"attn_qkv": (3, 1), "attn_output": (1, 1), "ffn_up": (2, 1), "ffn_down": (1, 2)}
    matrices = {"token_embd.weight": (_N_VOCAB, _WIDTH)}
    matrices |= {f"blk.0.{name}.weight": (rows * _WIDTH, width * _WIDTH) for name, (rows, width) in layer.items()}
    norms = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
    others: dict[str, tuple[int, ...]] = {"position_embd.weight": (n_positions, _WIDTH)}
    others |= {f"{name}.{part}": (_WIDTH,) for name in norms for part in ("weight", "bias")}
    others |= {f"blk.0.{name}.bias": (rows * _WIDTH,) for name, (rows, _) in layer.items()}
    for name, shape in matrices.items():
        kind = gguf.GGMLQuantizationType.Q8_0
        values = random.standard_normal(shape, dtype=np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    for name, lengths in others.items():
        writer.add_tensor(name, random.standard_normal(lengths, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
