"""The log of requests to the emulated service, for tests that count them."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass

#: Requests kept; older ones are still counted.
KEPT = 100_000


@dataclass
class LoggedRequest:
    """A request to ModelArts or IAM, without headers and body, since they carry credentials.

    :param time: arrival, in seconds since the epoch.
    :param operation: the API operation's name; None when the path is not an operation's.
    :param status: HTTP status; None until a complete response has been sent.
    :param error_code: the code of an error; None for a success, and for an answer without a code.
    :param fault: the kind of fault that was applied; None for none.
    """

    time: float
    method: str
    path: str
    query: str
    operation: str | None
    request_id: str
    status: int | None = None
    error_code: str | None = None
    fault: str | None = None


class RequestLog:
    """The requests, oldest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Remove all entries and counts."""
        with self._lock:
            self._entries: deque[LoggedRequest] = deque(maxlen=KEPT)
            self._counts: Counter[str | None] = Counter()
            self._refusals: dict[str | None, Counter[str]] = {}

    def add(self, entry: LoggedRequest) -> None:
        """Add a request at its arrival; its status is set later."""
        with self._lock:
            self._entries.append(entry)
            self._counts[entry.operation] += 1

    def answered(self, entry: LoggedRequest, status: int) -> None:
        """Set the status of a request, and count a refusal: any status from 400."""
        entry.status = status
        if status >= 400:
            with self._lock:
                self._refusals.setdefault(entry.operation, Counter())[entry.error_code or f"HTTP {status}"] += 1

    def entries(self, operation: str | None = None) -> list[LoggedRequest]:
        """Return the requests of one operation, or of all."""
        with self._lock:
            return [entry for entry in self._entries if operation in (None, entry.operation)]

    def count(self, operation: str | None = None) -> int:
        """Count the requests of one operation, or of all."""
        with self._lock:
            return self._counts.total() if operation is None else self._counts[operation]

    def counts(self) -> dict[str, int]:
        """Count the requests by operation; ``unknown`` counts those whose path is not an operation's."""
        with self._lock:
            return {operation or "unknown": count for operation, count in self._counts.items()}

    def refusals(self, operation: str | None = None) -> Counter[str]:
        """Count the refused requests of one operation, or of all, by error code; without a code by HTTP status."""
        with self._lock:
            counted = (counts for name, counts in self._refusals.items() if operation in (None, name))
            return sum(counted, Counter())

    def refusals_by_operation(self) -> dict[str, dict[str, int]]:
        """Count the refused requests by operation, and by error code or HTTP status."""
        with self._lock:
            return {operation or "unknown": dict(counts) for operation, counts in self._refusals.items()}
