"""Holds a conversation with a model, and shows the answers as they grow: the work behind ``reenact chat``.

The rules that hold here:

* Each answer is a request to one runtime. So the log contains the conversation, and a turn evaluates only what is new.
* Ctrl-C cancels the answer that is being given, whose text stays in the conversation. At any other time it ends the
  conversation.
* A message that cannot be answered is not part of the conversation; the next one can be asked all the same.
"""

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import define, frozen

from reenact.actors.errors import InvalidRequest, Overloaded, SequenceFailed
from reenact.actors.options import OPTION_NAMES
from reenact.runtime.api import llama_engine, open_runtime
from reenact.runtime.chats import ANSWERS
from reenact.runtime.cli.display import LoadingProgress
from reenact.runtime.cli.generate import run_for_a_person, tell_log
from reenact.runtime.cli.lines import PipedMessages, TypedMessages, restored_terminal
from reenact.runtime.model_store import StoredModel
from reenact.runtime.results import Completion
from reenact.runtime.runtime import Runtime
from reenact.runtime.terminal import flush, print_block, printer, tell

if TYPE_CHECKING:
    from reenact.runtime.stream import Stream

_ITS_OWN_FAULT: Final = (InvalidRequest, Overloaded, SequenceFailed)
"""Errors of one message, after which the conversation goes on."""

_COMMANDS: Final = """\
/system TEXT   set the system message; without TEXT, show it
/clear         forget the conversation, except the system message
/save FILE     save the messages in a new file, as JSON
/bye           end the conversation, as Ctrl-D does
\"""            begin a message of several lines; \""" ends it
"""


@frozen(kw_only=True)
class Subject:
    """The model to talk to, and how."""

    model: StoredModel
    log: Path | None
    system: str | None
    settings: dict[str, Any]
    """Arguments of `open_runtime`."""
    options: dict[str, Any]
    """The options of every answer."""


def converse(subject: Subject) -> int:
    """Hold a conversation until its end, and report its figures on standard error.

    Returns:
        The count of messages that could not be answered.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it; the log is closed.
        OSError, ReenactError: The session could not be opened, or broke.
    """
    figures = Figures()
    try:
        run_for_a_person(_converse, subject, figures)
    finally:
        if figures.n_answers:
            tell("reenact", figures.line())
    return figures.n_failed


@define
class Figures:
    """The figures of a conversation's answers."""

    n_answers: int = 0
    n_failed: int = 0
    """The count of messages that could not be answered."""
    n_tokens: int = 0
    n_prompt: int = 0
    n_cached: int = 0
    n_left_out: int = 0

    def add(self, completion: Completion) -> None:
        """Count an answer."""
        self.n_answers += 1
        self.n_tokens += completion.n_sampled
        self.n_prompt += completion.n_prompt
        self.n_cached += completion.n_cached
        self.n_left_out = max(self.n_left_out, completion.n_left_out)

    def line(self) -> str:
        """Return them as a line for people."""
        answers = f"{self.n_answers:,} answer{'' if self.n_answers == 1 else 's'}"
        left_out = f"; {self.n_left_out:,} messages no longer fitted" if self.n_left_out else ""
        return (
            f"{answers}, {self.n_tokens:,} tokens; {self.n_cached:,} of {self.n_prompt:,} prompt tokens were in the"
            f" cache{left_out}"
        )


async def _converse(subject: Subject, figures: Figures) -> None:
    typed = sys.stdin.isatty() and sys.stdout.isatty()
    with ExitStack() as stack:
        progress = stack.enter_context(LoadingProgress())
        engine = llama_engine(
            subject.model.path,
            name=subject.model.header_name,
            on_progress=progress.loading,
            on_warning=progress.warn,
        )
        async with open_runtime(engine, log=subject.log, n_slots=1, **subject.settings) as runtime:
            progress.loaded()
            tell_log(runtime, subject.log)
            conversation = Conversation(runtime, subject, figures)
            messages = TypedMessages() if typed else PipedMessages()
            if typed:
                stack.enter_context(restored_terminal())
                _note("/? lists the commands, Ctrl-D ends the conversation")
            await _answered(conversation, messages, with_commands=typed)


async def _answered(
    conversation: "Conversation", messages: TypedMessages | PipedMessages, *, with_commands: bool
) -> None:
    """Answer each message, and carry out each command."""
    while (message := await messages.next()) is not None:
        if not message.strip():
            continue
        if not with_commands or not message.startswith("/"):
            await conversation.answer(message)
        elif not conversation.command(message):
            return


class Conversation:
    """The messages so far, and how the next one is answered.

    Args:
        runtime: The runtime that answers.
        subject: Has the system message and the options.
        figures: Counts the answers.
    """

    def __init__(self, runtime: Runtime, subject: Subject, figures: Figures) -> None:
        self._runtime = runtime
        self._system = subject.system
        self._options = subject.options
        self._figures = figures
        self._said: list[dict[str, str]] = []

    @property
    def messages(self) -> list[dict[str, str]]:
        """The messages, with the system message in front if there is one."""
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        return [*system, *self._said]

    async def answer(self, message: str) -> None:
        """Answer a message, and show the answer as it grows; Ctrl-C cancels it."""
        question = {"role": "user", "content": message}
        shown: list[str] = []
        stream: Stream | None = None
        try:
            async with self._runtime.stream_chat([*self.messages, question], **self._options) as stream:
                async for chunk in stream:
                    print_block(chunk.text)
                    shown.append(chunk.text)
        except KeyboardInterrupt:
            if stream is None:
                raise
        except _ITS_OWN_FAULT as error:
            if isinstance(error, InvalidRequest) and error.field in OPTION_NAMES:
                raise  # It does not concern the message.
            self._figures.n_failed += 1
            _end_text("".join(shown))
            tell("reenact", str(error))
            return
        completion = stream.completion
        print_block(completion.text.removeprefix("".join(shown)))
        _end_text(completion.text)
        if completion.finish_reason not in {"stop", "cancelled"}:
            tell("reenact", f"the answer ends here: {completion.finish_reason}")
        self._figures.add(completion)
        if completion.text:
            self._said += [question, {"role": ANSWERS, "content": completion.text}]

    def command(self, written: str) -> bool:
        """Carry out a command, and return whether the conversation goes on."""
        name, _, rest = written.partition(" ")
        rest = rest.strip()
        match name:
            case "/bye" | "/exit":
                return False
            case "/clear":
                self._said.clear()
            case "/system" if rest:
                self._system = rest
            case "/system":
                _note("there is no system message" if self._system is None else self._system)
            case "/save":
                self._save(rest)
            case "/?" | "/help":
                print_block(_COMMANDS)
            case _:
                tell("reenact", f"there is no command {name}; /? lists them")
        return True

    def _save(self, path: str) -> None:
        """Save the messages for their owner alone, in the form that ollama's and OpenAI's API take."""
        if not path:
            tell("reenact", "/save needs the name of a new file")
            return
        try:
            with open(path, "x", encoding="utf-8", opener=_private) as file:  # for its opener
                json.dump(self.messages, file, ensure_ascii=False, indent=2)
        except OSError as error:
            tell("reenact", f"{path}: {error.strerror}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _end_text(text: str) -> None:
    if not text.endswith("\n"):
        print_block("\n")


def _note(line: str) -> None:
    printer(sys.stdout)([(line, "dim")])
    flush()
