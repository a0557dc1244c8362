"""A batch holds tokens or rows of numbers, never both, and the kinds take turns."""

from itertools import repeat

from reenact.actors import events as e
from reenact.actors.inputs import Input, Row, kind_of
from tests.helpers.driver import Driver

ENDLESS = repeat(b"a")
ROWS: tuple[Input, ...] = tuple(Row(str(n)) for n in range(12))


def batches(driver: Driver) -> list[tuple[str, list[int]]]:
    """Return of each batch the kind of its inputs and whose they are."""
    return [
        (kind_of(plan.parts[0].inputs[0]), [part.sequence for part in plan.parts])
        for plan in driver.events(e.BatchPlanned)
    ]


def test_a_prompt_of_both_kinds_is_cut_where_they_change() -> None:
    """Tokens, rows and tokens of one prompt go in three batches, and the token is sampled after the last."""
    driver = Driver()
    prompt: tuple[Input, ...] = (1, 2, *ROWS[:3], 3)
    driver.submit(b"x", prompt=prompt, num_predict=1)
    driver.run()
    parts = [part for plan in driver.events(e.BatchPlanned) for part in plan.parts]
    assert [((1, 2), None), (ROWS[:3], None), ((3,), 0)] == [(part.inputs, part.draw) for part in parts]
    assert (list(prompt), "x") == (driver.cells[0], driver.text(1))


def test_no_batch_holds_both_kinds() -> None:
    """Beside a prompt of rows another sequence's tokens have batches of their own."""
    driver = Driver(n_batch=4)
    driver.submit(script=ENDLESS, num_predict=6)
    driver.submit(b"x", prompt=ROWS)
    driver.run()
    kinds = [{kind_of(one) for part in plan.parts for one in part.inputs} for plan in driver.events(e.BatchPlanned)]
    assert {1} == {len(kind) for kind in kinds}
    assert ("aaaaaa", "x") == (driver.text(1), driver.text(2))


def test_the_kinds_take_turns() -> None:
    """While both kinds wait, a batch has the kind that the one before had not: neither holds the other up."""
    driver = Driver(n_batch=4)
    driver.submit(script=ENDLESS, num_predict=5)
    driver.submit(b"x", prompt=ROWS, num_predict=1)
    driver.run()
    token, row = ("token", [1]), ("row", [2])
    assert [token, row, token, row, token, row, token, token] == batches(driver)


def test_a_kind_without_the_other_has_every_batch() -> None:
    """Where only one kind waits there are no turns to take."""
    driver = Driver(n_batch=4)
    driver.submit(b"x", prompt=ROWS, num_predict=1)
    driver.run()
    assert [("row", [1])] * 3 == batches(driver)


def test_all_of_a_kind_go_together() -> None:
    """In the turn of the rows every sequence that waits for rows has some, shared like tokens."""
    driver = Driver(n_batch=6)
    first, second = driver.receive(prompt=ROWS), driver.receive(prompt=(*ROWS[:2], 7))
    driver.tokenize(second)
    driver.tokenize(first)
    plan = driver.events(e.BatchPlanned)[0]
    assert [(first, ROWS[:4]), (second, ROWS[:2])] == [(part.sequence, part.inputs) for part in plan.parts]
