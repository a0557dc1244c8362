"""Serves ollama's API."""
