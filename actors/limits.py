"""The limits of the core and of the API that are our choice, each with its unit and its reason.

Those that a caller may set are fields of `SessionOpened` too. Bounds that llama.cpp has stand where it is called, and a
grammar's own in `reenact.runtime.grammar.gbnf`, `reenact.runtime.grammar.automaton` and
`reenact.runtime.llama.grammar_states`.
"""

from typing import Final

MAX_WAITING: Final = 128
"""Requests that may wait for a slot, by default. At 8 slots and 2 seconds a request the last one waits about half a
minute; who would wait longer is better told at once."""

MOST_WAITING: Final = 4096
"""Requests that may be allowed to wait. The queue is looked through when one leaves it: at this length that takes a
tenth of a millisecond; and at 8 slots and 2 seconds a request the last one waits a quarter of an hour."""

MOST_RECORDS: Final = 100_000
"""Records that may follow from one fact. The end of a session with the longest queue that is allowed leads to some
20,000; an actor that goes round in circles reaches this in a second, and is out then."""

MAX_READER_LAG: Final = 64
"""Chunks that a reader may leave unread before its sequence pauses. A chunk is about one token, so this is a few
seconds of text: enough for a slow terminal or a network hiccup, and too little to generate a page that nobody reads."""

MAX_PAUSE: Final = 10.0
"""Seconds that a paused sequence keeps its slot, by default: several times what it takes to evaluate a long context
again, which is what it costs to give the slot up, and short enough for who waits for it."""

MAX_PROMPT_BYTES: Final = 2**20
"""Bytes of a prompt in UTF-8: some 250,000 tokens of English. Tokenising so much takes about a third of a second, in
which no batch is decoded, and a log holds a prompt three times."""

MAX_PROMPT_NUMBERS: Final = 2**22
"""Tokens of a prompt and numbers of its rows: 1,024 rows of a model of 4,096 dimensions, which is several pictures. A
session holds 4 bytes for each number while the request lives, and the file of rows does for good."""

MAX_PROMPT_ROWS: Final = 2**17
"""Rows of a prompt, however short they are: several hundred pictures. A log's line names each one with 67 bytes."""

MAX_TEXTS: Final = 2**17
"""Texts of one call that embeds, and messages of one chat: they are read on the event loop, in a tenth of a second."""

MAX_LINE_BYTES: Final = 2**27
"""Bytes of a line of a log: more than `MAX_PROMPT_NUMBERS` tokens take, and than `MAX_PROMPT_ROWS` rows do. What reads
a log holds a line whole."""

MAX_LINE_VALUES: Final = 2**23
"""Commas and opening brackets of such a line, those in texts too: each may be a value that takes 60 bytes of memory."""

MAX_LINE_TEXT: Final = 2**24
"""Bytes of such a line beside 32 for each of these: more than the longest prompt takes, and a name as long, where JSON
writes each of their bytes with six."""

MAX_STOPS: Final = 64
"""Stop strings of one request. Each one is looked for after every token."""

MAX_STOP_BYTES: Final = 1024
"""Bytes of one stop string in UTF-8. So much text may have to be held back."""

MAX_GRAMMAR_BYTES: Final = 2**16
"""Bytes of a grammar or of a JSON Schema in UTF-8. A log holds it."""

MAX_TOP_LOGPROBS: Final = 20
"""Likeliest tokens that are told beside a token: what other servers offer. Each one takes about 50 bytes of log."""

MAX_DEADLINE: Final = 10_000_000
"""Seconds; some 116 days, and more than a clock of nanoseconds below 2^53 tells."""

NUM_PREDICT_CONTEXTS: Final = 10
"""Contexts that a request generates at most if it sets no limit of its own: a model that repeats itself would never
end."""

COPIED_CELLS_PER_ROW: Final = 256
"""Cells of a slot that is copied as a whole which take as long as one row of a prefill, at least. On SmolLM2 so many
take 0.1 to 0.8 rows, the more the faster its quantisation is (docs/llama-cpp.md section 3, ``make measure-copy``)."""

PICKED_CELL: Final = 2
"""Cells of a slot that is copied as a whole which take as long as one that is picked out. So what is used of a slot is
picked out where it is less than half of it."""

MAX_CHAT_INPUTS: Final = 2**20
"""Inputs of all chats that a runtime remembers, those answered latest: some 40 MB. One that is forgotten is tokenised
again."""

MAX_SLOTS: Final = 256
"""Sequences evaluated together: llama.cpp's LLAMA_MAX_SEQ."""

MAX_CELLS: Final = 2**31
"""Cells of all slots together: llama.cpp counts them in 32 bits."""

MAX_BATCH: Final = 2**16
"""Rows of one batch that may be asked for. Where texts are pooled a batch holds a whole context, if that is more."""

MAX_THREADS: Final = 512
"""Threads that compute: ggml's GGML_MAX_N_THREADS."""

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer a log may hold: what every JSON reader keeps exact."""


def bounds(n_slots: int) -> dict[str, tuple[int, int]]:
    """Return the least and the greatest value of each setting of a session, by its name.

    Args:
        n_slots: That setting, on which others depend.
    """
    return {
        "n_slots": (1, MAX_SLOTS),
        "n_ctx": (1, MAX_CELLS // n_slots - 256),  # It is padded.
        "n_batch": (n_slots, MAX_BATCH),
        "n_threads": (1, MAX_THREADS),
        "max_waiting": (0, MOST_WAITING),
        "max_reader_lag": (1, MAX_INTEGER),
    }
