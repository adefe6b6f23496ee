"""Types of the fields that the control API reads. It checks their limits; Python code may exceed them."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

#: Seconds in ten years: longer than any test, and every date stays in the range of ``datetime``.
MAX_SECONDS = 10.0 * 365 * 24 * 3600

Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10_000_000)]
Name = Annotated[str, Field(min_length=1, max_length=1024)]


class StrictFields:
    """Base of the dataclasses that the control API reads: it refuses an unknown field."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
