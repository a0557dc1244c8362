"""`replay redact`: a log with its texts and tokens replaced, which still replays."""
