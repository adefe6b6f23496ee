"""The operator that audits the processing tasks of a time window and writes a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from airflow_modelarts.api.arguments import check_optional_text, check_template_id, read_flag
from airflow_modelarts.api.bodies import TEXT
from airflow_modelarts.audit.text import read_timezone
from airflow_modelarts.base import ExtraLinks, ModelArtsOperator, fails_fast
from airflow_modelarts.exceptions import ModelArtsAuditFailed, ModelArtsReportNotWritten
from airflow_modelarts.operators.arguments import (
    WindowKind,
    check_status_filter,
    check_window,
    literals,
    read_status_filter,
)
from airflow_modelarts.operators.audit_paths import SUFFIXES, check_path, is_mapped, own_path, refuse_shared_paths
from airflow_modelarts.operators.base import parse_datetime
from airflow_modelarts.templating import TEXT_OR_VALUE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_modelarts.api.bodies import Shape
    from airflow_modelarts.audit import AuditReport, AuditRules, Scope
    from airflow_modelarts.hooks import ModelArtsHook
    from airflow_modelarts.operators.audit_files import AuditFiles, RowFile
    from airflow_modelarts.operators.audit_window import AuditWindow

#: How many processing tasks the exception names for each broken rule.
NAMED_TASKS = 3


class ModelArtsAuditProcessorTasksOperator(ModelArtsOperator):
    """Audits all processing tasks that were created in a time window, by Airflow or otherwise (ListProcessorTasks).

    Each audit continues where the last one of this Airflow task ended, so that each task is in exactly one audit. The
    first one reaches back a day. An audit that finds a broken rule has ended; one that raises another error has not.
    A run that is cleared or tried again audits the same window again. What was audited is kept in an Airflow variable.

    The audit reads the current state of the tasks, not the state at the window's end. A task that is still active is
    not audited again by the next run: ``lag`` gives it time to end. The operator reads the list newest first, down to
    the window's start, and to its end if the list is out of order. It keeps findings only, up to a limit, and no ids of
    tasks, so its memory does not grow with their number. The list shifts while it is read: if a task is deleted
    meanwhile, another one can be missed; the report says how many were deleted. An odd field of a task counts as
    missing, and the report names it.

    It creates and removes an empty file beside each path before it reads the list. After the list is read, it logs the
    counts, pushes its XCom, and then writes the report. A file that cannot be written fails the task at the end.

    Its XCom is a summary of a few kilobytes: ``window``, ``verdict``, ``project_id``, ``region``, ``host``,
    ``filters``, ``total``, ``undated``, ``unreadable``, ``deleted_while_listing``, ``not_listed``, ``order_held``,
    ``notes``, ``broken_rules``, ``change`` since the audit before, ``markdown`` with ten lines for a chat or a mail,
    ``by_status``, ``by_template``, ``findings`` with the first ten task ids of each check, ``failures`` with the first
    ten messages, ``map_index`` of a mapped audit, and ``report_path``, ``json_path`` and ``rows_path`` of the files
    that were written.

    :param window_start: audit tasks created at this moment or later: a datetime or ISO 8601 text, in UTC if it has no
        offset (templated). Default, also for an empty text and ``None``: what ``window`` says; a day before
        ``window_end`` if that is given.
    :param window_end: audit tasks created before this moment (templated, as above). Default: the moment that the run
        is for, which is the later of the data interval's end and the logical date; without both, when it was due.
    :param window: what to audit unless ``window_start`` or ``window_end`` is given. ``since_last`` (default): what no
        earlier audit has covered, until the moment that the run is for. ``data_interval``: the run's data interval.
        ``day``: the day before that moment, in the DAG's time zone.
    :param lag: how far to move the window's end back, so that its tasks have ended; default zero. It moves the start
        too, unless ``window_start`` is given or earlier audits set it. It has no effect if ``window_end`` is given.
    :param rules: the rules that tasks must comply with: :class:`~airflow_modelarts.audit.AuditRules`, or a dict of its
        fields or the text of one in JSON (templated). Values may be text, as templates render it. By default no task
        may have failed, and every output must be named.
    :param template_id: only tasks of this template, for example ``sys_data_analyse`` (templated). The API calls this
        filter ``task_type``, a name that Airflow's operators use for themselves.
    :param source_type: type of the data source: ``OBS``, ``TASK``, ``DATASET`` or ``CUSTOM`` (templated).
    :param source: the data source, for example a dataset id (templated).
    :param workspace_id: the workspace of the tasks (templated); the service's default is "0".
    :param statuses: only tasks that have one of these statuses when the audit reads them, as numbers or names, for
        example ``["failed", "stopped"]`` (templated). All counts and rules are of these tasks. The service filters by
        one status; several are filtered here. Default: every status.
    :param report_path: where to write the report as an HTML page that loads nothing else, for example
        ``s3://bucket/audits/{{ ts_nodash }}.html`` (templated; a run without a logical date has no ``ts_nodash``). A
        ``.json`` file of the same name has the report as JSON, with the first 10,000 findings of each check. The
        provider of the object store must be installed. Each file appears only when it is complete, and then replaces
        the previous one. Until then it is a hidden file beside it, ``.name.part-…``, so the connection needs the rights
        to copy and delete. If mapped audits share the path, each adds its map index before the suffix. The audit before
        is looked for in the same folder, among the newest 50 files that end in ``.json``. Default: no report.
    :param rows_path: where to write a row for each task of the window, as JSON Lines or CSV, for example
        ``s3://bucket/audits/{{ ts_nodash }}.jsonl`` or ``….csv`` (templated; otherwise as ``report_path``). Default: no
        rows.
    :param object_storage_conn_id: the Airflow connection of the object store (templated); default the path's.
    :param timezone: the time zone of the times on the page and in the summary's ``markdown``, for example
        ``Europe/Berlin`` (templated); default ``UTC``. JSON always has UTC.
    :param fail_on_broken_rules: fail if a rule is broken, after the report is written and the XCom is pushed; default
        false. Airflow does not retry this failure; ``retries`` are for an unreachable service.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: overrides the connection's project (templated).
    :param fail_fast: fail without ``retries`` where a retry cannot mend the error, see
        :mod:`airflow_modelarts.api.permanence`; default false.
    :raises ModelArtsAuditFailed: a rule is broken and ``fail_on_broken_rules`` is set; the message names each rule.
    :raises ModelArtsReportNotWritten: a file cannot be written; the message names it, the cause and the broken rules.
        Airflow retries it. It is raised before the list is read if the store refuses an empty file.
    :raises ValueError: the window, the rules, the time zone or a path are invalid, another audit of the DAG has the
        same path, or the run lacks the ``data_interval`` that ``window`` asks for.
    :raises ModelArtsRequestError: another templated argument rendered to nothing; no request was sent.
    :raises ModelArtsError: the service rejected the call; the message says what to change.
    """

    template_fields: Sequence[str] = (
        *("window_start", "window_end", "rules", "template_id", "source_type", "source", "workspace_id"),
        "statuses",
        *("report_path", "rows_path", "object_storage_conn_id", "timezone"),
        *ModelArtsOperator.template_fields,
    )
    argument_shapes: ClassVar[Mapping[str, Shape]] = {
        "rules": {"allowed_output_prefixes": TEXT},
        "statuses": None,
        **dict.fromkeys(("window_start", "window_end"), TEXT_OR_VALUE),
    }
    argument_checks: ClassVar = {
        **ModelArtsOperator.argument_checks,
        **dict.fromkeys(("source_type", "source", "workspace_id", "object_storage_conn_id"), check_optional_text),
        "template_id": check_template_id,
        "statuses": check_status_filter,
        **dict.fromkeys(SUFFIXES, check_path),
        **dict.fromkeys(("window_start", "window_end"), lambda name, value: parse_datetime(name, literals(value))),
        "rules": lambda _, value: _read_rules(literals(value)),
        "timezone": lambda _, value: (value is not None and literals(value) is None) or read_timezone(value),
        "fail_on_broken_rules": read_flag,
    }
    operator_extra_links = ExtraLinks("ModelArtsAuditReportLink")
    #: An empty value means the default.
    may_be_empty = frozenset({"window_start", "window_end"})
    parts_may_be_empty = frozenset({"rules"})

    def __init__(
        self,
        *,
        window_start: datetime | str | None = None,
        window_end: datetime | str | None = None,
        window: WindowKind = "since_last",
        lag: timedelta = timedelta(),
        rules: AuditRules | Mapping[str, Any] | str | None = None,
        template_id: str | None = None,
        source_type: str | None = None,
        source: str | None = None,
        workspace_id: str | None = None,
        statuses: int | str | Iterable[int | str] | None = None,
        report_path: str | ObjectStoragePath | None = None,
        rows_path: str | ObjectStoragePath | None = None,
        object_storage_conn_id: str | None = None,
        timezone: str = "UTC",
        fail_on_broken_rules: bool = False,
        **kwargs: Any,
    ) -> None:
        if window == "since_last" and window_start is None and window_end is None:
            kwargs.setdefault("max_active_tis_per_dag", 1)  # runs at the same time would audit the same tasks
        super().__init__(**kwargs)
        self._check_arguments(
            template_id=template_id,
            source_type=source_type,
            source=source,
            workspace_id=workspace_id,
            statuses=statuses,
            object_storage_conn_id=object_storage_conn_id,
            window_start=window_start,
            window_end=window_end,
            window=window,
            lag=lag,
            rules=rules,
            report_path=report_path,
            rows_path=rows_path,
            timezone=timezone,
            fail_on_broken_rules=fail_on_broken_rules,
        )
        self.window_start = window_start
        self.window_end = window_end
        self.window = window
        self.lag = lag
        self.rules = rules
        self.template_id = template_id
        self.source_type = source_type
        self.source = source
        self.workspace_id = workspace_id
        self.statuses = statuses
        self.report_path = report_path
        self.rows_path = rows_path
        self.object_storage_conn_id = object_storage_conn_id
        self.timezone = timezone
        self.fail_on_broken_rules = fail_on_broken_rules
        dag = self.get_dag()
        if dag is not None and dag.task_dict.get(self.task_id) is self:  # unlike an instance of a mapped task
            refuse_shared_paths(self.task_id, vars(self), dag)

    @classmethod
    def check_arguments(cls, given: Mapping[str, Any], dag: Any) -> None:
        """Check arguments; of a mapped audit, also its window and that no other one has its paths."""
        super().check_arguments(given, dag)
        check_window(given.get("window", "since_last"), given.get("lag", timedelta()))
        if "task_id" in given:  # only those of a mapped audit have it
            refuse_shared_paths(given["task_id"], given, dag, is_mapped=True)

    @fails_fast
    def execute(self, context: Context) -> dict[str, Any]:
        """Audit, write the report and return its summary."""
        from airflow_modelarts.operators.audit_files import AuditFiles
        from airflow_modelarts.operators.audit_window import choose_window

        self._prepare_fields()
        now = datetime.now(UTC)
        rules, zone = _read_rules(self.rules), read_timezone(self.timezone)
        files = AuditFiles(self._paths(context), self.object_storage_conn_id, context["ti"])
        with self._open_hook() as hook:
            scope = self._scope(context, hook)
            chosen = choose_window(self, context, now, hook.get_conn().client.project_id)
            with files.rows(scope.project_id) as rows:
                report = self._audit(hook, chosen, now, rules, scope, rows)
        rows_path, previous = files.written.get("rows_path"), files.previous(report)
        report = replace(report, zone=zone, rows_path=rows_path, previous=previous)
        self._log_report(report)
        # The summary is there although a store fails later.
        self._push(context, report.summary())
        files.write_report(report, _facts(scope))
        for argument, path in files.written.items():
            self.log.info("Wrote %s: %s.", argument, path)
        if report_path := files.written.get("report_path"):
            from airflow_modelarts.links import ModelArtsAuditReportLink

            ModelArtsAuditReportLink.persist(context, report_path)
        summary = {**files.written, **report.summary()}
        if not files.failures:
            chosen.mark_ended()
        if error := self._error(report, files):
            self._push(context, summary)
            raise error
        return summary

    def _push(self, context: Context, summary: dict[str, Any]) -> None:
        if self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=summary)

    def _error(self, report: AuditReport, files: AuditFiles) -> Exception | None:
        broken = _describe_broken_rules(report) if report.broken_rules else ""
        if files.failures:
            return ModelArtsReportNotWritten(". ".join(filter(None, [*files.failures, broken])))
        return ModelArtsAuditFailed(broken) if broken and self.fail_on_broken_rules else None

    def _scope(self, context: Context, hook: ModelArtsHook) -> Scope:
        from airflow_modelarts.audit import Scope
        from airflow_modelarts.links import endpoint_region

        settings, ti = hook.get_conn(), context["ti"]
        return Scope(
            project_id=settings.client.project_id,
            region=endpoint_region(settings),
            host=urlsplit(settings.client.endpoint).hostname,
            template_id=self.template_id,
            source_type=self.source_type,
            source=self.source,
            workspace_id=self.workspace_id,
            statuses=read_status_filter("statuses", self.statuses),
            dag_id=self.dag_id,
            run_id=context.get("run_id"),
            map_index=ti.map_index if is_mapped(ti) else None,
        )

    def _audit(
        self,
        hook: ModelArtsHook,
        chosen: AuditWindow,
        now: datetime,
        rules: AuditRules,
        scope: Scope,
        rows: RowFile,
    ) -> AuditReport:
        from airflow_modelarts.api.operations import list_processor_tasks
        from airflow_modelarts.audit import ListReader, audit
        from airflow_modelarts.links import console_url

        listing = list_processor_tasks(
            status=scope.statuses[0] if len(scope.statuses) == 1 else None,
            task_type=self.template_id,
            source_type=self.source_type,
            source=self.source,
            workspace_id=self.workspace_id,
            sort_by="create_time",
            order="desc",
        )
        reader, settings = ListReader(hook.pages(listing)), hook.get_conn()
        report = audit(
            () if chosen.window.is_empty else reader,
            window=chosen.window,
            now=now,
            rules=rules,
            notes=chosen.notes,
            console_url=lambda task_id: console_url(settings, task_id),
            scope=scope,
            on_task=rows.write,
        )
        return reader.complete(report)

    def _paths(self, context: Context) -> dict[str, str]:
        """Return the paths of the files that are wanted, each with the index of a mapped task where it needs one."""
        given = {name: getattr(self, name) for name in SUFFIXES}
        return {
            name: own_path(str(path), self._as_written(name), name, context) for name, path in given.items() if path
        }

    def _log_report(self, report: AuditReport) -> None:
        statuses = ", ".join(f"{count} {status}" for status, count in report.by_status.items())
        self.log.info("Processing tasks created from %s: %s (%s).", report.window, report.total, statuses or "none")
        for note in report.notes:
            self.log.info("%s", note)
        self.log.info("Summary in Markdown:\n%s", report.to_markdown())
        if not report.total:
            self.log.info("Tasks created after the window are excluded; set window_end to change that.")
        if report.undated:
            self.log.warning("Listed tasks without create_time, which are excluded: %s.", report.undated)
        for gap in report.gaps:
            self.log.warning("%s", gap)
        for broken in report.broken_rules:
            self.log.warning("Rule %s is broken: %s.", broken.rule, broken.message)


def _facts(scope: Scope) -> dict[str, str]:
    """Return what the page says about the scope of the audit."""
    facts = {
        "Project": scope.project_id,
        "Region": scope.region,
        "Host": scope.host,
        "Workspace": scope.workspace_id,
        "Template": scope.template_id,
        "Source type": scope.source_type,
        "Source": scope.source,
        "Statuses": scope.filters.get("statuses"),
        "Filters": None if any(scope.filters.values()) else "none",
        "DAG": scope.dag_id,
        "Run": scope.run_id,
        "Map index": None if scope.map_index is None else str(scope.map_index),
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def _describe_broken_rules(report: AuditReport) -> str:
    broken_rules = report.broken_rules
    sentences = []
    for broken in broken_rules:
        ids = [finding.task_id for finding in broken.findings.kept[:NAMED_TASKS]]
        more = f" and {broken.findings.count - len(ids)} more" if broken.findings.count > len(ids) else ""
        named = f" ({', '.join(ids)}{more})" if ids else ""
        sentences.append(f"{broken.rule}: {broken.message}{named}")
    rules = "1 audit rule is" if len(broken_rules) == 1 else f"{len(broken_rules)} audit rules are"
    return f"{rules} broken by tasks created from {report.window}. {'; '.join(sentences)}"


def _read_rules(rules: AuditRules | Mapping[str, Any] | str | None) -> AuditRules:
    from airflow_modelarts.audit import AuditRules

    return AuditRules.read(rules)
