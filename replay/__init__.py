"""Replay: the same actors, driven by the file.

`replay_log` runs today's actors on the given events of a log and compares every derived event with the recorded one.
Nothing here imports trio or llama.cpp.
"""

from reenact.replay.decide import replay_log
from reenact.replay.divergence import Divergence, ReplayDivergence
from reenact.replay.verdict import Tally, Verdict

__all__ = ["Divergence", "ReplayDivergence", "Tally", "Verdict", "replay_log"]
