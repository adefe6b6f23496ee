"""The operator that audits the processing tasks of a time window, and writes a report that people can look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

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
#: Processing tasks that an exception names for each broken rule.
NAMED_TASKS = 3


class ModelArtsAuditProcessorTasksOperator(ModelArtsOperator):
    """
    Audits all processing tasks that were created in a time window (ListProcessorTasks), whoever created them.

    The window is the run's data interval. Where that is empty it is the day before the run's logical date in the DAG's
    time zone, and the log says so: that is how it is in most runs that are started by hand, and with Airflow 3 in those
    of a cron schedule too, such as ``@daily``, unless ``scheduler.create_cron_data_intervals`` is on. With a schedule
    that is not daily, set ``window_start``, for example to ``{{ logical_date - macros.timedelta(hours=1) }}``.

    The tasks are seen as they are now, not as they were at the window's end. A task that is still active is not looked
    at again by the next run: ``lag`` gives it the time to end. The list is read newest first, no further than the
    window goes, and no task is held: memory grows with what is found, and that is limited. A list shifts while it is
    read: when a task is deleted meanwhile, another one can be missed.

    Its XCom is the report in a few kilobytes: ``window``, ``total``, ``undated``, ``by_status``, ``by_template``,
    ``broken_rules``, ``findings`` with the first ten task ids of each kind, ``failures`` with the first ten messages,
    and ``report_path`` and ``json_path`` when the report was written.

    :param window_start: audit tasks created at this moment or later: a datetime or its ISO 8601 text, without an offset
        in UTC (templated); default, also for an empty text and ``None``, the start of the data interval or, where that
        is empty or ``window_end`` is given, a day before the end.
    :param window_end: audit tasks created earlier than this, likewise (templated); default the end of the data interval
        or, where that is empty, the run's logical date or, without one, the moment it was due.
    :param lag: how far before the run the window lies, so that its tasks have ended; default not at all. It moves what
        is not given of the window, and nothing when ``window_end`` is given.
    :param rules: what the tasks have to comply with: :class:`~airflow_modelarts.audit.AuditRules`, or a dict of its
        fields or the text of one (templated). By default no task may have failed, and every output has to be named.
    :param template_id: only tasks of this template, for example ``sys_data_analyse`` (templated); the API calls the
        filter ``task_type``, which Airflow's operators have for themselves.
    :param source_type: type of the data source: ``OBS``, ``TASK``, ``DATASET`` or ``CUSTOM`` (templated).
    :param source: the data source, for example a dataset id (templated).
    :param workspace_id: whose tasks (templated); the service's default is "0".
    :param report_path: the report as an HTML page that needs nothing else, for example
        ``s3://bucket/audits/{{ ds }}.html`` (templated; a run without a logical date has no ``ds``); beside it, with
        all findings, the same as ``.json``. The provider of the object store must be installed. A file appears when it
        is complete, and replaces the one before it at once; until then it is a hidden file beside it,
        ``.name.part-…``, for which the connection needs the rights to copy and delete. Default: none is written.
    :param object_storage_conn_id: the Airflow connection of the object store (templated); default the path's.
    :param fail_on_broken_rules: fail when a rule is broken, after the report was written and the XCom was pushed;
        default false. It is a verdict, so Airflow does not retry it; ``retries`` are for a service out of reach.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :raises ModelArtsAuditFailed: a rule is broken, and that shall fail; the message names each one.
    :raises ValueError: the window, the rules or the path are none.
    :raises ModelArtsRequestError: another templated argument rendered to nothing; nothing was sent.
    :raises ModelArtsError: the service refused the call; the message says what to change.
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
    #: Where the run has no such moment, the window is found otherwise.
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
        self._tell(report)
        if self.fail_on_broken_rules and report.broken_rules:
            if self.do_xcom_push:
                context["ti"].xcom_push(key="return_value", value=summary)
            raise ModelArtsAuditFailed(_verdict(report))
        return summary

    def _window(self, context: Mapping[str, Any], now: datetime) -> Window:
        start, end = parse_datetime("window_start", self.window_start), parse_datetime("window_end", self.window_end)
        lag = timedelta() if end else self.lag
        if end is None:
            interval_start, end = _about(context, now)
            if start is None and interval_start:
                start = in_utc(interval_start) - lag
        if start is None:
            start = in_utc(_day_before(end, context)) - lag
            told = "No window_start and no data interval to go by: auditing the day before %s."
            self.log.info(told, in_utc(end) - lag)
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
        rules = AuditRules.of(self.rules) if isinstance(self.rules, Mapping) else self.rules
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
        described = {**report.to_json(), **{name.lower(): fact for name, fact in facts.items()}}
        # The page comes last, since it speaks of the other file; neither is written unless both can be made.
        contents = {
            json_path: json.dumps(described, ensure_ascii=False, indent=1).encode(),
            path: page(report, facts).encode(),
        }
        for file_path, content in contents.items():
            with atomic_write(file_path, clean_up_partials(file_path, task_instance)) as file:
                file.write(content)
        self.log.info("The report is in %s.", path)
        return {"report_path": str(path), "json_path": str(json_path)}

    def _tell(self, report: AuditReport) -> None:
        statuses = ", ".join(f"{count} {status}" for status, count in report.by_status.items())
        self.log.info("Processing tasks created from %s: %s (%s).", report.window, report.total, statuses or "none")
        if not report.total:
            self.log.info("What was created after the window is not in it; window_end sets another end.")
        if report.undated:
            self.log.warning("%s listed tasks do not say when they were created, and are left out.", report.undated)
        for broken in report.broken_rules:
            self.log.warning("Rule %s is broken: %s.", broken.rule, broken.message)


def _about(context: Mapping[str, Any], now: datetime) -> tuple[datetime | None, datetime]:
    """Return the interval that a run is about, or no start and the moment that it is for."""
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start and end and start < end:
        return start, end
    # An empty interval is at the moment of triggering, whatever logical date was asked for.
    moment: datetime | None = context.get("logical_date") or end or getattr(context.get("dag_run"), "run_after", None)
    return None, moment or now


def _day_before(moment: datetime, context: Mapping[str, Any]) -> datetime:
    """Return the same time of the day before in the DAG's time zone, where a day can have 23 or 25 hours."""
    zone = getattr(context.get("dag"), "timezone", UTC)
    return in_utc(moment).astimezone(zone) - A_DAY


def _verdict(report: AuditReport) -> str:
    broken_rules = report.broken_rules
    sentences = []
    for broken in broken_rules:
        named = [finding.task_id for finding in broken.findings.kept[:NAMED_TASKS]]
        more = f" and {broken.findings.count - len(named)} more" if broken.findings.count > len(named) else ""
        sentences.append(f"{broken.rule}: {broken.message} ({', '.join(named)}{more})")
    what = "1 audit rule is" if len(broken_rules) == 1 else f"{len(broken_rules)} audit rules are"
    return f"{what} broken by tasks created from {report.window}. {'; '.join(sentences)}"
