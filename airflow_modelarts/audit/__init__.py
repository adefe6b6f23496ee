"""Audits of processing tasks: rules, the findings that break them, a report, and the report as an HTML page.

``findings`` has the checks, ``report`` applies them, ``html.page`` makes the page. Nothing here sends a request, writes
a file or reads the clock.
"""

from __future__ import annotations

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
