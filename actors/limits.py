"""Defines the limits that reenact chose for its core and its API, each with its unit and its reason.

The limits that a caller may set are fields of `SessionOpened` too. The modules that call llama.cpp define its bounds;
`reenact.runtime.grammar.gbnf`, `reenact.runtime.grammar.automaton` and `reenact.runtime.llama.grammar_states` define
those of a grammar.
"""

from typing import Final

MAX_WAITING: Final = 128
"""The default for the most requests that may wait for a slot. At 8 slots and 2 seconds a request, the last one waits
about half a minute; a caller that would wait longer is better refused at once."""

MOST_WAITING: Final = 4096
"""The largest setting of that limit. The queue is searched when a request leaves it: at this length that takes a tenth
of a millisecond; and at 8 slots and 2 seconds a request, the last one waits a quarter of an hour."""

MOST_RECORDS: Final = 100_000
"""The most records that may follow from one fact. The end of a session with the longest allowed queue leads to some
20,000; an actor in an endless loop reaches this limit in a second, and then fails."""

MAX_READER_LAG: Final = 64
"""The count of chunks that a reader may leave unread before its sequence pauses. A chunk is about one token, so this is
a few seconds of text: enough for a slow terminal or a network hiccup, and too little to generate an unread page."""

MAX_PAUSE: Final = 10.0
"""The default for the seconds that a paused sequence keeps its slot. Giving the slot up costs the time to evaluate a
context again; this is several times as long for a long context, and a short wait for other requests."""

MAX_PROMPT_BYTES: Final = 2**20
"""The most bytes of a prompt in UTF-8: some 250,000 tokens of English. Tokenizing that much takes about a third of a
second, in which no batch is decoded, and a log holds a prompt twice, as text and as tokens."""

MAX_PROMPT_NUMBERS: Final = 2**22
"""The most tokens of a prompt and numbers of its rows: 1,024 rows of a model of 4,096 dimensions, which is several
pictures. A session holds 4 bytes for each number while the request lives, and the file of rows keeps them."""

MAX_PROMPT_ROWS: Final = 2**17
"""The most rows of a prompt, of any length: several hundred pictures. A log's line names each row with 67 bytes."""

MAX_TEXTS: Final = 2**17
"""The most texts of one embedding call, and messages of one chat. The event loop reads them, in a tenth of a second."""

MAX_LINE_BYTES: Final = 2**27
"""The most bytes of a log's line: more than `MAX_PROMPT_NUMBERS` tokens or `MAX_PROMPT_ROWS` rows need. A reader of a
log holds a whole line in memory."""

MAX_LINE_VALUES: Final = 2**23
"""The most commas and opening brackets of such a line, also in texts: each may be a value of 60 bytes of memory."""

MAX_LINE_TEXT: Final = 2**24
"""The most bytes of such a line, besides 32 for each comma or bracket: more than the longest prompt and a name of the
same length need if JSON writes each of their bytes with six."""

MAX_STOPS: Final = 64
"""The most stop strings of one request. After every token each of them is searched for."""

MAX_STOP_BYTES: Final = 1024
"""The most bytes of one stop string in UTF-8. That much text may have to be held back."""

MAX_GRAMMAR_BYTES: Final = 2**16
"""The most bytes of a grammar or of a JSON Schema in UTF-8. A log holds it."""

MAX_TOP_LOGPROBS: Final = 20
"""The most likeliest tokens to report with a token, as other servers offer. Each one takes about 50 bytes of log."""

MAX_DEADLINE: Final = 10_000_000
"""The longest deadline in seconds: some 116 days, and more than a nanosecond clock below 2^53 can count."""

NUM_PREDICT_CONTEXTS: Final = 10
"""The most contexts that a request generates if it sets no limit: a model that repeats itself would never end."""

COPIED_CELLS_PER_ROW: Final = 256
"""The count of cells, in the copy of a whole slot, that take as long as one row of a prefill, at least. On SmolLM2 that
many take 0.1 to 0.8 rows, and more with a faster quantization (docs/llama-cpp.md section 3, ``make measure-copy``)."""

PICKED_CELL: Final = 2
"""The count of cells, in the copy of a whole slot, that take as long as one cell that is picked out. So cells are
picked out if they are less than half of the slot."""

MAX_CHAT_INPUTS: Final = 2**20
"""The most inputs of all chats that a runtime remembers, the latest answered ones: some 40 MB. A forgotten chat is
tokenized again."""

MAX_SLOTS: Final = 256
"""The most sequences that are evaluated together: llama.cpp's LLAMA_MAX_SEQ."""

MAX_CELLS: Final = 2**31
"""The most cells of all slots together: llama.cpp counts them in 32 bits."""

MAX_BATCH: Final = 2**16
"""The most rows of one batch as a setting. If texts are pooled, a batch holds a whole context, which may be more."""

MAX_THREADS: Final = 512
"""The most threads that compute: ggml's GGML_MAX_N_THREADS."""

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer in a log; every JSON reader keeps integers up to it exact."""

BEYOND_CONTEXT: Final = "the context of a sequence (n_ctx) holds"
"""The words in the reason of every refusal because of a context that is too short, by which it is known."""


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
