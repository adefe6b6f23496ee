"""The rules of an audit, as DAG authors write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Self

from airflow_modelarts.api.bodies import read_text
from airflow_modelarts.audit.rule_values import READERS, is_given

BY_TEMPLATE = "by_template"


@dataclass(frozen=True, kw_only=True)
class AuditRules:
    """The rules that tasks must comply with. A rule that is None is not checked.

    Each value may be text, as templates render it. An empty text is no value: the rule has its default. A duration is
    a number of seconds, a timedelta, or a text such as ``12h``, ``90 min`` or ``PT12H``.

    :param failures_allowed: how many tasks may have failed, default 0.
    :param failure_rate_allowed: the share of the ended tasks that may have failed, from 0 to 1, default unlimited.
    :param stopped_allowed: how many tasks may have been stopped, default unlimited.
    :param tasks_required: how many tasks must have been created, at least; default any number.
    :param longest_seconds: the longest ``duration_seconds`` of a task, default unlimited.
    :param stuck_after_seconds: how long a task may be initialized or running, default unlimited.
    :param allowed_output_prefixes: the folders in OBS, or whole buckets, below which tasks may write, such as
        ``obs://bucket/team``. A prefix matches whole folder names: ``obs://bucket/team-2`` is not below it. Default
        anywhere. Outputs in datasets are not checked.
    :param outputs_required: whether a completed task must name an output, default true. Feature analyses are exempt,
        since their output is their result.
    :param by_template: for the id of a template, the rules that its tasks have instead, for example
        ``{"sys_data_cleaning": {"longest_seconds": "2h"}}``. Its tasks count for a rule of their own alone, except
        that ``tasks_required`` without a template counts all tasks.
    :raises ValueError: a value is invalid, or ``by_template`` has an unknown rule.
    """

    failures_allowed: int | str | None = 0
    failure_rate_allowed: float | str | None = None
    stopped_allowed: int | str | None = None
    tasks_required: int | str | None = None
    longest_seconds: float | timedelta | str | None = None
    stuck_after_seconds: float | timedelta | str | None = None
    allowed_output_prefixes: Sequence[str] | str | None = None
    outputs_required: bool | str | None = True
    by_template: Mapping[str, Mapping[str, Any]] | str | None = None

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        defaults = {field.name: field.default for field in fields(self)}
        for name, value in {**defaults, **_read_rules(values)}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def read(cls, rules: Self | Mapping[str, Any] | str | None) -> Self:
        """Read rules from a mapping by their names, or from the text of one in JSON; None means the defaults.

        :raises ValueError: the text is no mapping, a name is unknown, or a value is invalid.
        """
        if isinstance(rules, cls):
            return rules
        return cls() if rules is None else cls(**_read_mapping("rules", rules, [field.name for field in fields(cls)]))

    @cached_property
    def templates(self) -> Mapping[str, AuditRules]:
        """For each template with rules of its own, all rules that its tasks have."""
        general = replace(self, by_template=None)
        return {template: replace(general, **own) for template, own in self._own.items()}

    def of(self, template: str | None) -> AuditRules:
        """Return the rules that the tasks of a template have."""
        return self.templates.get(template or "", self)

    def is_own(self, rule: str, template: str) -> bool:
        """Whether a template has a rule of its own."""
        return rule in self._own.get(template, ())

    def limit(self, rule: str) -> float | None:
        """Return the number that a rule allows or requires; None if the rule is not checked."""
        number: float | None = getattr(self, rule)
        return number

    def is_checked(self, rule: str) -> bool:
        """Whether a rule is checked, for any template."""
        values = (getattr(rules, rule) for rules in (self, *self.templates.values()))
        return any(value is not None and value is not False for value in values)

    def to_json(self) -> dict[str, Any]:
        """Return the rules by name: durations in seconds, the places in OBS as URIs."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @property
    def _own(self) -> Mapping[str, Mapping[str, Any]]:
        return self.by_template if isinstance(self.by_template, Mapping) else {}


def _read_rules(rules: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Return the rules that are given, with their values read."""
    readers = {**READERS, BY_TEMPLATE: _read_by_template}
    given = {name: value for name, value in rules.items() if is_given(value)}
    return {name: None if value is None else readers[name](f"{place}{name}", value) for name, value in given.items()}


def _read_by_template(_: str, value: Any) -> dict[str, dict[str, Any]]:
    read = {}
    for template, rules in _read_mapping(BY_TEMPLATE, value).items():
        place = f"{BY_TEMPLATE}[{template!r}]"
        read[str(template)] = _read_rules(_read_mapping(place, rules, READERS), f"{place}.")
    return read


def _read_mapping(place: str, value: Any, known: Iterable[str] = ()) -> Mapping[Any, Any]:
    """Read a mapping, also from text, and refuse keys that are not known."""
    read = read_text(value) if isinstance(value, str) else value
    if not isinstance(read, Mapping):
        example: dict[str, Any] = {"longest_seconds": 3600}
        if place == BY_TEMPLATE:
            example = {"sys_data_cleaning": example}
        raise ValueError(f"{place} is {repr(value)[:200]}: give the rules as an object, such as {example}")
    if known and (unknown := sorted(map(str, set(read) - set(known)))):
        from difflib import get_close_matches

        names = [f"{name}{_near(get_close_matches(name, known, 1))}" for name in unknown]
        where = "" if place == "rules" else f" in {place}"
        raise ValueError(f"unknown audit rule {', '.join(names)}{where}: the rules are {', '.join(known)}")
    return read


def _near(matches: list[str]) -> str:
    return f" (did you mean {matches[0]}?)" if matches else ""


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
