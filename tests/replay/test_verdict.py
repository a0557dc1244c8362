from pathlib import Path

from reenact.actors import events as e
from reenact.actors.metrics import Metrics
from reenact.replay import replay_log
from reenact.runtime.log.reader import LogFile, entries
from tests.replay import logs


def figures(path: Path) -> dict[str, str]:
    """Return the figures of a log that replays the same."""
    verdict = replay_log(path)
    assert "same" == verdict.verdict
    return dict(verdict.tally.figures())


def test_figures(path: Path) -> None:
    """The figures say how the sequences ended, what was evaluated, how long one waited, and what a token costs."""
    size = logs.short(path).stat().st_size
    assert {
        "sequences": "2 (2 stop)",
        "prompt tokens": "12",
        "tokens": "6",
        "steps": "6",
        "rows per batch": "2.7 mean, 8 max",
        "sequences per batch": "1.2 mean, 2 max",
        "time to first token": "21 ms median, 40 ms p95",
        "time between tokens": "10.5 ms median, 30 ms p95",
        "tokens per second": "75.0",
        "session": "110 ms",
        "bytes of log per token": f"{size / 6:,.0f}",
    } == figures(path)


def test_what_happens_seldom(path: Path) -> None:
    """Truncated prompts, shifts, cached inputs, preemptions and aborted batches are among the figures if there are."""
    session = logs.Session(path, n_ctx=8, n_slots=1)
    session.request(inputs=10, num_predict=2)
    session.decode()
    session.decode()
    session.request(inputs=[1, 2, 3, 4], num_predict=3)
    session.decode()
    session.request(inputs=[1, 2, 3, 4, 5, 6, 7], priority=1)
    session.decode()
    session.cancel(3)
    session.decode(code=2, rows=4)
    session.decode()
    assert {
        "sequences": "3 (2 length, 1 cancelled)",
        "prompt tokens": "21 (4 of them cached)",
        "prompt tokens left out": "2",
        "context shifts": "1",
        "preemptions": "1",
        "aborted batches": "1",
    } == {name: figures(path)[name] for name in list(figures(path))[:2] + list(figures(path))[6:10]}


def test_a_fork(path: Path) -> None:
    """Inputs that were forked from another slot are cached ones, and the fork is counted."""
    session = logs.Session(path, n_ctx=128, n_batch=128)
    prompt = range(1, 101)
    session.request(inputs=prompt)
    session.decode()
    session.request(inputs=[*prompt[:80], 7])
    session.decode()
    session.decode()
    shown = figures(path)
    assert ("2 (2 not finished)", "181 (80 of them cached)", "1") == (
        shown["sequences"],
        shown["prompt tokens"],
        shown["forks"],
    )


def test_no_token_at_all(path: Path) -> None:
    """Where nothing was sampled there are no figures of tokens, and nothing is divided by nothing."""
    session = logs.Session(path, pooling="mean")
    session.request(embedding=True)
    session.decode()
    shown = figures(path)
    assert ["-"] * 3 == [shown[name] for name in ("time to first token", "tokens per second", "bytes of log per token")]
    nothing = logs.Session(path.with_name("nothing.jsonl"))
    nothing.close()
    assert ("0", "-") == (figures(nothing.path)["sequences"], figures(nothing.path)["rows per batch"])


def test_the_fold_is_the_one_of_the_runtime(path: Path) -> None:
    """The figures of a replay are those that the same fold gave while the session ran."""
    logs.short(path)
    live = Metrics()
    with LogFile(path) as log:
        for entry in entries(log):
            live.add(entry.record.event, entry.t)
    assert live.statistics() == replay_log(path).tally.statistics


def test_a_dropped_token_counts_and_has_no_time(path: Path) -> None:
    """A token that was sampled for a sequence that had ended counts as sampled; no reader waited for it."""
    session = logs.Session(path)
    session.request()
    session.give(e.CancelRequested(sequence=1))
    session.decode()
    shown = figures(path)
    assert ("1", "-") == (shown["tokens"], shown["time to first token"])
