"""The fixtures of these tests, see ``tests/support``."""

from tests.support.fixtures import (  # noqa: F401
    emulator,
    no_grant_is_left_over,
    no_rate_is_left_over,
    pauses,
    said,
    server,
    set_connection,
    usual_connection,
)
from tests.support.sensor_modes import simulation  # noqa: F401
