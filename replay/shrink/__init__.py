"""`replay shrink` and `to-test`: the smallest log that is still wrong, kept as a test."""
