"""Python code in a process of its own, for what is decided once a process."""

import json
import os
import subprocess
import sys
from typing import Any, Final

from reenact.runtime.llama.determinism.numerics import TILES_NAME
from tests.helpers.paths import ROOT

_BEFORE: Final = """
import json
import sys

arguments = sys.argv[1:]
"""


def fresh(code: str, *arguments: object, tiles: str | None = None) -> Any:
    """Run code that sets ``told``, and return that.

    Args:
        code: The code; it has its arguments, as text, under this name.
        arguments: For it.
        tiles: What the environment says of tiles; None for nothing, whatever this process has settled.
    """
    environment = {name: value for name, value in os.environ.items() if name != TILES_NAME}
    environment |= {} if tiles is None else {TILES_NAME: tiles}
    command = (sys.executable, "-c", f"{_BEFORE}{code}\nprint(json.dumps(told))", *map(str, arguments))
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, cwd=ROOT)
    return json.loads(done.stdout)
