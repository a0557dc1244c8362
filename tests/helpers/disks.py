"""Disks for tests of durability: they take time, fail, and know what a crash of the machine would leave."""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import pytest
import trio

from reenact.actors import events as e
from reenact.runtime.engine_thread import InPlace
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.log.writer import Journal
from reenact.runtime.outbox import Outbox

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Disk(InPlace):
    """A disk whose syncs take virtual time and may fail; what is written while a sync runs is not part of it.

    Args:
        log: The log that is on it.
        seconds: How long the syncs take, in turn.
        fails: The number of the sync that fails, from 0.
    """

    def __init__(self, log: Path, seconds: Sequence[float] = (0.0,), fails: int | None = None) -> None:
        self.log = log
        self.n_synced = 0
        """The bytes of the log that a crash of the machine leaves."""
        self.n_syncs = 0
        self._seconds = seconds
        self.fails = fails
        """The number of the sync that fails."""

    async def run(self, call: Callable[[*Ts], T], *args: *Ts, may_leave: bool = False) -> T:
        """Make a sync."""
        n_bytes = self.log.stat().st_size
        await trio.sleep(self._seconds[self.n_syncs % len(self._seconds)])
        returned = await super().run(call, *args, may_leave=may_leave)
        self.n_synced = n_bytes
        return returned

    def fdatasync(self, _: int) -> None:
        """Sync a file, or fail."""
        self.n_syncs += 1
        if self.fails is not None and self.n_syncs > self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Let the logs of sessions be on this disk."""
        patch.setattr("reenact.runtime.log.own_file.os.fdatasync", self.fdatasync)
        patch.setattr("reenact.runtime.api.Outbox", self._outbox)

    def _outbox(self, journal: Journal, _: object) -> Outbox:
        return Outbox(journal, self)


class Seen:
    """What readers were given, and how much of the log was on the disk then."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.texts: dict[int, str] = {}
        self._moments: list[tuple[int, str, int]] = []

    def add(self, sequence: int, text: str) -> None:
        """Note that a reader was given text."""
        self.texts[sequence] = self.texts.get(sequence, "") + text
        self._moments.append((sequence, self.texts[sequence], self._disk.n_synced))

    def unsynced(self) -> list[tuple[int, str, int]]:
        """Return each text that a reader had before the disk had it: the sequence, the text, the bytes on the disk."""
        on_disk = {n_synced: self._texts_in(n_synced) for n_synced in {moment[2] for moment in self._moments}}
        return [
            (sequence, text, n_synced)
            for sequence, text, n_synced in self._moments
            if not on_disk[n_synced].get(sequence, "").startswith(text)
        ]

    def _texts_in(self, n_bytes: int) -> dict[int, str]:
        """Return the texts in the log that a crash of the machine would have left."""
        path = self._disk.log.with_name(f"left-{self._disk.log.name}")
        path.write_bytes(self._disk.log.read_bytes()[:n_bytes])
        texts: dict[int, str] = {}
        with LogFile(path) as log:
            for entry in entries(log):
                match entry.record.event:
                    case e.TokenEmitted() | e.StopMatched() | e.SequenceFinished() as event:
                        texts[event.sequence] = texts.get(event.sequence, "") + event.text
                    case _:
                        pass
        return texts
