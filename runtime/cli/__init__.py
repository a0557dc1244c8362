"""The command `reenact`."""
