"""Runs the command ``reenact chat``: reads its arguments and opens the conversation."""

import argparse
import sys
from typing import Final

from reenact.actors.errors import InvalidRequest
from reenact.runtime.cli.arguments import FLAGS, add_options, add_session, given
from reenact.runtime.model_store import chosen
from reenact.runtime.terminal import argument

CHAT_EXAMPLE: Final = """\
example:
  reenact chat --log chat.jsonl --system "Answer in one sentence."
  replay run chat.jsonl
"""

_UNSEEN: Final = ("logprobs", "top_logprobs")
"""Options that a conversation has no place to show."""


def add_chat(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``reenact chat``."""
    parser.set_defaults(run=chat, flags=FLAGS)
    parser.add_argument("--system", type=argument, metavar="TEXT", help="the system message")
    add_session(parser)
    add_options(parser, without=_UNSEEN)


def chat(parsed: argparse.Namespace) -> int:
    """Check the arguments first, then load the modules and the model that a conversation needs."""
    settings, options = given(parsed)
    if sys.stdin is None:
        raise InvalidRequest("standard input", "it is closed, and messages come from it")
    model = chosen(parsed.model)
    from reenact.runtime.cli.conversation import Subject, converse  # rich, trio and llama.cpp

    subject = Subject(model=model, log=parsed.log, system=parsed.system, settings=settings, options=options)
    return 1 if converse(subject) else 0
