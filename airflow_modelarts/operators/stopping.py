"""Stopping what runs, for the stop operator and for operators that are killed. The service stops versions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_modelarts.api.errors import ModelArtsError, ModelArtsNotFoundError, ModelArtsRequestError
from airflow_modelarts.api.statuses import TERMINAL_STATUSES, ProcessorTaskStatus, status_name

if TYPE_CHECKING:
    from airflow_modelarts.hooks import ModelArtsHook


def stop_active_versions(hook: ModelArtsHook, processor_task_id: str) -> list[str]:
    """
    Stop every version of a processing task that has not ended (StopProcessorTaskVersion); return their ids.

    When one cannot be stopped, the others are stopped all the same. One that ends before it is stopped is no error.

    :param hook: an open hook; its retries say how patient each call is.
    :param processor_task_id: the processing task's id.
    :raises ModelArtsRequestError: the task has no versions, like every feature analysis: nothing can stop it.
    :raises ModelArtsError: a version was not stopped. Of several errors it is the first; all are in the log.
    """
    versions = list(hook.list_processor_task_versions(processor_task_id))
    if not versions:
        raise ModelArtsRequestError(
            f"Processing task '{processor_task_id}' cannot be stopped: it has no versions, as every feature analysis, "
            "and the service stops versions only. Let it end by itself",
            operation="StopProcessorTaskVersion",
        )
    active = [version for version in versions if version.status not in TERMINAL_STATUSES]
    if not active:
        hook.log.info("No version of processing task '%s' is active: there is nothing to stop.", processor_task_id)
    stopped: list[str] = []
    errors: list[ModelArtsError] = []
    for version in active:
        try:
            version_id = version.task_version_id or ""
            if stop_version(hook, processor_task_id, version_id):
                stopped.append(version_id)
        except ModelArtsError as error:
            hook.log.warning("%s", error)
            errors.append(error)
    if errors:
        raise errors[0]
    return stopped


def stop_version(hook: ModelArtsHook, processor_task_id: str, version_id: str) -> bool:
    """
    Stop a version (StopProcessorTaskVersion); return False for one that has ended by itself before that.

    :raises ModelArtsError: it was not stopped.
    """
    try:
        hook.stop_processor_task_version(processor_task_id, version_id)
    except (ModelArtsNotFoundError, ModelArtsRequestError):
        # It may have ended meanwhile, or been stopped by an attempt whose answer was lost.
        end = _end_of(hook, processor_task_id, version_id)
        if end is None:
            raise
        if end != ProcessorTaskStatus.STOPPED:
            say_ended(hook, processor_task_id, version_id, end)
            return False
    hook.log.info("Stopped version '%s' of processing task '%s'.", version_id, processor_task_id)
    return True


def say_ended(hook: ModelArtsHook, processor_task_id: str, version_id: str, status: int | None) -> None:
    """Log that a version needs no stop."""
    text = "Version '%s' of processing task '%s' had ended already: it is %s."
    hook.log.info(text, version_id, processor_task_id, status_name(status))


def _end_of(hook: ModelArtsHook, processor_task_id: str, version_id: str) -> int | None:
    """Return the status of a version that has ended; None when it has not, or nobody knows."""
    try:
        status = hook.describe_processor_task_version(processor_task_id, version_id).status
    except ModelArtsError:  # the refusal of the stop says more
        return None
    return status if status in TERMINAL_STATUSES else None
