"""Time that is left of counted steps."""

from collections.abc import Iterator

import pytest

from tasks import progress
from tasks.progress import Bar, Pace


class Clock:
    """Clock that a test sets, in place of `time.monotonic` of the module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    return Clock(monkeypatch)


def told(pace: Pace, clock: Clock, *steps: tuple[float, int], total: int = 100) -> list[float | None]:
    """Return the time left that is told at seconds since the start, when so many steps are done."""
    found = []
    for at, done in steps:
        clock.now = 1000.0 + at
        found.append(pace.seconds_left(done, total))
    return found


def test_the_start_of_workers_is_no_pace(clock: Clock) -> None:
    left = told(Pace(), clock, (60.0, 1), (62.0, 2), (64.0, 3), (250.0, 96), (252.0, 97))
    assert left[:3] == [None, 2.0 * 98, 2.0 * 97]
    assert left[4] == pytest.approx(2.0 * 3, rel=0.05)


def test_nothing_is_told_before_a_second_of_steps(clock: Clock) -> None:
    assert told(Pace(), clock, (30.0, 1), (30.01, 2), (30.02, 3)) == [None, None, None]
    # Two workers that end together count as the two steps that they are.
    assert told(Pace(), clock, (30.0, 1), (30.01, 2), (40.0, 3)) == [None, None, 5.0 * 97]


def test_steps_of_an_earlier_attempt_are_no_pace(clock: Clock) -> None:
    assert told(Pace(500), clock, (5.0, 500), (60.0, 510), (80.0, 520), total=1000) == [None, None, 2.0 * 480]


def test_a_pace_that_changes_is_followed_and_a_single_slow_step_hardly_counts(clock: Clock) -> None:
    pace, steps = Pace(), [(float(second), second) for second in range(1, 400)]
    told(pace, clock, *steps, total=1000)
    slow = [(400.0 + 3 * number, 400 + number) for number in range(1, 61)]
    assert told(pace, clock, slow[0], total=1000)[0] == pytest.approx(1.03 * 599, rel=0.02)
    assert told(pace, clock, *slow[1:], total=1000)[-1] == pytest.approx(3.0 * 540, rel=0.02)


def test_a_report_without_a_new_step_changes_nothing(clock: Clock) -> None:
    pace = Pace()
    assert told(pace, clock, (10.0, 1), (20.0, 2), (29.0, 2)) == [None, 980.0, 980.0]


def test_each_kind_of_steps_has_its_own_pace_and_a_first_kind_tells_nothing_of_a_second(clock: Clock) -> None:
    pace, found = Pace(), []
    for at, done in ((10.0, 50), (20.0, 100), (30.0, 150), (35.0, 151), (43.0, 153)):
        clock.now = 1000.0 + at
        found.append(pace.seconds_left(done, 160, until=150 if done < 150 else None))
    assert found == [None, None, None, 5.0 * 9, pytest.approx(13 / 3 * 7)]


def test_a_training_and_an_evaluation_say_where_their_dearer_steps_begin(clock: Clock) -> None:
    bar = Bar(total=4, until=2, mininterval=0, disable=True)
    for at in (2.0, 4.0, 9.0, 14.0):
        clock.now = 1000.0 + at
        bar.n += 1
        rate = bar.format_dict["rate"]
        assert rate == (pytest.approx(1 / 5.0) if bar.n > 2 else 0.0)


def test_the_bar_of_a_terminal_tells_the_same(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar(total=100, desc="align", mininterval=0, initial=0)
    for at in (60.0, 62.0, 64.0):  # a minute passes before the first
        clock.now = 1000.0 + at
        bar.update()
    bar.close()
    lines = capsys.readouterr().err.split("\r")
    (one,) = {line.split("<")[1].split(",")[0] for line in lines if " 1/100 " in line}
    assert one == "?"
    assert [line.split("<")[1].split(",")[0] for line in lines if " 3/100 " in line][-1] == "03:14"
