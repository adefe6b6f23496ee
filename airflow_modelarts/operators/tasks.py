"""Operators that read, list, update, stop and delete processing tasks that exist already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_modelarts.api.arguments import (
    ArgumentError,
    check_choice,
    check_optional_text,
    check_template_id,
    check_text,
    read_flag,
    read_optional_flag,
)
from airflow_modelarts.operators.arguments import check_status_filter, read_status_filter
from airflow_modelarts.operators.base import ModelArtsOperator, TaskResultMixin, fails_fast, in_utc, parse_datetime
from airflow_modelarts.operators.output_files import OutputFilesMixin
from airflow_modelarts.templating import TEXT_OR_VALUE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.bodies import Shape
    from airflow_modelarts.api.models import ProcessorTask
    from airflow_modelarts.api.procedures import StopReport
    from airflow_modelarts.hooks import ModelArtsHook

#: The checks of the ids of a task and of a version.
ID_CHECKS = {"processor_task_id": check_text, "task_version_id": check_optional_text}


class ModelArtsDescribeProcessorTaskOperator(OutputFilesMixin, TaskResultMixin):
    """Reads a processing task (DescribeProcessorTask) and pushes it.

    It pushes four XComs. ``return_value`` is the task under the API's field names plus ``status_name``, without its
    result. ``result`` is parsed if the service wrote JSON into a string, and None if there is none. ``work_path`` is
    where the task writes. ``output_files`` has the files that ``output_files_to_xcom`` asks for, else it is empty. A
    downstream task reads ``describe.output["result"]``. Signed download links are removed.

    Its outlets get an event only of a task that has completed.

    :param processor_task_id: the processing task's id (templated).
    :param output_files_to_xcom: a pattern or a list of patterns of file names relative to the work path, for example
        ``["*.json"]`` (templated); default none. ``*`` matches ``/`` too. Once the task has completed, the XCom
        ``output_files`` has the content of the files that match by name: parsed for ``.json``, else as text. At most
        20 files with 256 KiB together are read. In place of the content of another file that matches stands
        ``{"left_out": why}``. It needs the extra ``obs``.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :param fail_fast: fail without ``retries`` where a retry cannot mend the error, see
        :mod:`airflow_modelarts.api.permanence`; default false.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    argument_checks: ClassVar = {
        **ModelArtsOperator.argument_checks,
        **OutputFilesMixin.argument_checks,
        "processor_task_id": check_text,
    }
    argument_shapes: ClassVar[Mapping[str, Shape]] = {"output_files_to_xcom": TEXT_OR_VALUE}
    template_fields: Sequence[str] = ("processor_task_id", "output_files_to_xcom", *ModelArtsOperator.template_fields)

    def __init__(self, *, processor_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_arguments(processor_task_id=processor_task_id)
        self.processor_task_id = processor_task_id

    @fails_fast
    def execute(self, context: Context) -> dict[str, Any]:
        """Read the task and push its fields."""
        self._prepare_fields()
        with self._open_hook() as hook:
            task = hook.describe_processor_task(self.processor_task_id)
            self._link(context, hook, task.task_id)
            self._emit_asset_events(context, hook, task)
        self.log.info("Processing task '%s' is %s.", task.task_id, task.status_name)
        return self._publish(context, task)


class ModelArtsStopProcessorTaskOperator(ModelArtsOperator):
    """Stops one version of a processing task, or all that have not ended (StopProcessorTaskVersion).

    If a version has ended already, the operator logs that and succeeds. It does not wait. A task without versions, such
    as a feature analysis, cannot be stopped.

    Its XCom is ``{"task_id": …, "stopped_version_ids": [...]}``, with the versions that this operator stopped.

    :param processor_task_id: the processing task's id (templated).
    :param task_version_id: the version's id (templated); default all that have not ended.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :param fail_fast: fail without ``retries`` where a retry cannot mend the error, see
        :mod:`airflow_modelarts.api.permanence`; default false.
    :raises ModelArtsRequestError: the task has no versions.
    :raises ModelArtsBusyError: a version stayed in initialization; a retry may find it running.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    argument_checks: ClassVar = {**ModelArtsOperator.argument_checks, **ID_CHECKS}
    template_fields: Sequence[str] = ("processor_task_id", "task_version_id", *ModelArtsOperator.template_fields)

    def __init__(self, *, processor_task_id: str, task_version_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_arguments(processor_task_id=processor_task_id, task_version_id=task_version_id)
        self.processor_task_id = processor_task_id
        self.task_version_id = task_version_id

    @fails_fast
    def execute(self, context: Context) -> dict[str, Any]:
        """Stop the version or the versions, and return their ids."""
        self._prepare_fields()
        with self._open_hook() as hook:
            report = self._stop(hook)
        report.log(self.log)
        if report.errors:
            raise report.errors[0]
        return {"task_id": self.processor_task_id, "stopped_version_ids": report.stopped}

    def _stop(self, hook: ModelArtsHook) -> StopReport:
        from airflow_modelarts.api import procedures
        from airflow_modelarts.api.targets import Target

        if self.task_version_id is not None:
            ended = procedures.terminal_status(self.processor_task_id, self.task_version_id, hook.retries)
            if (status := hook.run(ended)) is not None:
                return procedures.StopReport(self.processor_task_id, ended={self.task_version_id: status})
        return hook.run(procedures.stop(Target(self.processor_task_id, self.task_version_id), hook.retries))


class ModelArtsUpdateProcessorTaskOperator(ModelArtsOperator):
    """Changes the description of a processing task (UpdateProcessorTask), the only field that the API can change.

    Its XCom is ``{"task_id": …, "description": …}``.

    :param processor_task_id: the processing task's id (templated).
    :param description: at most 256 characters, none of ``^ ! < > = & " '``; empty to remove it (templated).
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :param fail_fast: fail without ``retries`` where a retry cannot mend the error, see
        :mod:`airflow_modelarts.api.permanence`; default false.
    :raises ModelArtsRequestError: the description is not valid; nothing was sent.
    :raises ModelArtsNotFoundError: there is no such task.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    argument_checks: ClassVar = {
        **ModelArtsOperator.argument_checks,
        "processor_task_id": check_text,
        "description": check_text,
    }
    template_fields: Sequence[str] = ("processor_task_id", "description", *ModelArtsOperator.template_fields)
    may_be_empty = frozenset({"description"})

    def __init__(self, *, processor_task_id: str, description: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_arguments(processor_task_id=processor_task_id, description=description)
        self.processor_task_id = processor_task_id
        self.description = description

    @fails_fast
    def execute(self, context: Context) -> dict[str, Any]:
        """Change the description."""
        self._prepare_fields()
        with self._open_hook() as hook:
            hook.update_processor_task(self.processor_task_id, description=self.description)
        self.log.info("Processing task '%s' has a new description: %s", self.processor_task_id, self.description)
        return {"task_id": self.processor_task_id, "description": self.description}


class ModelArtsDeleteProcessorTaskOperator(ModelArtsOperator):
    """Deletes a processing task (DeleteProcessorTask) or one version of it (DeleteProcessorTaskVersion).

    The service refuses this during initialization. The call is sent up to five times within some seconds; give the
    operator ``retries`` to try for longer.

    Its XCom is ``{"task_id": …, "task_version_id": …, "deleted": true}``; ``deleted`` is false if it did not exist.

    :param processor_task_id: the processing task's id (templated).
    :param task_version_id: the id of the one version to delete (templated); default the task as a whole.
    :param ignore_if_missing: succeed if it does not exist. By default that fails, since a wrong id would otherwise go
        unnoticed. Set it if the operator has ``retries``: an earlier try may have crashed after the deletion.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :param fail_fast: fail without ``retries`` where a retry cannot mend the error, see
        :mod:`airflow_modelarts.api.permanence`; default false.
    :raises ModelArtsNotFoundError: there is no such task or version.
    :raises ModelArtsBusyError: it stayed in initialization.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    argument_checks: ClassVar = {**ModelArtsOperator.argument_checks, **ID_CHECKS, "ignore_if_missing": read_flag}
    template_fields: Sequence[str] = ("processor_task_id", "task_version_id", *ModelArtsOperator.template_fields)

    def __init__(
        self,
        *,
        processor_task_id: str,
        task_version_id: str | None = None,
        ignore_if_missing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_arguments(
            processor_task_id=processor_task_id, task_version_id=task_version_id, ignore_if_missing=ignore_if_missing
        )
        self.processor_task_id = processor_task_id
        self.task_version_id = task_version_id
        self.ignore_if_missing = ignore_if_missing

    @fails_fast
    def execute(self, context: Context) -> dict[str, Any]:
        """Delete the task or the version."""
        from airflow_modelarts.api.targets import Target

        self._prepare_fields()
        deleted = self._delete()
        text = "%s is deleted." if deleted else "%s does not exist: there is nothing to delete."
        self.log.info(text, Target(self.processor_task_id, self.task_version_id))
        return {"task_id": self.processor_task_id, "task_version_id": self.task_version_id, "deleted": deleted}

    def _delete(self) -> bool:
        from airflow_modelarts.api.errors import ModelArtsNotFoundError

        try:
            with self._open_hook() as hook:
                if self.task_version_id is None:
                    hook.delete_processor_task(self.processor_task_id)
                else:
                    hook.delete_processor_task_version(self.processor_task_id, self.task_version_id)
        except ModelArtsNotFoundError:  # not after a lost answer, which the hook takes for the deletion
            if not self.ignore_if_missing:
                raise
            return False
        return True


class ModelArtsListProcessorTasksOperator(ModelArtsOperator):
    """Lists processing tasks, all pages (ListProcessorTasks), without their results.

    Its XCom is the list of tasks under the API's field names plus ``status_name``, for dynamic task mapping::

        running = ModelArtsListProcessorTasksOperator(task_id="running", status="running")
        ModelArtsProcessorTaskSensor.partial(task_id="wait").expand(
            processor_task_id=running.output.map(lambda task: task["task_id"])
        )

    The list shifts while it is read: a task that is created or deleted in that time may or may not be in it.

    :param status: a status or several, each as a number or a name, for example ``"failed"`` or ``[0, 1]`` (templated).
        The service filters by one status; several are filtered here, after all tasks are read.
    :param template_id: only tasks of this template, for example ``sys_data_analyse`` (templated). The API calls the
        filter ``task_type``, an attribute that Airflow's operators have already.
    :param task_name: matched fuzzily by the service: a shorter text finds longer names (templated).
    :param source_type: type of the data source: ``OBS``, ``TASK``, ``DATASET`` or ``CUSTOM`` (templated).
    :param source: the data source, for example a dataset id (templated).
    :param version_id: one or several *dataset* version ids (templated).
    :param workspace_id: the workspace of the tasks (templated); the service's default is "0".
    :param query_current: only the newest task of each dataset version; default all.
    :param created_after: only tasks created at this time or later: a datetime or its ISO 8601 text, in UTC if it has no
        offset (templated). With the default order, newest first, one page of older tasks is read. Where the service
        does not keep that order, the whole list is read, and the log has a warning.
    :param created_before: only tasks created earlier than this, likewise (templated). On a schedule with data
        intervals, ``data_interval_start`` and ``data_interval_end`` put each task in one run's list. The intervals of a
        cron schedule of Airflow 3 are empty: use ``{{ logical_date.subtract(days=1) }}`` and ``{{ logical_date }}``.
    :param sort_by: ``create_time`` (the service's default), ``name`` or ``duration_seconds``.
    :param order: ``desc`` (the service's default) or ``asc``.
    :param max_tasks: the most tasks to return, default 1000; None for no limit. An XCom is a row in Airflow's database,
        at about a kilobyte a task, and Airflow maps over 1024 items unless ``core.max_map_length`` is set. If the list
        is cut off, the log has a warning.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :param fail_fast: fail without ``retries`` where a retry cannot mend the error, see
        :mod:`airflow_modelarts.api.permanence`; default false.
    :raises ArgumentError: an argument cannot be right, such as an unknown status. It is a ``ValueError``.
    :raises ValueError: a datetime cannot be read.
    :raises ModelArtsRequestError: a templated argument rendered to nothing; without that filter all would be listed.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    template_fields: Sequence[str] = (
        *("status", "template_id", "task_name", "source_type", "source", "version_id", "workspace_id"),
        *("created_after", "created_before"),
        *ModelArtsOperator.template_fields,
    )
    argument_shapes: ClassVar[Mapping[str, Shape]] = {
        "status": None,
        **dict.fromkeys(("version_id", "created_after", "created_before"), TEXT_OR_VALUE),
    }
    argument_checks: ClassVar = {
        **ModelArtsOperator.argument_checks,
        **dict.fromkeys(("task_name", "source_type", "source", "workspace_id"), check_optional_text),
        "status": check_status_filter,
        "template_id": check_template_id,
        "version_id": lambda name, given: _check_texts(name, given),
        "sort_by": check_choice("create_time", "name", "duration_seconds"),
        "order": check_choice("desc", "asc"),
        "query_current": read_optional_flag,
        "max_tasks": lambda name, given: _check_max_tasks(name, given),
    }

    def __init__(
        self,
        *,
        status: int | str | Iterable[int | str] | None = None,
        template_id: str | None = None,
        task_name: str | None = None,
        source_type: str | None = None,
        source: str | None = None,
        version_id: str | Iterable[str] | None = None,
        workspace_id: str | None = None,
        query_current: bool | None = None,
        created_after: datetime | str | None = None,
        created_before: datetime | str | None = None,
        sort_by: str | None = None,
        order: str | None = None,
        max_tasks: int | None = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_arguments(
            status=status,
            template_id=template_id,
            task_name=task_name,
            source_type=source_type,
            source=source,
            version_id=version_id,
            workspace_id=workspace_id,
            query_current=query_current,
            sort_by=sort_by,
            order=order,
            max_tasks=max_tasks,
        )
        self.status = status
        self.template_id = template_id
        self.task_name = task_name
        self.source_type = source_type
        self.source = source
        self.version_id = version_id
        self.workspace_id = workspace_id
        self.query_current = query_current
        self.created_after = created_after
        self.created_before = created_before
        self.sort_by = sort_by
        self.order = order
        self.max_tasks = max_tasks

    @fails_fast
    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Read the pages and return the tasks."""
        self._prepare_fields()
        one_more = None if self.max_tasks is None else self.max_tasks + 1
        with self._open_hook() as hook:
            found = list(islice(self._select(hook), one_more))
        if self.max_tasks is not None and len(found) > self.max_tasks:
            del found[self.max_tasks :]
            self.log.warning("There are more than %s tasks: the list is cut off, see max_tasks.", self.max_tasks)
        self.log.info("Found %s processing tasks.", len(found))
        return [task.to_json() for task in found]

    def _select(self, hook: ModelArtsHook) -> Iterator[ProcessorTask]:
        from airflow_modelarts.api.newest_first import NewestFirst

        statuses = read_status_filter("status", self.status)
        after = _milliseconds(parse_datetime("created_after", self.created_after))
        before = _milliseconds(parse_datetime("created_before", self.created_before))
        if after is not None and before is not None and after >= before:
            text = "The time window is empty: created_after is %s, and created_before is %s."
            self.log.warning(text, self.created_after, self.created_before)
        tasks = hook.list_processor_tasks(
            status=statuses[0] if len(statuses) == 1 else None,
            task_type=self.template_id,
            task_name=self.task_name,
            source_type=self.source_type,
            source=self.source,
            version_id=self.version_id,
            workspace_id=self.workspace_id,
            query_current=self.query_current,
            sort_by=self.sort_by,
            order=self.order,
        )
        newest_first = self.sort_by in (None, "create_time") and self.order in (None, "desc")
        listed = NewestFirst(tasks, after) if newest_first and after is not None else tasks
        for task in listed:
            if (not statuses or task.status in statuses) and _is_within(task, after, before):
                yield task
        if isinstance(listed, NewestFirst) and not listed.order_held:
            self.log.warning("The service did not list the tasks newest first, so the whole list was read.")


def _check_texts(name: str, given: Any) -> None:
    """Check a text or a list of them."""
    if isinstance(given, list | tuple | set | frozenset):
        if not given:
            raise ArgumentError(f"{name} is {given!r}, an empty list: leave it out for all")
        for one in given:
            check_text(f"an item of {name}", one)
    else:
        check_optional_text(name, given)


def _check_max_tasks(name: str, given: Any) -> None:
    if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
        raise ArgumentError(f"{name} is {given!r}: give a number of tasks, at least 1, or None for no limit")


def _milliseconds(moment: datetime | None) -> int | None:
    """Return a moment as the API counts it, since the epoch."""
    return None if moment is None else round(in_utc(moment).timestamp() * 1000)


def _is_within(task: ProcessorTask, after: int | None, before: int | None) -> bool:
    """Whether a task was created in a time window; one without a creation time is in every window."""
    created = task.create_time
    return created is None or ((after is None or created >= after) and (before is None or created < before))
