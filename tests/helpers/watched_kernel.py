"""A kernel that remembers every state it had."""

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.kernel import Kernel, State


@frozen
class Moment:
    """A record, and what every actor knew right after it."""

    record: e.Record
    state: State


class WatchedKernel(Kernel):
    """A kernel that remembers its state at every record, also in the middle of a fact."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[Moment] = []
        self.watching = True

    def _record(self, event: e.Event, cause: int | None) -> e.Record:
        record = super()._record(event, cause)
        if self.watching:
            self.moments.append(Moment(record, self.state))
        return record
