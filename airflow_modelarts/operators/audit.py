"""The operator that audits the processing tasks of a time window and writes a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_modelarts.api.bodies import TEXT
from airflow_modelarts.audit import AuditReport, AuditRules, audit
from airflow_modelarts.exceptions import ModelArtsAuditFailed
from airflow_modelarts.operators.audit_window import AuditWindow, WindowKind, check_window, choose_window
from airflow_modelarts.operators.base import ModelArtsOperator
from airflow_modelarts.operators.files import atomic_write, clean_up_partials, resolve_path
from airflow_modelarts.templating import TEXT_OR_VALUE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_modelarts.api.bodies import Shape
    from airflow_modelarts.hooks import ModelArtsHook

#: How many processing tasks the exception names for each broken rule.
NAMED_TASKS = 3


class ModelArtsAuditProcessorTasksOperator(ModelArtsOperator):
    """
    Audits all processing tasks that were created in a time window, by Airflow or otherwise (ListProcessorTasks).

    Each audit continues where the last one of this Airflow task ended, so that each task is in exactly one audit. The
    first one reaches back a day. An audit that finds a broken rule has ended; one that raises another error has not.
    A run that is cleared or tried again audits the same window again. What was audited is kept in an Airflow variable.

    The audit reads the current state of the tasks, not the state at the window's end. A task that is still active is
    not audited again by the next run: ``lag`` gives it time to end. The operator reads the list newest first, down to
    the window's start, and to its end if the list is out of order. It keeps findings only, up to a limit, so its memory
    is limited too. The list shifts while it is read: if a task is deleted meanwhile, another one can be missed.

    Its XCom is a summary of a few kilobytes: ``window``, ``total``, ``undated``, ``order_held``, ``notes``,
    ``by_status``, ``by_template``, ``broken_rules``, ``findings`` with the first ten task ids of each check,
    ``failures`` with the first ten messages, and, if a report was written, ``report_path`` and ``json_path``.

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
        fields or the text of one (templated). By default no task may have failed, and every output must be named.
    :param template_id: only tasks of this template, for example ``sys_data_analyse`` (templated). The API calls this
        filter ``task_type``, a name that Airflow's operators use for themselves.
    :param source_type: type of the data source: ``OBS``, ``TASK``, ``DATASET`` or ``CUSTOM`` (templated).
    :param source: the data source, for example a dataset id (templated).
    :param workspace_id: the workspace of the tasks (templated); the service's default is "0".
    :param report_path: where to write the report as an HTML page that loads nothing else, for example
        ``s3://bucket/audits/{{ ts_nodash }}.html`` (templated; a run without a logical date has no ``ts_nodash``). A
        ``.json`` file of the same name has all findings. The provider of the object store must be installed. Each file
        appears only when it is complete, and then replaces the previous one. Until then it is a hidden file beside it,
        ``.name.part-…``, so the connection needs the rights to copy and delete. Default: no report.
    :param object_storage_conn_id: the Airflow connection of the object store (templated); default the path's.
    :param fail_on_broken_rules: fail if a rule is broken, after the report is written and the XCom is pushed; default
        false. Airflow does not retry this failure; ``retries`` are for an unreachable service.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: overrides the connection's project (templated).
    :raises ModelArtsAuditFailed: a rule is broken and ``fail_on_broken_rules`` is set; the message names each rule.
    :raises ValueError: the window, the rules or the path are invalid, or the run lacks the ``data_interval`` that
        ``window`` asks for.
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
    #: An empty value means the default.
    may_be_empty = frozenset({"window_start", "window_end"})

    def __init__(
        self,
        *,
        window_start: datetime | str | None = None,
        window_end: datetime | str | None = None,
        window: WindowKind = "since_last",
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
        check_window(window, lag)
        if window == "since_last" and window_start is None and window_end is None:
            kwargs.setdefault("max_active_tis_per_dag", 1)  # runs at the same time would audit the same tasks
        super().__init__(**kwargs)
        self.window_start = window_start
        self.window_end = window_end
        self.window = window
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
        path = self._open_path()
        with self._open_hook() as hook:
            project_id = hook.get_conn().client.project_id
            chosen = choose_window(self, context, now, project_id)
            report = self._audit(hook, chosen, now)
        summary = report.summary()
        if path:
            facts = {"Project": project_id, "DAG": self.dag_id, "Run": str(context["run_id"])}
            summary = {**self._write(path, report, facts, context["ti"]), **summary}
        self._log_report(report)
        chosen.mark_ended()
        if self.fail_on_broken_rules and report.broken_rules:
            if self.do_xcom_push:
                context["ti"].xcom_push(key="return_value", value=summary)
            raise ModelArtsAuditFailed(_describe_broken_rules(report))
        return summary

    def _audit(self, hook: ModelArtsHook, chosen: AuditWindow, now: datetime) -> AuditReport:
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
        listed = () if chosen.window.is_empty else tasks
        return audit(listed, window=chosen.window, now=now, rules=rules, notes=chosen.notes)

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
        for note in report.notes:
            self.log.info("%s", note)
        if not report.total:
            self.log.info("Tasks created after the window are excluded; set window_end to change that.")
        if report.undated:
            self.log.warning("%s listed tasks have no create_time and are excluded.", report.undated)
        for broken in report.broken_rules:
            self.log.warning("Rule %s is broken: %s.", broken.rule, broken.message)


def _describe_broken_rules(report: AuditReport) -> str:
    broken_rules = report.broken_rules
    sentences = []
    for broken in broken_rules:
        ids = [finding.task_id for finding in broken.findings.kept[:NAMED_TASKS]]
        more = f" and {broken.findings.count - len(ids)} more" if broken.findings.count > len(ids) else ""
        sentences.append(f"{broken.rule}: {broken.message} ({', '.join(ids)}{more})")
    rules = "1 audit rule is" if len(broken_rules) == 1 else f"{len(broken_rules)} audit rules are"
    return f"{rules} broken by tasks created from {report.window}. {'; '.join(sentences)}"
