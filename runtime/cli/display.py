"""Shows growing texts: as live blocks on a terminal, as whole blocks in a pipe, as JSON for machines."""

import sys
from abc import ABC, abstractmethod
from textwrap import shorten
from types import TracebackType
from typing import Self

from attrs import asdict
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.text import Text

from reenact.actors.errors import ReenactError
from reenact.runtime.results import Completion
from reenact.runtime.terminal import print_block, print_json, progress_bar, tell_above, visible, visible_lines

Ended = Completion | ReenactError
"""The result of a prompt."""


class LoadingProgress:
    """Shows the progress of loading a model, if standard error is a terminal; a context manager around it."""

    def __init__(self) -> None:
        self._loading = progress_bar(disable=not sys.stderr.isatty())
        self._task = self._loading.add_task("loading the model", total=1.0)

    def __enter__(self) -> Self:
        self._loading.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loading.stop()

    def loading(self, doing: str, fraction: float) -> None:
        """Show the progress of loading; may be called from another thread."""
        self._loading.update(self._task, description=visible(f"{doing} the model"), completed=fraction)

    def warn(self, warning: str) -> None:
        """Show a warning on stderr; may be called from another thread."""
        tell_above(self._loading, "reenact", warning)

    def loaded(self) -> None:
        """End the progress display, because the model is ready."""
        self._loading.stop()


class Display(LoadingProgress, ABC):
    """Shows the texts of several prompts; a context manager around the whole session."""

    def __init__(self, prompts: list[str]) -> None:
        super().__init__()
        self._prompts = prompts
        self._texts = [""] * len(prompts)
        self._ends: list[Ended | None] = [None] * len(prompts)
        self._shown = 0

    def grow(self, i: int, text: str) -> None:
        """Add text to that of prompt ``i``."""
        self._texts[i] += text

    def finish(self, i: int, ended: Ended) -> None:
        """Show that prompt ``i`` has ended."""
        self._ends[i] = ended
        while self._shown < len(self._prompts) and (before := self._ends[self._shown]) is not None:
            self._show(self._shown, before)
            self._shown += 1

    @abstractmethod
    def _show(self, i: int, ended: Ended) -> None:
        """Show prompt ``i``, which has ended, after all prompts before it."""


class JsonDisplay(Display):
    """Prints a JSON object for each prompt, in their order, as soon as all prompts before it have ended."""

    def _show(self, i: int, ended: Ended) -> None:
        fields: dict[str, object] = {"prompt": self._prompts[i], "text": self._texts[i]}
        if isinstance(ended, Completion):
            fields |= {
                "sequence": ended.sequence,
                "tokens": ended.tokens,
                "finish_reason": ended.finish_reason,
                "stop": ended.stop,
                "seed": ended.seed,
                "n_prompt": ended.n_prompt,
                "n_cached": ended.n_cached,
                "n_truncated": ended.n_truncated,
                "n_sampled": ended.n_sampled,
                "n_shifts": ended.n_shifts,
                "times": asdict(ended.times),
            }
            if ended.logprobs:
                fields["logprobs"] = [asdict(logprob, value_serializer=_as_text) for logprob in ended.logprobs]
        else:
            fields |= {"finish_reason": "error", "error": str(ended)}
        print_json(fields)


def _as_text(_: object, __: object, value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


class PlainDisplay(Display):
    """Prints a block for each prompt, in their order, as soon as all prompts before it have ended."""

    def _show(self, i: int, ended: Ended) -> None:
        block = f"--- {_title(i, self._prompts[i], ended)}\n{self._prompts[i]}{self._texts[i]}\n\n"
        print_block(block)


class TerminalDisplay(Display):
    """Shows all blocks as they grow: the last lines that the terminal has room for, and all lines at the end."""

    def __init__(self, prompts: list[str]) -> None:
        super().__init__(prompts)
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, transient=True, get_renderable=self._growing, refresh_per_second=10)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        super().__exit__(kind, error, at)
        if self._live.is_started:
            self._live.stop()
            self._console.print(Group(*(self._block(i, None) for i in range(len(self._prompts)))))

    def loaded(self) -> None:
        """Begin to show the texts."""
        super().loaded()
        self._live.start()

    def _show(self, i: int, ended: Ended) -> None:
        """Do nothing: the live display shows it already."""

    def _growing(self) -> Group:
        room = max(1, (self._console.height - 1) // len(self._prompts) - 1)
        return Group(*(self._block(i, room) for i in range(len(self._prompts))))

    def _block(self, i: int, n_lines: int | None) -> RenderableType:
        text = Text(visible_lines(self._prompts[i]), style="dim")
        text.append(visible_lines(self._texts[i]), style="bold" if self._ends[i] is None else "none")
        lines = text.wrap(self._console, self._console.width)
        title = _title(i, self._prompts[i], self._ends[i])
        return Group(
            Rule(Text(visible(title)), align="left", style="cyan"), *(lines if n_lines is None else lines[-n_lines:])
        )


def _title(i: int, prompt: str, ended: Ended | None) -> str:
    title = f"{i + 1}: {shorten(prompt, 40, placeholder='…')}"
    match ended:
        case None:
            return title
        case Completion():
            return f"{title} ({ended.n_sampled} tokens, {ended.finish_reason}, seed {ended.seed})"
        case _:
            return f"{title} (failed)"
