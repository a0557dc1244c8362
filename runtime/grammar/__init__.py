"""The form that a text is to have: GBNF and JSON Schemas, read and checked without llama.cpp."""
