"""`replay fork`: a session that goes on from a record of another."""
