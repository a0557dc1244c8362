"""How records, values and ends of logs are written for people."""
