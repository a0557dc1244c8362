"""Serves the parts of OpenAI's API that complete, chat and embed."""
