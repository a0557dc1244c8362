"""A model of random weights that looks its positions up in a table, which ends: a GPT-2 of one layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import gguf
import numpy as np

BYTES: Final = tuple(f"<0x{i:02X}>" for i in range(256))
LETTERS: Final = (*BYTES, "\u2581", "a", "b", "c", "d", "ab", "cd", "\u2581ab", "\u2581cd", "u", "s", ":", "\n")
"""A SentencePiece vocabulary that has all of Unicode, and some letters as pieces."""


def tiny(
    path: Path,
    *,
    n_positions: int,
    width: int = 64,
    pieces: Sequence[str] = LETTERS,
    markers: Sequence[str] = (),
    template: str | None = None,
    add_eos: bool = False,
) -> Path:
    """Write the model to ``path``, its matrices in Q8_0 and the table in F32, and return it.

    Args:
        path: Where to.
        n_positions: How long the table is.
        width: Of its rows; K-quants want a multiple of 256.
        pieces: The vocabulary, without its special tokens; a space is put before a text, and BOS before that.
        markers: User-defined tokens, behind all others.
        template: For chats.
        add_eos: Have EOS put behind a prompt.
    """
    random = np.random.default_rng(1)
    n_vocab = 3 + len(pieces) + len(markers)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(n_positions)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(2 * width)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *pieces, *markers])
    scores = [float(len(one)) for one in pieces]
    writer.add_token_scores([0.0, 0.0, 0.0, *scores, *(0.0 for _ in markers)])
    kinds = gguf.TokenType
    ordinary = [kinds.BYTE if one in BYTES else kinds.NORMAL for one in pieces]
    writer.add_token_types(
        [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *ordinary, *(kinds.USER_DEFINED for _ in markers)]
    )
    writer.add_add_eos_token(add_eos)
    if template is not None:
        writer.add_chat_template(template)
    layer = {"attn_qkv": (3, 1), "attn_output": (1, 1), "ffn_up": (2, 1), "ffn_down": (1, 2)}
    matrices = {"token_embd.weight": (n_vocab, width)}
    matrices |= {f"blk.0.{name}.weight": (rows * width, columns * width) for name, (rows, columns) in layer.items()}
    norms = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
    others: dict[str, tuple[int, ...]] = {"position_embd.weight": (n_positions, width)}
    others |= {f"{name}.{part}": (width,) for name in norms for part in ("weight", "bias")}
    others |= {f"blk.0.{name}.bias": (rows * width,) for name, (rows, _) in layer.items()}
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
