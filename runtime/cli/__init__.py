"""Implements the command `reenact`."""
