"""Where the files lie that tests read."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
"""The checkout."""
GOLDEN: Final = ROOT / "tests" / "golden"
"""The golden logs."""
