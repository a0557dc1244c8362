"""The log: its lines, its one writer and its readers."""
