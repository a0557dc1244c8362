"""Decides what the engine promises of llama.cpp's results, and finds out whether it can."""
