"""Writes and reads logs, and the files of rows beside them."""
