"""Reads and checks GBNF grammars and JSON Schemas, without llama.cpp."""
