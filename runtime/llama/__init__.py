"""The engine that computes, with llama.cpp."""
