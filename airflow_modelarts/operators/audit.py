"""The operator that audits the processing tasks of a time window and writes a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_modelarts.api.arguments import check_optional_text, check_template_id
from airflow_modelarts.api.bodies import TEXT
from airflow_modelarts.audit import AuditReport, AuditRules, Window, audit, newest_first
from airflow_modelarts.exceptions import ModelArtsAuditFailed
from airflow_modelarts.operators.base import ModelArtsOperator, in_utc, parse_datetime
from airflow_modelarts.operators.files import atomic_write, clean_up_partials, resolve_path
from airflow_modelarts.templating import TEXT_OR_VALUE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_modelarts.api.bodies import Shape
    from airflow_modelarts.hooks import ModelArtsHook

A_DAY = timedelta(days=1)
#: How many processing tasks the exception names for each broken rule.
NAMED_TASKS = 3


class ModelArtsAuditProcessorTasksOperator(ModelArtsOperator):
    """
    Audits all processing tasks that were created in a time window, by Airflow or otherwise (ListProcessorTasks).

    The window is the run's data interval. If that is empty, it is the day before the run's logical date in the DAG's
    time zone, and the task logs this. The interval is empty in most manual runs. With Airflow 3 it is also empty in
    runs of a cron schedule such as ``@daily``, unless ``scheduler.create_cron_data_intervals`` is on. If the schedule
    is not daily, set ``window_start``, for example to ``{{ logical_date - macros.timedelta(hours=1) }}``.

    The audit reads the current state of the tasks, not the state at the window's end. A task that is still active is
    not audited again by the next run: ``lag`` gives it time to end. The operator reads the list newest first, down to
    the window's start. It keeps findings only, up to a limit, so its memory is limited too. The list shifts while it is
    read: if a task is deleted meanwhile, another one can be missed.

    Its XCom is a summary of a few kilobytes: ``window``, ``total``, ``undated``, ``by_status``, ``by_template``,
    ``broken_rules``, ``findings`` with the first ten task ids of each check, ``failures`` with the first ten messages,
    and, if a report was written, ``report_path`` and ``json_path``.

    :param window_start: audit tasks created at this moment or later: a datetime or ISO 8601 text, in UTC if it has no
        offset (templated). Default, also for an empty text and ``None``: the start of the data interval; a day before
        the end if the interval is empty or ``window_end`` is given.
    :param window_end: audit tasks created before this moment (templated, as above). Default: the end of the data
        interval; if that is empty, the run's logical date or, without one, the moment at which the run was due.
    :param lag: how far to move the window back, so that its tasks have ended; default zero. It does not move a
        ``window_start`` that is given, and has no effect if ``window_end`` is given.
    :param rules: the rules that tasks must comply with: :class:`~airflow_modelarts.audit.AuditRules`, or a dict of its
        fields or the text of one (templated). By default no task may have failed, and every output must be named.
    :param template_id: only tasks of this template, for example ``sys_data_analyse`` (templated). The API calls this
        filter ``task_type``, a name that Airflow's operators use for themselves.
    :param source_type: type of the data source: ``OBS``, ``TASK``, ``DATASET`` or ``CUSTOM`` (templated).
    :param source: the data source, for example a dataset id (templated).
    :param workspace_id: the workspace of the tasks (templated); the service's default is "0".
    :param report_path: where to write the report as an HTML page that loads nothing else, for example
        ``s3://bucket/audits/{{ ds }}.html`` (templated; a run without a logical date has no ``ds``). A ``.json`` file
        of the same name has all findings. The provider of the object store must be installed. Each file appears only
        when it is complete, and then replaces the previous one. Until then it is a hidden file beside it,
        ``.name.part-…``, so the connection needs the rights to copy and delete. Default: no report.
    :param object_storage_conn_id: the Airflow connection of the object store (templated); default the path's.
    :param fail_on_broken_rules: fail if a rule is broken, after the report is written and the XCom is pushed; default
        false. Airflow does not retry this failure; ``retries`` are for an unreachable service.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: overrides the connection's project (templated).
    :raises ModelArtsAuditFailed: a rule is broken and ``fail_on_broken_rules`` is set; the message names each rule.
    :raises ValueError: the window, the rules or the path are invalid.
    :raises ModelArtsRequestError: another templated argument rendered to nothing; no request was sent.
    :raises ModelArtsError: the service rejected the call; the message says what to change.
    """

    template_fields: Sequence[str] = (
        *("window_start", "window_end", "rules", "template_id", "source_type", "source", "workspace_id"),
        *("report_path", "object_storage_conn_id"),
        *ModelArtsOperator.template_fields,
    )
    argument_shapes: ClassVar[Mapping[str, Shape]] = {
        "rules": {"allowed_output_prefixes": TEXT},
        **dict.fromkeys(("window_start", "window_end"), TEXT_OR_VALUE),
    }
    argument_checks: ClassVar = {
        **ModelArtsOperator.argument_checks,
        **dict.fromkeys(("source_type", "source", "workspace_id", "object_storage_conn_id"), check_optional_text),
        "template_id": check_template_id,
    }
    #: An empty value means the default.
    may_be_empty = frozenset({"window_start", "window_end"})

    def __init__(
        self,
        *,
        window_start: datetime | str | None = None,
        window_end: datetime | str | None = None,
        lag: timedelta = timedelta(),
        rules: AuditRules | Mapping[str, Any] | None = None,
        template_id: str | None = None,
        source_type: str | None = None,
        source: str | None = None,
        workspace_id: str | None = None,
        report_path: str | ObjectStoragePath | None = None,
        object_storage_conn_id: str | None = None,
        fail_on_broken_rules: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_arguments(
            template_id=template_id,
            source_type=source_type,
            source=source,
            workspace_id=workspace_id,
            object_storage_conn_id=object_storage_conn_id,
        )
        self.window_start = window_start
        self.window_end = window_end
        self.lag = lag
        self.rules = rules
        self.template_id = template_id
        self.source_type = source_type
        self.source = source
        self.workspace_id = workspace_id
        self.report_path = report_path
        self.object_storage_conn_id = object_storage_conn_id
        self.fail_on_broken_rules = fail_on_broken_rules

    def execute(self, context: Context) -> dict[str, Any]:
        """Audit, write the report and return its summary."""
        self._prepare_fields()
        now = datetime.now(UTC)
        window, path = self._window(context, now), self._open_path()
        with self._open_hook() as hook:
            report = self._audit(hook, window, now)
            project_id = hook.get_conn().client.project_id
        summary = report.summary()
        if path:
            facts = {"Project": project_id, "DAG": self.dag_id, "Run": str(context["run_id"])}
            summary = {**self._write(path, report, facts, context["ti"]), **summary}
        self._log_report(report)
        if self.fail_on_broken_rules and report.broken_rules:
            if self.do_xcom_push:
                context["ti"].xcom_push(key="return_value", value=summary)
            raise ModelArtsAuditFailed(_describe_broken_rules(report))
        return summary

    def _window(self, context: Mapping[str, Any], now: datetime) -> Window:
        start, end = parse_datetime("window_start", self.window_start), parse_datetime("window_end", self.window_end)
        lag = timedelta() if end else self.lag
        if end is None:
            interval_start, end = _interval(context, now)
            if start is None and interval_start:
                start = in_utc(interval_start) - lag
        if start is None:
            start = in_utc(_day_before(end, context)) - lag
            self.log.info("No window_start and no data interval: auditing the day before %s.", in_utc(end) - lag)
        return Window(in_utc(start), in_utc(end) - lag)

    def _audit(self, hook: ModelArtsHook, window: Window, now: datetime) -> AuditReport:
        tasks = hook.list_processor_tasks(
            task_type=self.template_id,
            source_type=self.source_type,
            source=self.source,
            workspace_id=self.workspace_id,
            sort_by="create_time",
            order="desc",
        )
        if isinstance(self.rules, str):
            raise ValueError(
                f"rules is {self.rules!r}: give the rules as an object, such as {{'longest_seconds': 3600}}"
            )
        rules = AuditRules.from_mapping(self.rules) if isinstance(self.rules, Mapping) else self.rules
        return audit(newest_first(tasks, window), window=window, now=now, rules=rules)

    def _open_path(self) -> ObjectStoragePath | None:
        if not self.report_path:
            return None
        if not str(self.report_path).endswith(".html"):
            raise ValueError(f"report_path is {str(self.report_path)!r}: name a file that ends in .html")
        return resolve_path(self.report_path, self.object_storage_conn_id)

    def _write(
        self, path: ObjectStoragePath, report: AuditReport, facts: Mapping[str, str], task_instance: Any
    ) -> dict[str, str]:
        from airflow_modelarts.audit.html import page

        json_path = path.with_name(f"{path.name.removesuffix('.html')}.json")
        content = {**report.to_json(), **{name.lower(): fact for name, fact in facts.items()}}
        # The page refers to the JSON file, so it is written last. Both are made before either is written.
        files = {
            json_path: json.dumps(content, ensure_ascii=False, indent=1).encode(),
            path: page(report, facts).encode(),
        }
        for file_path, encoded in files.items():
            with atomic_write(file_path, clean_up_partials(file_path, task_instance)) as file:
                file.write(encoded)
        self.log.info("Wrote the report to %s.", path)
        return {"report_path": str(path), "json_path": str(json_path)}

    def _log_report(self, report: AuditReport) -> None:
        statuses = ", ".join(f"{count} {status}" for status, count in report.by_status.items())
        self.log.info("Processing tasks created from %s: %s (%s).", report.window, report.total, statuses or "none")
        if not report.total:
            self.log.info("Tasks created after the window are excluded; set window_end to change that.")
        if report.undated:
            self.log.warning("%s listed tasks have no create_time and are excluded.", report.undated)
        for broken in report.broken_rules:
            self.log.warning("Rule %s is broken: %s.", broken.rule, broken.message)


def _interval(context: Mapping[str, Any], now: datetime) -> tuple[datetime | None, datetime]:
    """Return the run's data interval; if that is empty, None and the moment that the run is for."""
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start and end and start < end:
        return start, end
    # An empty interval lies at the moment of triggering, even if the run has another logical date.
    moment: datetime | None = context.get("logical_date") or end or getattr(context.get("dag_run"), "run_after", None)
    return None, moment or now


def _day_before(moment: datetime, context: Mapping[str, Any]) -> datetime:
    """Return the same time on the day before in the DAG's time zone, where a day can have 23 or 25 hours."""
    zone = getattr(context.get("dag"), "timezone", UTC)
    return in_utc(moment).astimezone(zone) - A_DAY


def _describe_broken_rules(report: AuditReport) -> str:
    broken_rules = report.broken_rules
    sentences = []
    for broken in broken_rules:
        ids = [finding.task_id for finding in broken.findings.kept[:NAMED_TASKS]]
        more = f" and {broken.findings.count - len(ids)} more" if broken.findings.count > len(ids) else ""
        sentences.append(f"{broken.rule}: {broken.message} ({', '.join(ids)}{more})")
    rules = "1 audit rule is" if len(broken_rules) == 1 else f"{len(broken_rules)} audit rules are"
    return f"{rules} broken by tasks created from {report.window}. {'; '.join(sentences)}"
