"""Audits of processing tasks: rules, the findings that break them, a report, and the report as an HTML page.

``findings`` has the checks, ``report`` applies them, ``html.page`` makes the page. Nothing here sends a request, writes
a file or reads the clock. Each name is imported when it is first used, since DAG files import the rules from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_modelarts.audit.findings import BrokenRule, Finding, Findings
    from airflow_modelarts.audit.reading import ListReader, Unreadable
    from airflow_modelarts.audit.report import AuditReport, Window, audit
    from airflow_modelarts.audit.rules import AuditRules
    from airflow_modelarts.audit.scope import Scope
    from airflow_modelarts.audit.text import from_milliseconds, milliseconds

__all__ = [
    "AuditReport",
    "AuditRules",
    "BrokenRule",
    "Finding",
    "Findings",
    "ListReader",
    "Scope",
    "Unreadable",
    "Window",
    "audit",
    "from_milliseconds",
    "milliseconds",
]

_MODULES = {
    **dict.fromkeys(("BrokenRule", "Finding", "Findings"), "findings"),
    **dict.fromkeys(("ListReader", "Unreadable"), "reading"),
    **dict.fromkeys(("AuditReport", "Window", "audit"), "report"),
    "AuditRules": "rules",
    "Scope": "scope",
    **dict.fromkeys(("from_milliseconds", "milliseconds"), "text"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Include names that are not imported yet, for editors and ``help()``."""
    return sorted({*globals(), *__all__})
