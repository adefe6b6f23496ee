"""Waits for a condition. A test that waits does not depend on the speed of the machine."""

import time
from collections.abc import Callable

#: Seconds for anything that usually takes a few: a busy machine is slow.
TIMEOUT = 400.0
POLL_INTERVAL = 0.1
#: A condition may ask a server of Airflow. After some seconds it is asked less often, which leaves the CPU to Airflow.
LONGEST_POLL_INTERVAL = 0.5


def wait_until(condition: Callable[[], object], what: Callable[[], str] | str, timeout: float = TIMEOUT) -> None:
    """Poll a condition until it is true.

    :param what: what is waited for, or a function that returns it, for the message of a failure.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < timeout, f"not within {timeout:g} s: {what if isinstance(what, str) else what()}"
        time.sleep(min(max(waited / 10, POLL_INTERVAL), LONGEST_POLL_INTERVAL))
