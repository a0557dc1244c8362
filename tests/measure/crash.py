"""Kills a process that serves requests, again and again, and goes on with its session: ``make crash``.

Each life is a process of its own, which resumes the session, takes more requests and is killed with SIGKILL at a random
moment. Its readers report each chunk that they get, and the readers of the next life ask for the rest. It counts:

* lost: texts that readers got, over all lives, that are not those in the log: something was lost, or came twice,
* wrong: texts in the log that are not those of a session that nothing interrupted,
* logs that do not replay the same, or break a rule.
"""

import argparse
import json
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from select import select
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Final

import trio
from attrs import Factory, define, field

from reenact.actors import events as e
from reenact.actors.errors import InvalidRequest
from reenact.replay import check_log, replay_log
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.stream import Stream

N_REQUESTS: Final = 24
"""In one session."""
N_LIVES: Final = 20
"""The kills in one session; then it runs to its end."""
SETTINGS: Final[dict[str, Any]] = {"n_slots": 3, "n_ctx": 96, "n_batch": 16, "max_reader_lag": 4}
MOST_SECONDS: Final = 120.0
"""In which a life opens, or the last one ends."""
OPEN: Final = b"open"
PROMPTS: Final = ("The sea is", "Once upon a time there was", "The sea is wide, and", "Tea", "Count to ten: one,")


@define
class Readers:
    """The texts that the readers of all lives have got, by request."""

    n_tokens: dict[int, int] = Factory(dict)
    texts: dict[int, str] = Factory(dict)
    begun: dict[int, str] = Factory(dict)
    """Text of a token that is not complete; a reader that asks for the rest gets it again."""
    n_chunks: int = 0
    n_kills: int = 0

    def add(self, line: bytes) -> None:
        """Add the report of a reader."""
        number, n_tokens, text = json.loads(line)
        self.n_chunks += 1
        text = self.begun.pop(number, "") + text
        if n_tokens:
            self.n_tokens[number] = self.n_tokens.get(number, 0) + n_tokens
            self.texts[number] = self.texts.get(number, "") + text
        else:
            self.begun[number] = text


@define
class Found:
    """The counts over all sessions."""

    n_kills: int = 0
    n_chunks: int = 0
    n_texts: int = 0
    n_resumed: int = 0
    lost: list[str] = field(factory=list)
    wrong: list[str] = field(factory=list)
    logs: list[str] = field(factory=list)

    @property
    def faults(self) -> list[str]:
        """All faults."""
        return [*self.lost, *self.wrong, *self.logs]


@define(frozen=True)
class Session:
    """One session of many lives."""

    log: Path
    model: Path | None
    """None for an engine whose tokens depend on all that came before."""
    seed: int

    def engine(self) -> Any:
        """Return a new engine."""
        if self.model is not None:
            from reenact.runtime.llama.engine import LlamaEngine

            return LlamaEngine(self.model)
        return ScriptedEngine(draws_from="history", batch_seconds=0.0005)


def asked(number: int, seed: int) -> tuple[str, dict[str, Any]]:
    """Return the prompt and the options of a request, by its number in the session."""
    random = Random(f"{seed} {number}")  # noqa: S311  # it chooses moments, not secrets
    options = {"seed": random.randrange(1000), "num_predict": random.choice((1, 8, 30, 60)), "temperature": 1.0}
    return random.choice(PROMPTS), options


async def life(session: Session, report: int, n_tokens: dict[int, int], *, last: bool) -> None:
    """Serve the session in this process, until it is killed or, in its last life, until all requests have ended."""
    random = Random(os.getpid())  # noqa: S311  # it chooses moments, not secrets

    async def read(stream: Stream) -> None:
        async for chunk in stream:
            os.write(report, json.dumps([stream.sequence, len(chunk.tokens), chunk.text]).encode() + b"\n")

    async def read_on(number: int) -> None:
        try:
            async with runtime.resume(number, from_token=n_tokens.get(number, 0)) as stream:
                await read(stream)
        except InvalidRequest:
            if number in {one.sequence for one in runtime.live_requests()}:
                raise

    async def ask(number: int) -> None:
        prompt, options = asked(number, session.seed)
        async with runtime.stream(prompt, **options) as stream:
            await read(stream)

    async with open_runtime(
        session.engine(), log=session.log, resume=True, determinism="schedule-independent", **SETTINGS
    ) as runtime:
        os.write(report, OPEN + b"\n")
        async with trio.open_nursery() as nursery:
            for number in range(1, runtime.statistics().n_requests + 1):
                nursery.start_soon(read_on, number)
            for number in range(runtime.statistics().n_requests + 1, N_REQUESTS + 1):
                nursery.start_soon(ask, number)
                await trio.sleep(0 if last else random.random() * 0.004)


class Reports:
    """The lines that a process reports through a pipe; each is written at once, so none is torn by a kill."""

    def __init__(self, reading: int) -> None:
        self._reading = reading
        self._lines: deque[bytes] = deque()

    def until(self, end: float) -> Iterator[bytes]:
        """Return the lines that come until a time, or until the process has ended."""
        while True:
            while self._lines:
                yield self._lines.popleft()
            if not select([self._reading], [], [], max(end - monotonic(), 0))[0]:
                return
            if not (data := os.read(self._reading, 1 << 16)):
                return
            self._lines += data.splitlines()


def lives(session: Session, n_lives: int, random: Random, most_seconds: float) -> Readers:
    """Let a session live and be killed so many times, and then run to its end."""
    readers = Readers()
    for number in range(n_lives + 1):
        last = number == n_lives
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            os._exit(_child(session, writing, readers.n_tokens, last=last))
        os.close(writing)
        reports = Reports(reading)
        for line in reports.until(monotonic() + MOST_SECONDS):
            if line == OPEN:
                break
            readers.add(line)
        for line in reports.until(monotonic() + (MOST_SECONDS if last else random.random() * most_seconds)):
            readers.add(line)
        os.kill(child, 0 if last else signal.SIGKILL)
        for line in reports.until(monotonic() + MOST_SECONDS):
            readers.add(line)
        os.close(reading)
        _, status = os.waitpid(child, 0)
        readers.n_kills += status == signal.SIGKILL
        if status == 0:  # All requests had ended, perhaps before it was to be killed.
            return readers
        readers.begun.clear()
        if status != signal.SIGKILL:
            raise RuntimeError(f"a life ended with {status}")
    return readers


def _child(session: Session, report: int, n_tokens: dict[int, int], *, last: bool) -> int:
    try:
        trio.run(partial(life, last=last), session, report, n_tokens)
    except BaseException:  # noqa: BLE001  # whatever it was, the parent gets a status
        traceback.print_exc()
        return 1
    return 0


async def uninterrupted(session: Session) -> dict[int, str]:
    """Return the text of each request of a session that nothing interrupts."""
    texts = {}
    async with open_runtime(session.engine(), determinism="schedule-independent", **SETTINGS) as runtime:
        for number in range(1, N_REQUESTS + 1):
            prompt, options = asked(number, session.seed)
            texts[number] = (await runtime.complete(prompt, **options)).text
    return texts


def check(session: Session, readers: Readers, expected: dict[int, str], found: Found) -> None:
    """Compare what readers got, and what the log holds, with the texts of an uninterrupted session."""
    texts: dict[int, str] = {}
    with LogFile(session.log) as log:
        for entry in entries(log):
            match entry.record.event:
                case e.TokenEmitted() | e.StopMatched() | e.SequenceFinished() as event:
                    texts[event.sequence] = texts.get(event.sequence, "") + event.text
                case e.SessionResumed():
                    found.n_resumed += 1
                case _:
                    pass
    found.n_texts += len(texts)
    found.n_chunks += readers.n_chunks
    for number, text in expected.items():
        where = f"seed {session.seed}, request {number}"
        read = readers.texts.get(number, "") + readers.begun.get(number, "")
        if read != texts.get(number):
            found.lost.append(f"{where}: read {read!r}, and the log has {texts.get(number)!r}")
        if texts.get(number) != text:
            found.wrong.append(f"{where}: {texts.get(number)!r} in place of {text!r}")
    if replay_log(session.log).verdict != "same" or check_log(session.log).violations:
        found.logs.append(f"seed {session.seed}: the log does not replay, or breaks a rule")


def crashes(n_kills: int, seed: int, model: Path | None, on_progress: Callable[[Found], None]) -> Found:
    """Kill so many lives, in as many sessions as that takes."""
    found, random = Found(), Random(seed)  # noqa: S311  # it chooses moments
    with TemporaryDirectory() as folder:
        while found.n_kills < n_kills and not found.faults:
            session = Session(Path(folder) / f"{seed}.jsonl", model, seed)
            n_lives = min(N_LIVES, n_kills - found.n_kills)
            readers = lives(session, n_lives, random, 1.0 if model else 0.08)
            found.n_kills += readers.n_kills
            expected = _in_a_process(session)
            check(session, readers, expected, found)
            on_progress(found)
            seed += 1
    return found


def _in_a_process(session: Session) -> dict[int, str]:
    """Return the texts of an uninterrupted session; llama.cpp is loaded in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        texts = trio.run(uninterrupted, session)
        with os.fdopen(writing, "w") as file:
            json.dump(list(texts.items()), file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        found = dict(json.load(file))
    os.waitpid(child, 0)
    return found


def main() -> int:
    """Print the counts; exit with 1 if anything was lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=2000, help="on the scripted engine (default: %(default)s)")
    parser.add_argument("--model-kills", type=int, default=50, help="on SmolLM2 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    asked_for = parser.parse_args()
    n_faults = 0
    for name, model, n_kills in (
        ("scripted", None, asked_for.kills),
        ("SmolLM2", installed_model(), asked_for.model_kills),
    ):
        started = monotonic()

        def progress(found: Found, name: str = name, started: float = started) -> None:
            if sys.stderr.isatty():
                print(f"\r{name}: {found.n_kills} kills, {monotonic() - started:.0f} s", end="", file=sys.stderr)

        found = crashes(n_kills, asked_for.seed, model, progress) if n_kills else Found()
        print(
            f"{name}: {found.n_kills:,} kills, {found.n_resumed:,} lives resumed, {found.n_chunks:,} chunks read,"
            f" {found.n_texts:,} texts: {len(found.lost)} lost, {len(found.wrong)} wrong, {len(found.logs)} logs wrong;"
            f" {monotonic() - started:.0f} s"
        )
        for fault in found.faults[:10]:
            print(f"  {fault}")
        n_faults += len(found.faults)
    return int(n_faults > 0)


if __name__ == "__main__":
    sys.exit(main())
