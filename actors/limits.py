"""The limits that are our choice, each with its unit and its reason.

Those that a caller may set are fields of `SessionOpened` too. Bounds that llama.cpp has stand where it is called.
"""

from typing import Final

MAX_WAITING: Final = 128
"""Requests that may wait for a slot, by default. At 8 slots and 2 seconds a request the last one waits about half a
minute; who would wait longer is better told at once."""

MAX_READER_LAG: Final = 64
"""Chunks a reader may leave unread before his sequence pauses. A chunk is about one token, so this is a few seconds of
text: enough for a slow terminal or a network hiccup, and too little to generate a page that nobody reads."""

MAX_PROMPT_BYTES: Final = 2**20
"""Bytes of a prompt in UTF-8: some 250,000 tokens of English. Tokenising so much takes about a third of a second, in
which no batch is decoded, and a log holds a prompt three times."""

MAX_STOPS: Final = 64
"""Stop strings of one request. Each one is looked for after every token."""

MAX_STOP_BYTES: Final = 1024
"""Bytes of one stop string in UTF-8. So much text may have to be held back."""

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer a log may hold: what every JSON reader keeps exact."""
