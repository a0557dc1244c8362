"""`replay extract`: one request of a log, alone in a log of its own."""
