"""The engine that computes: llama.cpp, and the only module that imports it.

Tested against the exact version that pyproject.toml pins: signatures move between minor versions.

The rules that hold here:

* The cache is schedule-independent from the start (docs/llama-cpp.md section 2): a stream a slot, flash attention, and
  K and V of different types, so that neither the split of the KV range by thread nor the tiled kernel is ever taken.
* llama.cpp aborts the process on some batches; `is_valid` looks first.
* A draw is keyed: the chain ends with a fresh generator for every draw.
* Short calls go through a second handle on the library that keeps the GIL; decoding and loading must not.
"""

import ctypes
import hashlib
import os
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final
from zlib import crc32

import llama_cpp
import numpy as np
from attrs import frozen
from llama_cpp import llama_cpp as bindings

from reenact.actors.errors import EngineBroken, InvalidRequest
from reenact.actors.events import BatchDecoded, BatchPlanned, ContextFacts, EngineFacts, ModelFacts, Sample
from reenact.actors.options import Options
from reenact.runtime.engine import ContextSettings, Loaded, Tokenized, code_before, is_valid, padded, refused
from reenact.runtime.sampling import draw_key

_HASH_BLOCK: Final = 1 << 22

_POLICIES: Final = {"cache": "schedule-independent", "draws": "splitmix64(seed, index, attempt)"}

_MAX_CHAINS: Final = 64
"""Sampler chains kept, one for each combination of options in use; making one costs microseconds."""

_SHORT: Final = (
    "llama_get_logits_ith",
    "llama_memory_seq_pos_max",
    "llama_memory_seq_rm",
    "llama_sampler_chain_add",
    "llama_sampler_chain_n",
    "llama_sampler_chain_remove",
    "llama_sampler_free",
    "llama_sampler_init_dist",
    "llama_sampler_sample",
    "llama_vocab_is_eog",
)

_said: Final[deque[bytes]] = deque(maxlen=64)
"""What llama.cpp said last; it has one log for the process."""

OnProgress = Callable[[str, float], None]
"""Told what is being done and how much of it, from 0 to 1; called in the compute thread."""


class LlamaEngine:
    """A GGUF model in llama.cpp, on the CPU.

    Args:
        path: The model's file.
        on_progress: Told how loading goes.
    """

    computes = True

    def __init__(self, path: str | os.PathLike[str], *, on_progress: OnProgress | None = None) -> None:
        self._path = Path(path)
        self._on_progress = on_progress or (lambda _doing, _fraction: None)
        self._model: Any = None
        self._context: Any = None
        self._chains: dict[_Chain, Any] = {}
        self._claim = Lock()
        """Held from loading to closing."""

    def load(self, settings: ContextSettings) -> Loaded:
        """Take the file's digest, load the weights, make the context."""
        if not self._claim.acquire(blocking=False):
            raise EngineBroken("the engine is loaded already: it serves one runtime at a time")
        try:
            return self._load(settings)
        except BaseException:
            self.close()
            raise

    def _load(self, settings: ContextSettings) -> Loaded:
        size, sha256 = self._digest()
        llama_cpp.llama_log_set(_listener, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._load_model()
        self._make_context(settings)
        self._rows = _Rows(settings.n_batch)
        self._calls = _ShortCalls()
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._n_vocab = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        self._pieces: dict[int, bytes] = {}
        name = os.fsencode(self._path.name).decode(errors="backslashreplace")
        return Loaded(
            engine=EngineFacts(
                name="llama.cpp",
                versions={"llama-cpp-python": llama_cpp.__version__, "llama.cpp": _text(bindings.llama_version())},
                system_info=_text(llama_cpp.llama_print_system_info()),
            ),
            model=ModelFacts(
                name=name,
                size=size,
                sha256=sha256,
                description=self._description(),
            ),
            context=self.context_facts,
            policies=dict(_POLICIES),
        )

    def tokenize(self, text: str) -> Tokenized:
        """Return the tokens of ``text`` (llama_tokenize with special tokens added and parsed)."""
        self._check_loaded()
        raw = text.encode()
        room = len(raw) + 8
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), tokens, room, True, True)
        if count < 0:
            # The one failure llama_tokenize knows is too little room, and it tells how much it wants.
            tokens = (llama_cpp.llama_token * -count)()
            count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), tokens, -count, True, True)
        bos = llama_cpp.llama_vocab_bos(self._vocabulary)
        adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(self._vocabulary))
        return Tokenized(tokens=tuple(tokens[:count]), bos_added=adds_bos and count > 0 and tokens[0] == bos)

    def step(self, planned: BatchPlanned, options: Mapping[int, Options]) -> BatchDecoded:
        """Empty slots, decode, draw."""
        self._check_loaded()
        if not is_valid(planned, self.context_facts):
            return refused(planned)
        memory, calls = self._memory, self._calls
        for slot in planned.clears:
            calls.llama_memory_seq_rm(memory, slot, -1, -1)
        code = self._decode(planned)
        samples: list[Sample] = []
        if code == 0:
            row = -1
            for part in planned.parts:
                row += len(part.tokens)
                if part.draw is not None:
                    samples.append(self._draw(row, part.sequence, part.draw, options[part.sequence]))
        positions = tuple((part.slot, calls.llama_memory_seq_pos_max(memory, part.slot)) for part in planned.parts)
        return BatchDecoded(batch=planned.batch, code=code, samples=tuple(samples), positions=positions)

    def close(self) -> None:
        """Free samplers, context and model, in this order."""
        for chain in self._chains.values():
            llama_cpp.llama_sampler_free(chain)
        self._chains.clear()
        if self._context is not None:
            llama_cpp.llama_free(self._context)
            self._context = None
        if self._model is not None:
            llama_cpp.llama_model_free(self._model)
            self._model = None
        if self._claim.locked():
            self._claim.release()

    def _check_loaded(self) -> None:
        """Refuse a call for which there is no context: llama.cpp would read freed memory."""
        if self._context is None:
            raise EngineBroken("the engine is not loaded")

    # ------------------------------------------------------------ loading

    def _digest(self) -> tuple[int, str]:
        digest = hashlib.sha256()
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            block = file.read(_HASH_BLOCK)
            if not block.startswith(b"GGUF"):
                raise InvalidRequest("model", f"{self._path} is not a GGUF file")
            done = 0
            while block:
                digest.update(block)
                done += len(block)
                self._on_progress("reading", done / size)
                block = file.read(_HASH_BLOCK)
        return size, digest.hexdigest()

    def _load_model(self) -> None:
        def progress(fraction: float, _: object) -> bool:
            self._on_progress("loading", fraction)
            return True

        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        parameters.progress_callback = callback = bindings.llama_progress_callback(progress)
        _said.clear()
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(self._path), parameters)
        del callback  # Alive until here: llama.cpp called it.
        if self._model is None:
            raise EngineBroken(f"{self._path} cannot be loaded: {_complaint()}")

    def _make_context(self, settings: ContextSettings) -> None:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = settings.n_slots * padded(settings.n_ctx)
        parameters.n_batch = settings.n_batch
        parameters.n_ubatch = min(settings.n_batch, 512)  # llama.cpp's own default
        parameters.n_seq_max = settings.n_slots
        parameters.n_threads = parameters.n_threads_batch = settings.n_threads
        parameters.kv_unified = False
        parameters.flash_attn_type = bindings.LLAMA_FLASH_ATTN_TYPE_ENABLED
        parameters.type_k = bindings.GGML_TYPE_Q8_0
        parameters.type_v = bindings.GGML_TYPE_F16
        parameters.offload_kqv = parameters.op_offload = False
        _said.clear()
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if self._context is None:
            raise EngineBroken(f"no context of {settings.n_slots} x {settings.n_ctx} cells for it: {_complaint()}")
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self.context_facts = ContextFacts(
            n_slots=llama_cpp.llama_n_seq_max(self._context),
            n_ctx=settings.n_ctx,
            n_ctx_seq=llama_cpp.llama_n_ctx_seq(self._context),
            n_batch=llama_cpp.llama_n_batch(self._context),
            n_ubatch=llama_cpp.llama_n_ubatch(self._context),
            n_threads=llama_cpp.llama_n_threads(self._context),
            type_k="q8_0",
            type_v="f16",
            flash_attn="enabled",
            kv_unified=False,
        )

    def _description(self) -> str:
        description = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self._model, description, len(description))
        return _text(description.value)

    # ------------------------------------------------------------ one step

    def _decode(self, planned: BatchPlanned) -> int:
        """Hand the rows to llama_decode and return its code."""
        if not planned.parts:
            return 0
        last = self._calls.llama_memory_seq_pos_max
        lengths = [last(self._memory, part.slot) + 1 for part in planned.parts]
        if code := code_before(planned, lengths, self.context_facts):
            return code
        return int(llama_cpp.llama_decode(self._context, self._rows.fill(planned)))

    def _draw(self, row: int, sequence: int, index: int, options: Options) -> Sample:
        calls = self._calls
        address = ctypes.cast(calls.llama_get_logits_ith(self._context, row), ctypes.c_void_p).value
        logits = np.ctypeslib.as_array((ctypes.c_float * self._n_vocab).from_address(address))
        crc = crc32(logits.data)
        # min() is NaN if one is; llama.cpp would sample silently.
        if np.isnan(logits.min()):
            return Sample(sequence=sequence, token=-1, nan=True, logits_crc32=crc)
        chain = self._chain(options)
        if options.temperature > 0:
            calls.llama_sampler_chain_add(chain, calls.llama_sampler_init_dist(draw_key(options.seed, index)))
        token = calls.llama_sampler_sample(chain, self._context, row)
        if options.temperature > 0:
            last = calls.llama_sampler_chain_n(chain) - 1
            calls.llama_sampler_free(calls.llama_sampler_chain_remove(chain, last))
        if calls.llama_vocab_is_eog(self._vocabulary, token):
            return Sample(sequence=sequence, token=token, eog=True, logits_crc32=crc)
        return Sample(sequence=sequence, token=token, piece=self._piece(token), logits_crc32=crc)

    def _chain(self, options: Options) -> Any:
        """Return the sampler chain for these options, without its generator."""
        key = _Chain(options.temperature, options.top_k, options.top_p, options.min_p)
        if key not in self._chains:
            if len(self._chains) == _MAX_CHAINS:
                llama_cpp.llama_sampler_free(self._chains.pop(next(iter(self._chains))))
            self._chains[key] = key.build()
        return self._chains[key]

    def _piece(self, token: int) -> bytes:
        piece = self._pieces.get(token)
        if piece is None:
            room = 64
            buffer = ctypes.create_string_buffer(room)
            length = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, room, 0, False)
            if length < 0:
                buffer = ctypes.create_string_buffer(-length)
                length = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, -length, 0, False)
            piece = self._pieces[token] = buffer.raw[:length]
        return piece


class _Rows:
    """A llama_batch whose arrays are filled through numpy, each row with one sequence id."""

    def __init__(self, n_batch: int) -> None:
        self._tokens = np.zeros(n_batch, np.int32)
        self._positions = np.zeros(n_batch, np.int32)
        self._counts = np.ones(n_batch, np.int32)
        self._slots = np.zeros(n_batch, np.int32)
        self._slot_pointers = (self._slots.ctypes.data + 4 * np.arange(n_batch)).astype(np.uintp)
        self._logits = np.zeros(n_batch, np.int8)
        self._batch = llama_cpp.llama_batch()
        kinds: dict[str, Any] = {field[0]: field[1] for field in llama_cpp.llama_batch._fields_}
        for name, array in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._slot_pointers),
            ("logits", self._logits),
        ):
            setattr(self._batch, name, ctypes.cast(array.ctypes.data, kinds[name]))

    def fill(self, planned: BatchPlanned) -> Any:
        """Return the batch with the plan's rows; it is valid until the next call."""
        end = 0
        for part in planned.parts:
            start, end = end, end + len(part.tokens)
            self._tokens[start:end] = part.tokens
            self._positions[start:end] = range(part.position, part.position + len(part.tokens))
            self._slots[start:end] = part.slot
            self._logits[start:end] = 0
            self._logits[end - 1] = part.draw is not None
        self._batch.n_tokens = end
        return self._batch


@frozen
class _Chain:
    """The options that a sampler chain is made of."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float

    def build(self) -> Any:
        """Make the chain, in llama.cpp's usual order; what would change nothing is left out."""
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        if self.temperature == 0:
            llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_greedy())
            return chain
        if self.top_k > 0:
            llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_top_k(min(self.top_k, 2**31 - 1)))
        if self.top_p < 1:
            llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_top_p(self.top_p, 1))
        if self.min_p > 0:
            llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_min_p(self.min_p, 1))
        llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_temp(self.temperature))
        return chain


class _ShortCalls:
    """Calls of microseconds, through a handle that keeps the GIL.

    A call that gives the GIL away has to get it back from a busy event loop, which took up to 1.6 ms (docs/llama-cpp.md
    section 4).
    """

    def __init__(self) -> None:
        library = ctypes.PyDLL(bindings._lib._name)  # the bindings keep the path nowhere else
        for name in _SHORT:
            call = library[name]
            bound = getattr(bindings._lib, name)
            call.argtypes, call.restype = bound.argtypes, bound.restype
            setattr(self, name, call)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(f"{name} is not among the short calls")


def _listen(_level: int, text: bytes, _data: object) -> None:
    """Take what llama.cpp would print; called from its own threads too."""
    _said.append(text)


_listener = llama_cpp.llama_log_callback(_listen)
"""The callback itself; llama.cpp holds no reference to it."""


def _complaint() -> str:
    """Return the reason that llama.cpp gave: its first line that speaks of an error, or else the last."""
    lines = [line.strip() for line in b"".join(_said).decode("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line]
    return (errors or lines[-1:] or ["llama.cpp gives no reason"])[0]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").strip()
