"""What is chosen for a model's file on the machine at hand, and a machine that chooses otherwise."""

import os
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from reenact.actors.header import Numerics
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.llama.build import engine_facts
from reenact.runtime.llama.determinism.cache_types import TypeV, fastest_v, keep_v
from reenact.runtime.llama.determinism.numerics import Hardware, schedule_independent
from reenact.runtime.llama.model_metadata import read_model_file
from reenact.runtime.user_cache import FOLDER_NAME


def numerics_here(path: Path) -> Numerics:
    """Return the numerics under which a file's results do not depend on the schedule."""
    file = read_model_file(path, lambda _doing, _fraction: None)
    return schedule_independent(file.matrix_types, Hardware(type_v=fastest_v(file.head_size, engine_facts())))


def add_type_v(parser: ArgumentParser) -> None:
    """Let a program be asked for a type of V, whatever is fastest here."""
    parser.add_argument("--type-v", choices=get_args(TypeV), help="of V beside K in q8_0 (default: the fastest here)")


@contextmanager
def machine_with(type_v: TypeV | None) -> Iterator[None]:
    """Let this be a machine on which this type of V is the fastest for SmolLM2, as a folder of its own says."""
    if type_v is None:
        yield
        return
    with TemporaryDirectory() as folder:
        os.environ[FOLDER_NAME] = folder
        head_size = read_model_file(installed_model(), lambda _doing, _fraction: None).head_size
        assert head_size is not None
        keep_v(type_v, head_size, engine_facts())
        yield
