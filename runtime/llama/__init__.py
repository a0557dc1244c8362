"""Computes with llama.cpp."""
