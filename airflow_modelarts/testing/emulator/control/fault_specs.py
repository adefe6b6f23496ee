"""Faults as the control API takes and shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

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

#: What may stand in an HTTP header.
HeaderText = Annotated[str, Field(pattern=r"^[\x20-\x7e]*$", max_length=4096)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$", max_length=128)]
Status = Annotated[int, Field(ge=200, le=599)]


class FaultSpec(BaseModel):
    """
    A fault for the next calls that match; each kind reads the fields that are its own.

    - ``throttle``: 429, with ``retry_after``
    - ``limit_rate``: 429 to calls that come faster than ``rate`` a second after a ``burst``, with ``retry_after``,
      ``status``, ``message``; without ``times`` it lasts until it is removed
    - ``refuse``: one of the contract's codes, with ``code``, ``message``, ``status``, ``retry_after``
    - ``expired_token``: 401 as for a token that has expired
    - ``answer``: ``status``, ``body``, ``headers``
    - ``redirect``: to ``location``
    - ``slow``: ``seconds`` before the answer, ``bytes_per_second`` of its body
    - ``hold``: ``when``; until it is released or dropped. A black hole is one that never is
    - ``cut_off``: after ``body_bytes``
    - ``reset``: ``when``
    - ``malformed``: ``form``
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal[
        "throttle",
        "limit_rate",
        "refuse",
        "expired_token",
        "answer",
        "redirect",
        "slow",
        "hold",
        "cut_off",
        "reset",
        "malformed",
    ]
    times: Annotated[int, Field(ge=1)] | None = 1
    skip: Annotated[int, Field(ge=0)] = 0
    method: str | None = None
    path: str | None = None
    operation: str | None = None

    code: str = "ModelArts.0101"
    message: str | None = None
    status: Status | None = None
    retry_after: Annotated[int, Field(ge=0)] | HeaderText | None = None
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    burst: Annotated[int, Field(ge=1)] = 1
    body: str = ""
    headers: dict[HeaderName, HeaderText] = {}
    location: HeaderText = "http://emulator.invalid/"
    seconds: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = 0.0
    bytes_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    when: When = "before"
    body_bytes: Annotated[int, Field(ge=0)] = 10
    form: MalformedKind = "html"

    def to_fault(self) -> Fault:
        """Return the fault that is ordered."""
        fault = self._fault()
        if self.kind != "limit_rate" or "times" in self.model_fields_set:
            fault.times = self.times
        fault.skip = self.skip
        fault.method, fault.path, fault.operation = self.method, self.path, self.operation
        return fault

    def _fault(self) -> Fault:
        retry_after = None if self.retry_after is None else str(self.retry_after)
        match self.kind:
            case "throttle":
                return Refuse(code="APIGW.0308", retry_after=retry_after)
            case "limit_rate":
                return LimitRate(
                    rate=self.rate,
                    burst=self.burst,
                    message=self.message,
                    status=self.status,
                    retry_after=retry_after,
                )
            case "refuse":
                return Refuse(code=self.code, message=self.message, status=self.status, retry_after=retry_after)
            case "expired_token":
                return Refuse.expired_token()
            case "answer":
                body = self.body.encode("utf-8", "surrogatepass")
                return AnswerInstead(status=self.status or 200, body=body, headers=dict(self.headers))
            case "redirect":
                return AnswerInstead(status=self.status or 307, headers={"Location": self.location})
            case "slow":
                return Slow(seconds=self.seconds, bytes_per_second=self.bytes_per_second)
            case "hold":
                return Hold(when=self.when)
            case "cut_off":
                return CutOff(body_bytes=self.body_bytes)
            case "reset":
                return Reset(when=self.when)
            case "malformed":
                return Malformed(form=self.form)


class FaultSeen(BaseModel):
    """A fault, how many calls it still waits for, and how many it has met."""

    fault_id: int
    kind: str
    times: int | None
    hits: int
    method: str | None
    path: str | None
    operation: str | None


def fault_seen(fault: Fault) -> FaultSeen:
    """Show a fault."""
    return FaultSeen(
        fault_id=fault.fault_id,
        kind=fault.kind,
        times=fault.times,
        hits=fault.hits,
        method=fault.method,
        path=fault.path,
        operation=fault.operation,
    )
