"""What the modules of the command share: the Airflow connection's id, exit statuses, and the errors that end it."""

from __future__ import annotations

CONNECTION_ID = "modelarts_default"
SUCCESS, FAILURE, USAGE = 0, 1, 2


class UsageError(Exception):
    """The arguments or the DAG file are wrong; the message says what to do instead."""


class Interrupted(KeyboardInterrupt):
    """A signal ends the command."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
