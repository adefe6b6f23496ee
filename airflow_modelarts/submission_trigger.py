"""The trigger that submits: it waits for its turn in the submission queue of its connection, then for the end."""

from __future__ import annotations

from typing import Any

from airflow_modelarts.triggers import ProcessorTaskTrigger


class ProcessorTaskSubmissionTrigger(ProcessorTaskTrigger):
    """Creates a processing task when the service has room for it, then waits for its end.

    The event is ``{"task_id": …, "name": …, "status": 2, "queued_seconds": 3.5}``; without ``status`` if the wait for
    the end is not wanted. ``{"name": …, "error": …, "error_class": …, "outcome_unknown": …}`` if the submission was
    refused for good. ``{"turn": True, "queued_since": …}`` without a body: a worker submits.

    :param name: the unique name of the processing task; empty without a body.
    :param body: the fields of the request beside the name, as JSON; None if a worker submits.
    :param priority_weight: entries with a higher one are submitted first.
    :param queued_since: when the wait for capacity began, in seconds since the epoch.
    :param refusal: why the service refused what a worker submitted; empty if it has not.
    :param wait_for_completion: whether to wait for the end, too.
    :param push_ids: whether ``processor_task_id`` and ``queued_seconds`` are pushed as XComs.
    :param arguments: those of :class:`~airflow_modelarts.triggers.ProcessorTaskTrigger`.
    """

    def __init__(
        self,
        name: str = "",
        body: dict[str, Any] | None = None,
        priority_weight: int = 1,
        queued_since: float = 0.0,
        refusal: str = "",
        wait_for_completion: bool = True,
        push_ids: bool = True,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.name = name
        self.body = body
        self.priority_weight = priority_weight
        self.queued_since = queued_since
        self.refusal = refusal
        self.wait_for_completion = wait_for_completion
        self.push_ids = push_ids

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that Airflow stores: JSON, without secrets."""
        own = ("name", "body", "priority_weight", "queued_since", "refusal", "wait_for_completion", "push_ids")
        arguments = {**super().serialize()[1], **{name: getattr(self, name) for name in own}}
        return "airflow_modelarts.submission_trigger.ProcessorTaskSubmissionTrigger", arguments
