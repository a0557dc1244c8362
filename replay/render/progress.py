"""Shows the progress of an execution on a terminal; does nothing where standard error is not one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from reenact.replay.compute.machine import OnProgress
from reenact.runtime.terminal import is_coloured, progress_bar, visible


@contextmanager
def progress(begins: str = "opening the model") -> Iterator[OnProgress]:
    """Show a bar on standard error while the block runs; the block reports its progress to the yielded function.

    Args:
        begins: The first activity, until another one is reported.
    """
    if not is_coloured(sys.stderr):
        yield lambda _doing, _fraction: None
        return
    with progress_bar(disable=False) as bar:
        task = bar.add_task(begins, total=1.0)

        def show(doing: str, fraction: float) -> None:
            doing = visible(doing)
            if bar.tasks[task].description != doing:
                bar.reset(task, description=doing)
            bar.update(task, completed=fraction)

        yield show
