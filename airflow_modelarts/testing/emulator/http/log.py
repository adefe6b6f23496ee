"""What requests the emulator has seen: for tests that count them, and for people who wonder."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass

#: Requests kept; older ones are still counted.
KEPT = 100_000


@dataclass
class RequestSeen:
    """
    A request to ModelArts or IAM, without its headers and body: those carry credentials.

    :param time: of its arrival, in seconds since the epoch.
    :param operation: the API operation's name; None for a path that is none's.
    :param status: what was answered; None while, or because, no complete answer has been sent.
    :param fault: the kind of fault it met; None for none.
    """

    time: float
    method: str
    path: str
    query: str
    operation: str | None
    request_id: str
    status: int | None = None
    fault: str | None = None


class RequestLog:
    """The requests seen, oldest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries: deque[RequestSeen] = deque(maxlen=KEPT)
            self._counts: Counter[str | None] = Counter()

    def add(self, entry: RequestSeen) -> None:
        """Note a request at its arrival; its status is filled in later."""
        with self._lock:
            self._entries.append(entry)
            self._counts[entry.operation] += 1

    def entries(self, operation: str | None = None) -> list[RequestSeen]:
        """Return the requests seen, of one operation or of all."""
        with self._lock:
            return [entry for entry in self._entries if operation in (None, entry.operation)]

    def count(self, operation: str | None = None) -> int:
        """Count the requests of one operation, or of all."""
        with self._lock:
            return self._counts.total() if operation is None else self._counts[operation]

    def counts(self) -> dict[str, int]:
        """Count the requests by operation; ``unknown`` are those to no operation's path."""
        with self._lock:
            return {operation or "unknown": count for operation, count in self._counts.items()}
