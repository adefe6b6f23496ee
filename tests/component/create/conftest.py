"""The fixtures of these tests, see ``tests/support``."""

from tests.support.create import original, server  # noqa: F401
