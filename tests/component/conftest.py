"""The fixtures of these tests, see ``tests/support``."""

from tests.support.fixtures import *  # noqa: F403
from tests.support.loopback import carry_out, certificate, serve  # noqa: F401
from tests.support.sensor_modes import simulation  # noqa: F401
