"""The fixtures of these tests, see ``tests/support``."""

from tests.support.worker_credentials import worker  # noqa: F401
