"""Replay: the same actors, driven by the file.

`replay_log` runs today's actors on the given events of a log and compares every derived event with the recorded one.
Nothing here imports trio or llama.cpp.
"""

from reenact.replay.decide import Verdict, replay_log
from reenact.replay.divergence import Divergence, ReplayDivergence

__all__ = ["Divergence", "ReplayDivergence", "Verdict", "replay_log"]
