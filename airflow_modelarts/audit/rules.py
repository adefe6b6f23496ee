"""The rules of an audit, as DAG authors write them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from airflow_modelarts.api.places import obs_uri

_NUMBERS = ("failures_allowed", "longest_seconds", "stuck_after_seconds")


@dataclass(frozen=True, kw_only=True)
class AuditRules:
    """
    The rules that tasks must comply with. A rule that is None is not checked.

    :param failures_allowed: how many tasks may have failed, default 0.
    :param longest_seconds: the longest ``duration_seconds`` of a task, default unlimited.
    :param stuck_after_seconds: how many seconds a task may be initialized or running, default unlimited.
    :param allowed_output_prefixes: the folders in OBS, or whole buckets, below which tasks may write, such as
        ``obs://bucket/team``. A prefix matches whole folder names: ``obs://bucket/team-2`` is not below it. Default
        anywhere. Outputs in datasets are not checked.
    :param outputs_required: whether a completed task must name an output, default true. Feature analyses are exempt,
        since their output is their result.
    :raises ValueError: a prefix is no place in OBS, or a number is negative or not a number.
    """

    failures_allowed: int | None = 0
    longest_seconds: float | None = None
    stuck_after_seconds: float | None = None
    allowed_output_prefixes: Sequence[str] | None = None
    outputs_required: bool = True

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and 0 <= value < math.inf):
                raise ValueError(f"{name} is {value!r}: give a number that is not negative, or None")
        if not isinstance(self.outputs_required, bool):
            raise ValueError(f"outputs_required is {self.outputs_required!r}: give True or False")
        if self.allowed_output_prefixes is not None:
            prefixes = self.allowed_output_prefixes
            listed = [prefixes] if isinstance(prefixes, str) else prefixes
            object.__setattr__(self, "allowed_output_prefixes", tuple(map(_read_prefix, listed)))

    @classmethod
    def from_mapping(cls, rules: Mapping[str, Any]) -> Self:
        """
        Read rules by name; numbers may be text, as templates render them.

        :raises ValueError: a name is unknown, or a value is invalid.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(rules) - set(known)):
            raise ValueError(f"unknown audit rule {', '.join(unknown)}: the rules are {', '.join(known)}")
        return cls(**{name: _read_number(value) if name in _NUMBERS else value for name, value in rules.items()})

    def is_checked(self, rule: str) -> bool:
        """Return whether a rule is checked."""
        value = getattr(self, rule)
        return value is not None and value is not False

    def to_json(self) -> dict[str, Any]:
        """Return the rules by name, the places in OBS as URIs."""
        prefixes = self.allowed_output_prefixes
        return {**asdict(self), "allowed_output_prefixes": None if prefixes is None else list(prefixes)}


def _read_number(value: Any) -> Any:
    """Read a number from text. The constructor rejects what is not a number."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _read_prefix(place: str) -> str:
    uri = obs_uri(place, is_in_obs=True)
    if uri is None:
        raise ValueError(f"allowed_output_prefixes has {place!r}: write places in OBS as obs://bucket/folder")
    return uri
