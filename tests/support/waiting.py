"""Waits for a condition. A test that waits does not depend on the speed of the machine."""

import time
from collections.abc import Callable

#: Seconds for anything that usually takes a few: a busy machine is slow.
TIMEOUT = 400.0
POLL_INTERVAL = 0.1


def wait_until(condition: Callable[[], object], what: Callable[[], str] | str, timeout: float = TIMEOUT) -> None:
    """Poll a condition until it is true.

    :param what: what is waited for, or a function that returns it, for the message of a failure.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what if isinstance(what, str) else what()}"
        time.sleep(POLL_INTERVAL)
