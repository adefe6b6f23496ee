"""What the sensor and the operators that run something share: status checks, polling, deferral, timeouts, failures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import TaskDeferred, conf

from airflow_modelarts.api.statuses import ProcessorTaskStatus, read_ends, status_name
from airflow_modelarts.base import ModelArtsOperator

if TYPE_CHECKING:
    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion
    from airflow_modelarts.api.targets import Target
    from airflow_modelarts.hooks import ModelArtsHook


class WaitingOperator(ModelArtsOperator):
    """
    An operator or sensor that waits for the end of a processing task or a version.

    :param failed_statuses: statuses that fail it, with the service's ``error_msg``, as numbers or names, for example
        ``["failed"]``; default 3 (failed) and 4 (stopped).
    :param deferrable: wait in the triggerer; default is Airflow's ``[operators] default_deferrable``.
    """

    argument_checks: ClassVar = {**ModelArtsOperator.argument_checks, "failed_statuses": read_ends}

    def __init__(
        self,
        *,
        failed_statuses: Iterable[int | str] = (ProcessorTaskStatus.FAILED, ProcessorTaskStatus.STOPPED),
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.failed_statuses = read_ends("failed_statuses", failed_statuses)
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable

    @abstractmethod
    def _trigger_arguments(self) -> dict[str, Any]:
        """Return the trigger's arguments beside the target and the connection."""

    def _deferral(self, target: Target, deadline: float | None, timeout: float | None) -> TaskDeferred:
        """
        Return the exception that hands the wait over to the triggerer.

        :param deadline: what ``execute_complete`` gets, in seconds since the epoch; None for no limit.
        :param timeout: seconds after which Airflow ends the deferred wait; None for no limit.
        """
        from airflow_modelarts.triggers import ProcessorTaskTrigger

        trigger = ProcessorTaskTrigger(
            processor_task_id=target.task_id,
            task_version_id=target.task_version_id,
            workspace_id=target.workspace_id,
            modelarts_conn_id=self.modelarts_conn_id,
            project_id=self.project_id,
            **self._trigger_arguments(),
        )
        return TaskDeferred(
            trigger=trigger,
            method_name="execute_complete",
            kwargs={"deadline": deadline},
            timeout=None if timeout is None else timedelta(seconds=max(timeout, 0.0)),
        )


def describe(hook: ModelArtsHook, target: Target) -> ProcessorTask | ProcessorTaskVersion:
    """Read a task or a version (DescribeProcessorTask, DescribeProcessorTaskVersion)."""
    if target.task_version_id is None:
        return hook.describe_processor_task(target.task_id)
    return hook.describe_processor_task_version(target.task_id, target.task_version_id)


def describe_failure(target: Target, status: int | None, reason: str | None) -> str:
    """Return the message of a failure; without a reason it says that the service gave none."""
    return f"{target} {status_name(status)}: {reason or 'the service gave no error_msg'}"


def is_trigger_timeout(next_kwargs: dict[str, Any] | None) -> bool:
    """Whether Airflow resumes a deferred task because its time is over; Airflow 2 reports it in two ways."""
    return "timeout" in str((next_kwargs or {}).get("error", "")).lower()


def describe_timeout(setting: str) -> str:
    """Return the message of a timeout, by the name of the setting that limits the wait."""
    return f"{setting} is over, and the processing task has not ended"
