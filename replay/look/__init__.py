"""`replay show`, `state`, `texts` and `diff`: what a log holds, for people."""
