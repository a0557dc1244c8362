"""Runs the command ``reenact``: generate, chat, probe a model, serve; nothing that the Python API cannot do.

An error is one line on stderr, and its class decides the exit code: 2 for a wrong request or a file that cannot be
opened or written, 1 for a failure, 5 for a bug of this program, 130 for Ctrl-C.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from reenact.actors.errors import InvalidRequest, ReenactError
from reenact.runtime.cli.arguments import FLAGS, add_durability, add_model, add_options, add_session, given
from reenact.runtime.cli.chat import CHAT_EXAMPLE, add_chat
from reenact.runtime.cli.serve import SERVE_EXAMPLE, add_models, add_serve
from reenact.runtime.model_store import chosen
from reenact.runtime.terminal import Parser, argument, prepare, tell, visible

if TYPE_CHECKING:
    from reenact.runtime.cli.display import Display

_EXAMPLE = """\
example:
  reenact generate --log session.jsonl --num-predict 64 "Why is the sky blue?" "The capital of France is"
  replay run session.jsonl
"""

_PROBE_FLAGS = {"model": "MODEL", "n_threads": "--n-threads", "seconds": "--limit"}
"""The flags of ``probe`` likewise."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit."""
    prepare()
    parsed = _parser().parse_args(arguments)
    there_before = parsed.log is not None and parsed.log.exists()
    try:
        if getattr(parsed, "verbose", False):
            _configure_console()
        sys.exit(parsed.run(parsed))
    except KeyboardInterrupt:
        closed = parsed.log is not None and not there_before and parsed.log.exists()
        _tell("interrupted" + (f"; {parsed.log} is closed and can be replayed" if closed else ""))
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone; Python would report it again at exit.
        sys.stdout = None
        sys.exit(1)
    except InvalidRequest as error:
        _tell(f"{parsed.flags.get(error.field, error.field)}: {error.reason}")
        sys.exit(error.exit_code)
    except FileExistsError as error:
        _tell(f"{error.filename}: the file exists, and a log is never overwritten")
        sys.exit(2)
    except OSError as error:
        _tell(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(2)
    except ReenactError as error:
        _tell(str(error))
        sys.exit(error.exit_code)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="reenact", description="Language-model inference that can be run again, exactly.")
    parser.add_argument("--version", action="version", version=f"reenact {version('reenact')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_generate(
        commands.add_parser(
            "generate",
            help="complete prompts, several at once",
            description="Complete prompts, several at once. With --log the session, prompts included, is recorded.",
            epilog=_EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    _add_probe(
        commands.add_parser(
            "probe",
            help="test whether a model's results depend on the schedule",
            description="Test whether a model's results depend on the schedule, on this build and machine: evaluate the"
            " same inputs in several ways, and compare the logits. The findings are kept and used whenever the model is"
            " opened.",
        )
    )
    _add_resume(
        commands.add_parser(
            "resume",
            help="go on with a session whose process died",
            description="Go on with a session whose process died, in its own log, on the same machine with the same"
            " model: each request that had not ended goes on from its next token. Prints the texts and ends with them.",
        )
    )
    add_chat(
        commands.add_parser(
            "chat",
            help="hold a conversation in the terminal",
            description="Hold a conversation with a model. With --log it is recorded. Ctrl-C cancels an answer; at the"
            " prompt it ends the conversation, as Ctrl-D does. If standard input is not a terminal, each of its lines"
            " is a message.",
            epilog=CHAT_EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    add_serve(
        commands.add_parser(
            "serve",
            help="serve ollama's and OpenAI's API",
            description="Serve ollama's and OpenAI's API, and record every request. A model is loaded at the first"
            " request for it. Each session has a log of its own, and each response names its session and its sequence.",
            epilog=SERVE_EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    add_models(
        commands.add_parser(
            "models",
            help="list the models that have a name",
            description="List the models that have a name: those of ollama's store and of Hugging Face's cache, which"
            " are only read, and the installed SmolLM2.",
        )
    )
    return parser


def _add_generate(generate: argparse.ArgumentParser) -> None:
    generate.set_defaults(run=_generate, flags=FLAGS)
    generate.add_argument(
        "prompts", nargs="+", type=argument, metavar="PROMPT", help="text to continue; - reads one from stdin"
    )
    generate.add_argument("--slots", dest="n_slots", type=int, metavar="N", help="sequences at a time (default: 4)")
    add_session(generate)
    add_options(generate)
    generate.add_argument("--json", action="store_true", help="print a JSON object for each prompt, in their order")


def _add_probe(probe: argparse.ArgumentParser) -> None:
    probe.set_defaults(run=_probe, flags=_PROBE_FLAGS, log=None)
    add_model(probe, "model", nargs="?")
    probe.add_argument("--n-threads", type=int, metavar="N", help="threads that compute (default: one for each CPU)")
    probe.add_argument(
        "--limit",
        type=float,
        metavar="SECONDS",
        help="skip cases that would end later; earlier findings still count (default: none)",
    )
    probe.add_argument("--json", action="store_true", help="print one JSON object")


def _add_resume(resume: argparse.ArgumentParser) -> None:
    resume.set_defaults(run=_resume, flags={"model": "--model"}, log=None)
    resume.add_argument("resumed", type=Path, metavar="LOG", help="the log of the session")
    add_model(resume, default="the recorded model")
    add_durability(resume, default="that of the log")
    resume.add_argument("--json", action="store_true", help="print a JSON object for each text")


def _resume(parsed: argparse.Namespace) -> int:
    """Resume a session; a text that fails counts as a failure of the command."""
    from reenact.runtime.cli.resume import Resuming, resume  # rich, trio and llama.cpp

    return 1 if resume(Resuming(parsed.resumed, parsed.model, parsed.json, parsed.durability)) else 0


def _generate(parsed: argparse.Namespace) -> int:
    """Check the arguments first, then load the modules and the model that generating needs."""
    prompts = _prompts(parsed.prompts)
    settings, options = given(parsed)
    if options.get("logprobs") and not parsed.json:
        raise InvalidRequest("logprobs", "they are printed in JSON only: add --json")
    model = chosen(parsed.model)
    from reenact.runtime.cli.display import JsonDisplay, PlainDisplay, TerminalDisplay  # rich
    from reenact.runtime.cli.generate import Job, generate  # trio and llama.cpp

    display: Display
    if parsed.json:
        display = JsonDisplay(prompts)
    elif sys.stdout.isatty() and not parsed.verbose:
        display = TerminalDisplay(prompts)
    else:
        display = PlainDisplay(prompts)
    errors = generate(Job(model, prompts, display, parsed.log, settings, options))
    lines = [f"prompt {i + 1}: {error}" for i, error in enumerate(errors) if error is not None]
    if len(lines) == len(prompts) > 1 and len({str(error) for error in errors}) == 1:
        lines = [str(errors[0])]  # The error is not about one of them.
    for line in lines:
        _tell(line)
    return 1 if lines else 0


def _probe(parsed: argparse.Namespace) -> int:
    """Probe a model in full; no finding counts as a failure."""
    model = chosen(parsed.model).path
    from reenact.runtime.cli.probe import ProbeRequest, probed, show_findings, show_json  # rich, trio and llama.cpp

    findings = probed(ProbeRequest(model=model, n_threads=parsed.n_threads, seconds=parsed.limit))
    (show_json if parsed.json else show_findings)(findings)
    sys.stdout.flush()
    return 0


def _prompts(asked: list[str]) -> list[str]:
    if asked.count("-") > 1:
        raise InvalidRequest("PROMPT", "standard input (-) can be read once")
    if "-" in asked and sys.stdin is None:
        raise InvalidRequest("PROMPT", "standard input (-) is closed")
    prompts = [_read() if prompt == "-" else prompt for prompt in asked]
    for i, prompt in enumerate(prompts):
        if not prompt:
            raise InvalidRequest("PROMPT", f"prompt {i + 1} is empty")
    return prompts


def _read() -> str:
    """Return the text of standard input."""
    try:
        return argument(sys.stdin.read().removesuffix("\n"))
    except UnicodeDecodeError as error:
        raise InvalidRequest("PROMPT", f"standard input (-) is not text in {error.encoding}") from None
    except argparse.ArgumentTypeError as error:
        raise InvalidRequest("PROMPT", f"standard input (-): {error}") from None


def _configure_console() -> None:
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            lambda _logger, _name, facts: {name: _seen(value) for name, value in facts.items()},
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _seen(value: object) -> object:
    """Return a value in a form that is safe to print."""
    return value if isinstance(value, int | float | None) else visible(str(value))


def _tell(line: str) -> None:
    tell("reenact", line)


if __name__ == "__main__":
    main()
