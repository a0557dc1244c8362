"""Every truncation and a flipped bit of every byte of a log, plain and compressed: ``make measure-damage``.

The rules that hold here:

* Cut anywhere, a log opens to its longest valid prefix: the lines whose bytes are there, the rest is a torn tail, and
  nothing is damage. How many lines are there is counted by other means: newlines, and zstd's own stream.
* A flipped bit is damage; only the last newline may look like a torn end. Lines that are read before it are unchanged.
* Reading goes strictly forward, so what comes before a byte need not be read anew for it. A log that is cut one byte
  later is one that has grown. For a flip, reading begins before the byte's line, or its block: from the number, offset
  and checksum there, and where it is compressed with a frame of zstd that has read so far.
* One cut and one flip in `SHARE` are also read whole, from a file, from its first byte on, and must be seen alike.
"""

import argparse
import os
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Final

import trio
import trio.testing
import zstandard
from attrs import Factory, define, frozen

from reenact.actors.errors import LogCorrupt
from reenact.replay import repair_log
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.log.reader import LogFile

SIZE: Final = 200_000
SHARE: Final = 500
N_PARTS: Final = 64
"""The parts of a log among the processes."""
ENDINGS: Final = ("jsonl", "jsonl.zst")


class Memory:
    """The bytes of a file in memory, of which any can be changed and of which the end may be missing."""

    def __init__(self, data: bytes, stops: list[int]) -> None:
        self.data = bytearray(data)
        self.length = len(data)
        """The bytes that are there."""
        self._stops = stops
        """Places that no read goes beyond, so that no byte behind them is read ahead."""
        self._at = 0

    def seek(self, at: int) -> None:
        """Go to a byte."""
        self._at = at

    def read(self, size: int) -> bytes:
        """Return up to so many bytes."""
        nth = bisect_right(self._stops, self._at)
        end = min(self._at + size, self.length, *self._stops[nth : nth + 1])
        begin, self._at = self._at, max(end, self._at)
        return bytes(self.data[begin:end])

    def readline(self, limit: int) -> bytes:
        """Return the next line, or so many bytes of it."""
        end = self.data.find(b"\n", self._at, self.length) + 1 or self.length
        return self.read(min(end - self._at, limit))

    def close(self) -> None:
        """Do nothing."""


def reader(path: Path, memory: Memory) -> LogFile:
    """Return the reader of a log whose bytes are in memory."""
    log: Any = LogFile(path)
    log._file.close()
    log._file = memory
    if log._packed is not None:
        log._packed._file = memory
        log._packed.rewind()
    checked: LogFile = log
    return checked


@frozen
class Whole:
    """A log that nothing was done to."""

    path: Path
    data: bytes
    bodies: list[bytes]
    """Its lines."""
    begins: list[int]
    """The places in the file where reading can begin: of lines, or of blocks after which no part of a line is left."""
    n_before: list[int]
    """The count of lines before each of them."""

    @classmethod
    def of(cls, path: Path) -> "Whole":
        """Read a log."""
        data = path.read_bytes()
        bodies, begins, n_before = list[bytes](), [0], [0]
        log = reader(path, Memory(data, []))
        for line in log:
            bodies.append(line.body)
            if log.end.n_lines == line.number:
                begins.append(log.end.length)
                n_before.append(line.number)
        assert not log.torn
        return cls(path, data, bodies, begins, n_before)

    @property
    def is_compressed(self) -> bool:
        """Whether it is."""
        return self.path.suffix == ".zst"


@define
class Found:
    """The counts, and what is wrong."""

    n_cuts: int = 0
    n_flips: int = 0
    n_torn: int = 0
    """Flips that look like a torn end."""
    n_whole: int = 0
    """Cuts and flips that were read whole as well."""
    wrong: list[str] = Factory(list)

    def judge(self, whole: Whole, byte: int, got: str) -> None:
        """Take note of what a flip was seen as."""
        if not whole.is_compressed and byte == len(whole.data) - 1 and got.startswith("torn"):
            self.n_torn += 1
        elif got != "damaged":
            self.wrong.append(f"byte {byte:,}, bit {bit_of(whole, byte)}: {got}")

    def add(self, other: "Found") -> None:
        """Add the counts of another part."""
        self.n_cuts += other.n_cuts
        self.n_flips += other.n_flips
        self.n_torn += other.n_torn
        self.n_whole += other.n_whole
        self.wrong += other.wrong


def outcome(lines: Iterator[Any], whole: Whole, n_before: int, log: LogFile) -> str:
    """Read lines to the end; return "damaged", "torn", "sound", or what is wrong with a line that was read."""
    n = n_before
    try:
        for line in lines:
            if n >= len(whole.bodies) or line.body != whole.bodies[n]:
                return f"line {n + 1} is read otherwise"
            n += 1
    except LogCorrupt:
        return "damaged"
    return f"torn after {n} lines" if log.torn else f"sound with {n} lines"


def read_whole(whole: Whole, data: bytes, scratch: Path) -> str:
    """Write a changed log to a file, and read it from its first byte on."""
    path = scratch / f"{os.getpid()}-{whole.path.name}"
    path.write_bytes(data)
    with LogFile(path) as log:
        return outcome(iter(log), whole, 0, log)


# ---------------------------------------------------------------- cuts


def lines_in(whole: Whole) -> Callable[[int], int]:
    """Return a function that counts the lines in the first bytes of a log, and is asked for more bytes each time."""
    if not whole.is_compressed:
        return lambda length: whole.data.count(b"\n", 0, length)
    unpack = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
    so_far = [0, 0]

    def count(length: int) -> int:
        so_far[1] += unpack.decompress(whole.data[so_far[0] : length]).count(b"\n")
        so_far[0] = length
        return so_far[1]

    return count


def cut(whole: Whole, scratch: Path, stride: int, on_progress: Callable[[float], None]) -> Found:
    """Cut a log after each byte, or after one in ``stride``."""
    found = Found()
    memory = Memory(whole.data, [])
    memory.length = 0
    log, count, n_lines = reader(whole.path, memory), lines_in(whole), 0
    for length in range(0, len(whole.data) + 1, stride):
        memory.length = length
        expected = count(length)
        got = outcome(log.more(), whole, n_lines, log)
        n_lines = expected
        # All bytes are a line's; or a block's that ended with a line, with perhaps the end of a frame behind it.
        exact = length in set(whole.begins[-1:]) or (not whole.is_compressed and whole.data[:length].endswith(b"\n"))
        due = {f"sound with {expected} lines"} if exact or not length else {f"torn after {expected} lines"}
        if whole.is_compressed:
            due.add(f"sound with {expected} lines")
        found.n_cuts += 1
        if not found.n_cuts % SHARE:
            found.n_whole += 1
            if (anew := read_whole(whole, whole.data[:length], scratch)) != got:
                found.wrong.append(f"cut after byte {length}: {anew} from its first byte on, and {got}")
        if got not in due:
            found.wrong.append(f"cut after byte {length}: {got} in place of {' or '.join(sorted(due))}")
        on_progress(length / len(whole.data))
    return found


# ---------------------------------------------------------------- flips


@frozen
class Place:
    """A place in a log, up to which it was read."""

    log: dict[str, Any]
    packed: dict[str, Any] | None
    """The state of what is compressed; None if nothing is."""
    frame: bytes | None
    """The bytes of the frame so far; None between two frames."""

    @classmethod
    def of(cls, whole: Whole, log: LogFile) -> "Place":
        """Return the place of a reader that has read nothing ahead."""
        state: Any = log
        own = {name: getattr(log, name) for name in ("_number", "_offset", "_crc", "_end")}
        if state._packed is None:
            return cls(own, None, None)
        assert (b"", True) == (state._packed._raw, state._packed.at_boundary)
        offset = state._packed._offset
        packed = {name: getattr(state._packed, name) for name in ("_offset", "_crc", "_checksum", "_last")}
        begin = None if state._packed._frame is None else whole.data.rindex(zstandard.FRAME_HEADER, 0, offset)
        return cls(own, packed, None if begin is None else whole.data[begin:offset])

    def go(self, log: LogFile, memory: Memory) -> None:
        """Bring a reader back here; zstd reads the frame so far anew, at once."""
        state: Any = log
        for name, value in self.log.items():
            setattr(state, name, value)
        if self.packed is None:
            memory.seek(state._offset)
            return
        packed = state._packed
        for name, value in self.packed.items():
            setattr(packed, name, value)
        packed._raw, packed._text, packed._start, packed._frame = b"", bytearray(), 0, None
        if self.frame is not None:
            packed._frame = zstandard.ZstdDecompressor().decompressobj()
            packed._frame.decompress(self.frame)
        memory.seek(packed._offset)


def flips_of(whole: Whole, part: int, stride: int, scratch: Path) -> Found:
    """Flip a bit of each byte of a part of a log, or of one byte in ``stride``."""
    found = Found()
    begins = [*whole.begins, len(whole.data)]
    memory = Memory(whole.data, begins if whole.is_compressed else [])
    log = reader(whole.path, memory)
    lines, n_read = iter(log), 0
    n_begins = len(whole.begins)
    mine = range(part * n_begins // N_PARTS, (part + 1) * n_begins // N_PARTS)
    for nth in range(mine.stop):
        while n_read < whole.n_before[nth]:
            next(lines)
            n_read += 1
        if nth not in mine:
            continue
        place = Place.of(whole, log)
        for byte in range(begins[nth], begins[nth + 1]):
            if not byte % stride:
                memory.data[byte] ^= bit_of(whole, byte)
                place.go(log, memory)
                found.judge(whole, byte, outcome(log.more(), whole, n_read, log))
                memory.data[byte] ^= bit_of(whole, byte)
                found.n_flips += 1
                if not found.n_flips % SHARE:
                    _flip_whole(whole, byte, scratch, found)
        place.go(log, memory)
        lines = log.more()
    return found


def bit_of(whole: Whole, byte: int) -> int:
    """Return the bit of a byte that is flipped: another one for the next byte, and in the next eighth of the log."""
    return 1 << (byte + 8 * byte // len(whole.data)) % 8


def _flip_whole(whole: Whole, byte: int, scratch: Path, found: Found) -> None:
    """Flip a bit of a byte in a file, and read it from its first byte on."""
    data = bytearray(whole.data)
    data[byte] ^= bit_of(whole, byte)
    found.n_whole += 1
    found.judge(whole, byte, read_whole(whole, bytes(data), scratch))


# ---------------------------------------------------------------- both


async def session(path: Path, enough: int) -> None:
    """Record a session until its log has so many bytes."""
    engine = ScriptedEngine(draws_from="history", batch_seconds=0.01)
    async with open_runtime(engine, log=path, n_slots=4, n_ctx=96, n_batch=16) as runtime:

        async def ask(number: int) -> None:
            while path.stat().st_size < enough:
                await runtime.complete(f"The number {number} is", seed=number, num_predict=40, request_id=f"a {number}")

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(ask, number)


def damage(
    folder: Path, size: int, stride: int, on_progress: Callable[[str, float], None], n_processes: int = 1
) -> dict[str, tuple[Whole, Found]]:
    """Cut and flip a log, plain and compressed.

    Args:
        folder: A folder for logs.
        size: The bytes of the log, at least, when it is plain.
        stride: One byte in so many is tried.
        on_progress: It is told what is done, and how much of it.
        n_processes: The processes among which flips are shared.
    """
    results = {}
    plain, packed = (folder / f"log.{ending}" for ending in ENDINGS)
    trio.run(session, plain, size, clock=trio.testing.MockClock(autojump_threshold=0))
    repair_log(plain, out=packed)
    for ending, path in zip(ENDINGS, (plain, packed), strict=True):
        whole = Whole.of(path)
        found = cut(whole, folder, stride, partial(on_progress, f"{ending}, cuts"))
        one = partial(flips_of, whole, stride=stride, scratch=folder)
        if n_processes == 1:
            for part in range(N_PARTS):
                found.add(one(part))
        else:
            with ProcessPoolExecutor(n_processes) as pool:
                for n_done, part_found in enumerate(pool.map(one, range(N_PARTS)), 1):
                    found.add(part_found)
                    on_progress(f"{ending}, flips", n_done / N_PARTS)
        results[ending] = whole, found
    return results


def main() -> int:
    """Print the counts; exit with 1 if a cut or a flip was not seen as what it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=SIZE, help="bytes of the plain log (default: %(default)s)")
    parser.add_argument("--stride", type=int, default=1, help="try one byte in so many (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked_for = parser.parse_args()
    started = monotonic()
    shown: set[str] = set()

    def progress(doing: str, fraction: float) -> None:
        """Print each tenth that is done."""
        line = f"{doing}: {int(fraction * 10) * 10}%"
        if line not in shown:
            shown.add(line)
            print(f"{line}, {monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    n_wrong = 0
    with TemporaryDirectory() as folder:
        results = damage(Path(folder), asked_for.size, asked_for.stride, progress, asked_for.processes)
    for ending, (whole, found) in results.items():
        print(
            f"{ending}: {len(whole.data):,} bytes, {len(whole.bodies):,} lines: {found.n_cuts:,} cuts,"
            f" {found.n_flips:,} flips ({found.n_torn:,} like a torn end), {found.n_whole:,} of them read whole too:"
            f" {len(found.wrong):,} wrong"
        )
        for wrong in found.wrong[:10]:
            print(f"  {wrong}")
        n_wrong += len(found.wrong)
    print(f"{monotonic() - started:.0f} s")
    return int(n_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
