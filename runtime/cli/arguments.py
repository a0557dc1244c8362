"""Adds the arguments that ``reenact generate`` and ``reenact chat`` share, and returns their values."""

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from attrs import NOTHING

from reenact.actors.header import Durability
from reenact.actors.options import OPTION_NAMES, OPTIONS, Options, about
from reenact.runtime.engine.protocol import Determinism
from reenact.runtime.terminal import add_option

if TYPE_CHECKING:
    from attrs import Attribute

_SETTINGS: Final = ("n_slots", "n_ctx", "n_batch", "n_threads", "determinism", "logits_hash", "durability")

LOG_HELP: Final = "record the session in a new file; {model}, {opened_at} and {session} in its name are filled in"

FLAGS: Final = {name: "--" + name.replace("_", "-") for name in (*OPTION_NAMES, *_SETTINGS, "model")} | {
    "n_slots": "--slots"
}
"""The flags by the arguments of the Python API."""


def add_model(
    parser: argparse.ArgumentParser,
    name: str = "--model",
    *,
    default: str = "the installed SmolLM2",
    nargs: str | None = None,
) -> None:
    """Add the argument that names a model."""
    meaning = f"a file, or a name that `reenact models` lists (default: {default})"
    parser.add_argument(name, nargs=nargs, type=Path, metavar="MODEL", help=meaning)


def add_durability(parser: argparse.ArgumentParser, *, default: str = "process") -> None:
    """Add the argument that says what the log survives."""
    parser.add_argument(
        "--durability",
        choices=get_args(Durability),
        help="what the log survives with all text that was shown: process: that the process is killed; power: that the"
        f" machine loses power, too; relaxed: neither, for benchmarks (default: {default})",
    )


def add_session(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a session: the model, the log and the settings of the context."""
    add_model(parser)
    parser.add_argument("--log", type=Path, metavar="FILE", help=LOG_HELP)
    add_durability(parser)
    parser.add_argument("--n-ctx", type=int, metavar="N", help="cells for each sequence (default: 2048)")
    parser.add_argument("--n-batch", type=int, metavar="N", help="rows in a batch (default: 64)")
    parser.add_argument(
        "--n-threads",
        type=int,
        metavar="N",
        help="threads that compute (default: one for each CPU); give fewer if other programs use the CPUs too",
    )
    parser.add_argument(
        "--determinism",
        choices=get_args(Determinism),
        help="schedule-independent: a text depends on its request alone; recorded-schedule: it depends on concurrent"
        " requests too, which is faster; auto: the first if this model, build and machine allow it (default: auto)",
    )
    parser.add_argument(
        "--no-logits-hash",
        dest="logits_hash",
        action="store_const",
        const=False,
        help="record no checksums of logits; a re-execution then compares tokens only",
    )
    parser.add_argument("--verbose", action="store_true", help="show selected events on stderr")


def add_options(parser: argparse.ArgumentParser, *, without: Collection[str] = ()) -> None:
    """Add the options of a request, except those that the command has no use for."""
    for name, option in OPTIONS.items():
        if name not in without:
            add_option(parser, name, _help(option))


def _help(option: "Attribute[Any]") -> str:
    """Return the help of an option, with its default."""
    meaning = about(option.name).help
    if option.type is bool:
        return f"{meaning} (default: {'on' if option.default else 'off'})"
    return meaning if option.default in {NOTHING, (), None} else f"{meaning} (default: {option.default})"


def given(parsed: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the session and the options of its requests that are given.

    Raises:
        InvalidRequest: An option is wrong.
    """
    values = {name: value for name, value in vars(parsed).items() if value is not None}
    options = {name: values[name] for name in OPTION_NAMES if name in values}
    Options(**{"seed": 0, **options})
    return {name: values[name] for name in _SETTINGS if name in values}, options
