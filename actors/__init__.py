"""The core: what a session decides, and nothing else.

Everything here is synchronous and pure. A fact from outside enters as a given event; what follows from it
is computed by the actors and is the same live, in a replay and in a test. No module of this package may
reach a clock, a random number, a file, a thread or an iteration order that Python does not promise.

Reading order: ``events`` (what can happen), ``routing`` (who hears of it), ``kernel`` (how a fact is worked off),
``sequence`` and ``batcher`` (what the actors decide), then their rules: ``text``, ``context``, ``vectors``, and
``slots``, ``inputs``, ``schedule``, ``outcomes``. ``options`` is what a caller may ask, ``metrics`` what a session
amounts to.
"""
