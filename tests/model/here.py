"""What is chosen for a model's file on the machine at hand."""

from pathlib import Path

from reenact.actors.header import Numerics
from reenact.runtime.build import engine_facts
from reenact.runtime.cachetypes import fastest_v
from reenact.runtime.modelfile import read_model_file
from reenact.runtime.numerics import Machine, independent


def numerics_here(path: Path) -> Numerics:
    """Return the numerics under which a file's results do not depend on the schedule."""
    file = read_model_file(path, lambda _doing, _fraction: None)
    return independent(file.matrix_types, Machine(type_v=fastest_v(file.head_size, engine_facts())))
