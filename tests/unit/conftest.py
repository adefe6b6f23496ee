"""The fixtures of these tests, see ``tests/support``."""

from tests.support.fixtures import *  # noqa: F403
