"""`replay repair`: the valid part of a damaged log, in a log of its own."""
