from pathlib import Path

from reenact.replay.fold import Fold
from reenact.replay.look.show import line_of
from reenact.replay.look.state import page
from reenact.replay.look.texts import lines_of, texts_of
from reenact.runtime.log.reader import LogFile, entries
from tests.helpers.sessions import eventful_session


async def test_everything_that_can_happen_is_told(tmp_path: Path, autojump_clock: object) -> None:
    """Every record of the eventful session has its line and its page, and no sequence waits for nothing."""
    path = tmp_path / "eventful.jsonl"
    await eventful_session(path)
    with LogFile(path) as log:
        all_entries = list(entries(log))
        texts, corrupt = texts_of(log)
    assert corrupt is None
    assert [] == texts.end(0)
    fold = Fold()
    lines = [line for told in texts.all() for line in lines_of(told)]
    for entry, following in zip(all_entries, [*all_entries[1:], None], strict=True):
        fold.add(entry)
        lines += [line_of(entry), *page(fold.moment(following=following))]
    said = ["".join(text for text, _ in line) for line in lines]
    assert [] == [line for line in said if "\n" in line or "it waits for nothing" in line]
