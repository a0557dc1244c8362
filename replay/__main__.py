"""``python -m reenact.replay``: the same as ``replay``."""

import sys

from reenact.replay.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
