"""The faults that wait for calls, and the methods with which tests add them."""

from __future__ import annotations

import threading
from email.utils import formatdate
from typing import Any, TypeVar

from airflow_modelarts.testing.emulator.control.faults import (
    AnswerInstead,
    CutOff,
    Fault,
    Hold,
    LimitRate,
    Malformed,
    MalformedKind,
    Refuse,
    Reset,
    Slow,
    When,
)

FaultT = TypeVar("FaultT", bound=Fault)


class Faults:
    """The faults that wait for calls. At most one applies to a call: the one that was added first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: FaultT) -> FaultT:
        """Add a fault, and return it."""
        with self._lock:
            self._faults = [*(other for other in self._faults if not other.is_over), fault]
        return fault

    def remove(self, fault: Fault) -> None:
        """Remove a fault, and drop the calls that it holds."""
        fault.cancel()
        with self._lock:
            self._faults = [other for other in self._faults if other is not fault]

    def clear(self) -> None:
        """Remove all faults, and drop the calls that they hold."""
        with self._lock:
            known, self._faults = self._faults, []
        for fault in known:
            fault.cancel()

    def drop_held(self) -> None:
        """Drop all held calls; faults that wait for calls stay."""
        for fault in self.all():
            if fault.hits:
                fault.cancel()

    def all(self) -> list[Fault]:
        """Return the faults that wait for calls or hold some."""
        with self._lock:
            return [fault for fault in self._faults if not fault.is_over]

    def take(self, method: str, path: str, operation: str | None) -> Fault | None:
        """Return the fault that applies to a call, None when there is none."""
        with self._lock:
            for fault in self._faults:
                if fault.times == 0 or fault.is_over or not fault.matches(method, path, operation):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                elif fault.applies():
                    fault.hits += 1
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    # Shorthands; ``match`` has the fields of Fault: times, skip, method, path, operation

    def throttle(self, times: int | None = 1, *, retry_after: int | str | None = None, **match: Any) -> Refuse:
        """Answer HTTP 429; ``retry_after`` is in seconds or an HTTP date."""
        return self.add(Refuse(kind="throttle", retry_after=retry_after, times=times, **match))

    def throttle_until(self, end: float, times: int | None = 1, **match: Any) -> Refuse:
        """Answer HTTP 429 with a date in ``Retry-After``; ``end`` is in seconds since the epoch."""
        return self.throttle(times, retry_after=formatdate(end, usegmt=True), **match)

    def limit_rate(self, rate: float, burst: int = 1, **fields: Any) -> LimitRate:
        """Answer HTTP 429 to calls that exceed ``rate`` a second; ``fields`` has those of :class:`LimitRate` too."""
        return self.add(LimitRate(rate=rate, burst=burst, **fields))

    def answer(
        self, status: int, body: bytes | str = b"", headers: dict[str, str] | None = None, **match: Any
    ) -> AnswerInstead:
        """Answer without calling the service."""
        return self.add(AnswerInstead(status=status, body=body, headers=headers or {}, **match))

    def refuse(self, code: str, message: str | None = None, *, status: int | None = None, **match: Any) -> Refuse:
        """Answer with a code of the contract, and by default with its meaning and HTTP status."""
        return self.add(Refuse(code=code, message=message, status=status, **match))

    def expire_token(self, **match: Any) -> Refuse:
        """Answer as to an expired token."""
        return self.add(Refuse(kind="expired_token", **match))

    def redirect(self, location: str, **match: Any) -> AnswerInstead:
        """Redirect to another URL."""
        return self.add(AnswerInstead(kind="redirect", location=location, **match))

    def slow(self, seconds: float, **match: Any) -> Slow:
        """Delay the response."""
        return self.add(Slow(seconds=seconds, **match))

    def trickle(self, bytes_per_second: float, **match: Any) -> Slow:
        """Send the response's body at a limited rate."""
        return self.add(Slow(bytes_per_second=bytes_per_second, **match))

    def hold(self, when: When = "before", **match: Any) -> Hold:
        """Hold the call until it is released, before or after the service acts."""
        return self.add(Hold(when=when, **match))

    def cut_off(self, body_bytes: int = 10, **match: Any) -> CutOff:
        """Send the beginning of the response, then close the connection."""
        return self.add(CutOff(body_bytes=body_bytes, **match))

    def reset(self, when: When = "before", **match: Any) -> Reset:
        """Reset the connection, before or after the service acts."""
        return self.add(Reset(when=when, **match))

    def malformed(self, form: MalformedKind = "html", **match: Any) -> Malformed:
        """Answer HTTP 200 with a body that is not the operation's JSON."""
        return self.add(Malformed(form=form, **match))
