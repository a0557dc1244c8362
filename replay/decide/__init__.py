"""`replay run`: a log's decisions, made again."""
