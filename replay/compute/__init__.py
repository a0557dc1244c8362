"""`replay run --compute`: a log's batches, executed again."""
