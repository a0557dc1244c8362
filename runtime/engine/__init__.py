"""What evaluates and draws: the protocol, and an engine that plays scripts."""
