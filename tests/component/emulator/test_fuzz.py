"""A short run of the fuzzing of ``tests/security``: every request gets a valid answer of the emulator, never a 500."""

from tests.security import fuzz
from tests.security.emulated import Emulated


def test_any_request_gets_an_answer_of_the_service() -> None:
    with Emulated() as emulated:
        tally = fuzz.run("requests", fuzz.requests_of(emulated), 2_000, 1)
    assert {"200", "201", "400", "401", "403", "404", "422"} <= set(tally.outcomes)
