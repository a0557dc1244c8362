"""Decides everything that a session decides: the core, without input or output.

Everything here is synchronous and pure. A fact from outside enters as a given event; the actors compute its
consequences, which are the same live, in a replay and in a test. No module of this package may use a clock, a random
number, a file, a thread or an iteration order that Python does not promise.

Reading order: ``events`` (all that can happen), ``routing`` (the receivers of each event), ``kernel`` (the processing
of one fact), ``sequence`` and ``batcher`` (the actors' decisions), then their rules: ``text`` and ``window``, and
``slots``, ``inputs``, ``schedule`` and ``batch``. ``options`` holds the options of a request, ``metrics`` the figures
of a session.
"""
