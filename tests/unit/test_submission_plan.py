"""The order of queued submissions, and what is known of the room at the service: no event loop, no clock, no sleep."""

import heapq
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_modelarts.api.capacity import MAX_DELAY
from airflow_modelarts.api.errors import ModelArtsBusyError, ModelArtsThrottledError
from airflow_modelarts.polling.submission_plan import MAX_FIRST_DELAY, TURN_DELAY, Room, SubmissionOrder


@dataclass(eq=False)
class Entry:
    priority: int
    queued_since: float
    template: str = ""


def limit(**fields: float) -> ModelArtsBusyError:
    return ModelArtsBusyError("full", error_code="ModelArts.4409", http_status=400, **fields)  # type: ignore[arg-type]  # seconds


def throttled(retry_after: float | None = None) -> ModelArtsThrottledError:
    return ModelArtsThrottledError("slow down", http_status=429, retry_after=retry_after)


def middle() -> float:
    """Draw what makes a jitter of 0.8 to 1.2 times a delay exactly once the delay."""
    return 0.5


def queue(entries: Iterable[tuple[int, float]]) -> tuple[SubmissionOrder[Entry], list[Entry]]:
    order: SubmissionOrder[Entry] = SubmissionOrder()
    made = [Entry(priority, since) for priority, since in entries]
    for entry in made:
        order.add(entry)
    return order, made


def drain(order: SubmissionOrder[Entry]) -> list[Entry]:
    left = []
    while (head := order.head(0.0)) is not None:
        order.remove(head, is_submitted=True)
        left.append(head)
    return left


# The order


def test_entries_of_one_priority_are_submitted_by_arrival() -> None:
    order, (second, first, third) = queue([(1, 20.0), (1, 10.0), (1, 20.0)])
    assert drain(order) == [first, second, third]


def test_a_higher_priority_is_submitted_first() -> None:
    order, (low, high, middle) = queue([(1, 1.0), (9, 3.0), (5, 2.0)])
    assert drain(order) == [high, middle, low]


def test_a_higher_priority_that_joins_later_passes_a_head_that_was_refused() -> None:
    order, (low,) = queue([(1, 1.0)])
    assert order.head(0.0) is low
    order.add(high := Entry(2, 5.0))
    assert order.head(0.0) is high


def test_every_tenth_submission_is_the_one_that_has_waited_longest() -> None:
    order, made = queue([(1, 0.0), (1, 1.0), *((9, 2.0) for _ in range(30))])
    left = drain(order)
    assert (left.index(made[0]), left.index(made[1])) == (9, 19)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=60), st.data())
def test_no_entry_starves_while_entries_of_a_higher_priority_keep_joining(
    priorities: list[int], data: st.DataObject
) -> None:
    order, made = queue((priority, float(number)) for number, priority in enumerate(priorities))
    waiting = data.draw(st.sampled_from(made))
    older = made.index(waiting)
    for submissions in range(10 * (older + 1)):
        order.add(Entry(100, 1000.0 + submissions))
        head = order.head(0.0)
        assert head is not None
        order.remove(head, is_submitted=True)
        if head is waiting:
            return
    raise AssertionError("it did not submit")


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), max_size=40), st.randoms(use_true_random=False))
def test_each_entry_is_submitted_once_whatever_leaves(given_: list[tuple[int, int]], chance: random.Random) -> None:
    order, made = queue((priority, float(since)) for priority, since in given_)
    gone = [entry for entry in made if chance.random() < 0.3]
    assert all(order.remove(entry) for entry in gone)
    assert not any(order.remove(entry) for entry in gone)
    left = drain(order)
    assert {*left, *gone} == {*made}
    assert len(left) == len(made) - len(gone)
    assert len(order) == 0


def test_the_position_counts_those_that_come_before() -> None:
    order, (first, second, urgent) = queue([(1, 1.0), (1, 2.0), (9, 3.0)])
    assert [order.position(entry) for entry in (urgent, first, second)] == [1, 2, 3]
    assert list(order) == [urgent, first, second]


def test_a_postponed_entry_lets_the_others_pass_and_returns_to_its_place() -> None:
    order, (first, second) = queue([(1, 1.0), (1, 2.0)])
    order.postpone(first, until=30.0)
    assert (order.head(29.0), order.next_due(), len(order)) == (second, 30.0, 2)
    assert order.head(30.0) is first


def test_a_postponed_entry_can_leave() -> None:
    order, (first,) = queue([(1, 1.0)])
    order.postpone(first, until=30.0)
    assert order.head(0.0) is None
    assert order.remove(first)
    order.postpone(first, until=60.0)  # it was being submitted when it left
    assert len(order) == 0
    assert order.head(100.0) is None


def test_a_template_that_is_held_lets_the_others_pass_in_their_order() -> None:
    order: SubmissionOrder[Entry] = SubmissionOrder()
    limited, urgent, other = Entry(9, 1.0, "a"), Entry(5, 3.0, "b"), Entry(1, 2.0, "c")
    for entry in (limited, urgent, other):
        order.add(entry)
    order.hold("a", until=30.0)
    assert (order.head(29.0), order.next_due()) == (urgent, 30.0)
    order.hold("b", until=40.0)
    assert order.head(29.0) is other
    order.release("b")
    assert order.head(29.0) is urgent
    assert order.head(30.0) is limited
    order.hold("a", until=60.0)
    order.release()
    assert order.head(31.0) is limited


# The room at the service


def test_without_a_refusal_all_submit_at_once() -> None:
    room = Room(middle)
    for _ in range(3):
        assert room.next_attempt <= 0.0
        room.accepted(0.0)


def test_the_delays_at_a_limit_double_up_to_a_minute() -> None:
    room, now, delays = Room(middle), 0.0, []
    for _ in range(9):
        room.refused(limit(), now)
        delays.append(room.next_attempt - now)
        now = room.next_attempt
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, MAX_DELAY, MAX_DELAY, MAX_DELAY]


def test_the_delays_are_spread() -> None:
    longest, shortest = Room(lambda: 1.0), Room(lambda: 0.0)
    for room in (longest, shortest):
        room.refused(limit(), 0.0)
    assert (longest.next_attempt, shortest.next_attempt) == (pytest.approx(1.2), pytest.approx(0.8))


@pytest.mark.parametrize(("asked", "waited"), [(45.0, 45.0), (0.1, 1.0), (100_000.0, 300.0)])
@pytest.mark.parametrize("refusal", [limit, throttled])
def test_a_longer_retry_after_is_honoured(refusal: type, asked: float, waited: float) -> None:
    room = Room(middle)
    room.refused(refusal(retry_after=asked), 0.0)
    assert room.next_attempt == waited


def test_an_attempt_that_succeeds_resets_the_delays_and_lets_the_next_entry_try_at_once() -> None:
    room = Room(middle)
    for _ in range(5):
        room.refused(limit(), 0.0)
    room.accepted(100.0)
    assert (room.next_attempt <= 100.0, room.is_full) == (True, False)
    room.refused(limit(), 100.0)
    assert room.next_attempt == 101.0


def test_each_end_at_a_limit_allows_one_submission_without_a_pause() -> None:
    room = Room(middle)
    room.refused(limit(), 0.0)
    for _ in range(3):
        room.ended()
    submitted = 0
    while room.next_attempt <= 0.5:
        room.accepted(0.5)
        submitted += 1
    assert submitted == 3
    assert room.is_full
    assert room.next_attempt == 1.5


def test_ends_before_a_limit_is_known_free_no_place() -> None:
    room = Room(middle)
    room.ended()
    room.refused(limit(), 0.0)
    assert (room.free, room.next_attempt) == (0, 1.0)


def test_a_refusal_shows_that_others_have_taken_the_free_places() -> None:
    room = Room(middle)
    room.refused(limit(), 0.0)
    room.ended()
    room.ended()
    room.refused(limit(), 10.0)
    assert (room.free, room.next_attempt) == (0, 12.0)


def test_throttling_delays_the_next_attempt_and_leaves_the_free_places() -> None:
    room = Room(middle)
    room.refused(limit(), 0.0)
    room.ended()
    room.refused(throttled(7.0), 10.0)
    assert (room.free, room.next_attempt) == (1, 17.0)


def test_throttling_is_no_limit() -> None:
    room = Room(middle)
    room.refused(throttled(), 0.0)
    assert not room.is_full
    room.accepted(1.0)
    assert room.next_attempt <= 1.0


@pytest.mark.parametrize(("poll_interval", "delay"), [(None, 1.0), (0.1, 1.0), (4.0, 6.0), (600.0, MAX_FIRST_DELAY)])
def test_own_waits_make_the_first_delay_longer(poll_interval: float | None, delay: float) -> None:
    room = Room(middle)
    room.expect_ends(poll_interval)
    room.refused(limit(), 0.0)
    assert room.next_attempt == delay


# Extra polls at a limit


def polled(room: Room, count: int, requests: int = 2) -> list[float]:
    """Return the delays of so many extra polls in a row."""
    delays, now = [], 0.0
    for _ in range(count):
        delays.append(room.next_poll - now)
        now = room.next_poll
        room.polled(requests, now)
    return delays


def test_extra_polls_at_a_limit_get_rarer_until_the_own_polls_are_soon_enough() -> None:
    room = Room(middle)
    room.poll_interval = 4.0
    assert room.next_poll == math.inf
    room.refused(limit(), 0.0)
    assert polled(room, 4) == [1.0, 1.5, 2.25, 3.375]
    assert room.next_poll == math.inf


def test_extra_polls_come_sooner_again_after_an_end_and_stop_while_a_place_is_free() -> None:
    room = Room(middle)
    room.refused(limit(), 0.0)
    polled(room, 3)
    room.ended()
    room.ended()
    assert room.next_poll == math.inf
    room.accepted(5.0)
    room.accepted(5.0)
    assert room.next_poll == 5.0 + 1.5


def test_extra_polls_that_take_many_requests_are_rarer() -> None:
    room = Room(middle)
    room.refused(limit(), 0.0)
    assert polled(room, 3, requests=20) == [1.0, 10.0, 15.0]


def test_throttling_alone_causes_no_extra_polls() -> None:
    room = Room(middle)
    room.refused(throttled(), 0.0)
    assert room.next_poll == math.inf


# Turns, after which a worker submits


def test_turns_are_spaced_while_no_limit_is_known() -> None:
    room = Room(middle)
    room.turn_given(10.0)
    assert room.next_attempt == 10.0 + TURN_DELAY


def test_a_turn_takes_a_free_place() -> None:
    room = Room(middle)
    room.refused(limit(), 0.0)
    room.ended()
    room.turn_given(0.5)
    assert (room.free, room.next_attempt) == (0, 1.5)


def test_turns_without_a_free_place_get_rarer() -> None:
    room, now, delays = Room(middle), 0.0, []
    room.turn_refused(limit(), now)
    for _ in range(4):
        now = room.next_attempt
        room.turn_given(now)
        delays.append(room.next_attempt - now)
    assert delays == [2.0, 4.0, 8.0, 16.0]


def test_an_accepted_turn_without_a_known_place_shows_that_there_are_more() -> None:
    room = Room(middle)
    for now in (0.0, 10.0, 20.0):
        room.turn_given(now)
        room.turn_refused(limit(), now)
    room.turn_given(60.0)
    room.turn_accepted()
    assert (room.is_full, room.next_attempt <= 60.0) == (False, True)
    room.turn_refused(limit(), 61.0)
    assert room.next_attempt == 62.0


def test_an_accepted_turn_that_took_a_free_place_shows_nothing() -> None:
    room = Room(middle)
    room.turn_refused(limit(), 0.0)
    room.ended()
    room.turn_given(0.5)
    room.turn_accepted()
    assert (room.is_full, room.next_attempt) == (True, 1.5)


def test_a_refused_turn_shows_that_the_service_is_full() -> None:
    room = Room(middle)
    room.turn_refused(limit(), 5.0)
    assert (room.is_full, room.free, room.next_attempt) == (True, 0, 6.0)
    room.ended()
    assert room.next_attempt <= 5.0


# A fan-out


@pytest.mark.parametrize("poll_interval", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("arrivals_per_second", [4.0, 1000.0])
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_two_hundred_tasks_at_a_limit_of_ten_are_refused_seldom_and_end_in_time(
    poll_interval: float, arrivals_per_second: float, spread: float
) -> None:
    chance = random.Random(7)
    room, order = Room(chance.random), SubmissionOrder[Entry]()
    arrivals = [number / arrivals_per_second for number in range(200)]
    running: list[float] = []  # when each task ends
    unnoticed: list[float] = []  # when the poll sees the end
    now, refusals, submitted, last_end = 0.0, 0, 0, 0.0
    while submitted < 200:
        while arrivals and arrivals[0] <= now:
            order.add(Entry(1, arrivals.pop(0)))
        while running and running[0] <= now:
            heapq.heappop(running)
        while unnoticed and unnoticed[0] <= now:
            heapq.heappop(unnoticed)
            room.ended()
        head = order.head(now)
        if head is None or room.next_attempt > now:
            at = [*unnoticed[:1], *arrivals[:1], *([] if head is None else [room.next_attempt])]
            now = max(now, min(at))
            continue
        room.expect_ends(poll_interval if unnoticed else None)
        now += 0.02  # a request
        while running and running[0] <= now:
            heapq.heappop(running)
        if len(running) >= 10:
            refusals += 1
            room.refused(limit(), now)
            continue
        room.accepted(now)
        order.remove(head, is_submitted=True)
        submitted += 1
        end = now + 5.0 * (1 + spread * (chance.random() - 0.5))
        heapq.heappush(running, end)
        heapq.heappush(unnoticed, (end // poll_interval + 1) * poll_interval)
        last_end = max(last_end, end)
    assert refusals <= 0.5 * 200
    assert last_end <= 1.25 * 100 + (20 if poll_interval > 1 else 0)
