"""Submitting from the triggerer: how an operator defers to the submission queue, and what it does with its events."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_modelarts.api.capacity import dump_refusal, load_refusal
from airflow_modelarts.api.errors import ModelArtsAlreadyExistsError, ModelArtsError
from airflow_modelarts.base import describe_timeout

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.operators.create import ModelArtsCreateProcessorTaskOperator, RequestBodyMixin
    from airflow_modelarts.operators.running import RunTaskOperator

#: Bytes of JSON, at most, of a request that is stored in the trigger's row.
MAX_STORED_BODY = 64 * 1024
#: Characters of it in the row, at most: a row of MySQL has 65,535 bytes, and Airflow's encryption adds a third.
MAX_PACKED_BODY = 46_000
#: The XCom key of the name that the triggerer submits under, where Airflow has no task state store.
NAME_KEY = "modelarts_intended_name"


def is_left_to_triggerer(operator: RunTaskOperator, body: bytes = b"") -> bool:
    """Whether the triggerer submits; if only the size of the request prevents that, the log says so."""
    if not (operator.deferrable and operator.wait_for_capacity) or operator._killed:
        return False
    from airflow_modelarts.submission_trigger import store_body

    if len(body) <= MAX_STORED_BODY and len(store_body(body.decode())) <= MAX_PACKED_BODY:
        return True
    operator.log.info(
        "The worker submits, and not the triggerer: the request has %s bytes, more than the trigger's row takes.",
        len(body),
    )
    return False


def defer_submission(
    operator: RequestBodyMixin,
    context: Context,
    name: str = "",
    body: bytes | None = None,
    *,
    refusal: ModelArtsError | None = None,
) -> TaskDeferred:
    """Return the exception that hands the submission over to the triggerer, for as long as the timeout leaves.

    :param name: the unique name, which is stored already where Airflow has a task state store.
    :param body: the JSON of the request; None if a worker is to submit when it is its turn.
    :param refusal: why the service refused what a worker submitted in its turn.
    """
    from airflow_modelarts.submission_trigger import ProcessorTaskSubmissionTrigger

    current = operator._try
    deadline = operator._note_deferral(context)
    if current.store is None and name:
        context["ti"].xcom_push(key=NAME_KEY, value=name)
    fields = None if body is None else {key: value for key, value in json.loads(body).items() if key != "name"}
    trigger = ProcessorTaskSubmissionTrigger(
        name=name,
        body=fields,
        priority_weight=operator.priority_weight,
        queued_since=current.queued_since or time.time(),
        refusal=None if refusal is None else dump_refusal(refusal),
        refusals=current.refusals,
        deadline=deadline,
        is_ours=getattr(operator, "random_name_suffix", True),
        wait_for_completion=operator.wait_for_completion,
        push_ids=bool(operator.do_xcom_push),
        workspace_id=operator.workspace_id,
        modelarts_conn_id=operator.modelarts_conn_id,
        project_id=operator.project_id,
        **operator._trigger_arguments(),
    )
    return TaskDeferred(
        trigger=trigger,
        method_name="execute_complete",
        kwargs={"deadline": deadline},
        timeout=None if deadline is None else timedelta(seconds=max(deadline - time.time(), 0.0)),
    )


def describe_end_of_time(external_id: str | None) -> str:
    """Return the message of a timeout, by what the triggerer has submitted."""
    if external_id is None:
        return "execution_timeout is over, and nothing was submitted: the submission waited for capacity"
    return describe_timeout("execution_timeout")


def take_over(operator: ModelArtsCreateProcessorTaskOperator, context: Context, event: dict[str, Any]) -> bool:
    """Store and announce the id of what the triggerer has submitted.

    :return: false if another run has created a task of the name, which ``reuse_existing`` may adopt.
    :raises ModelArtsError: the service refused the submission.
    :raises TaskDeferred: the event is of a try that was cleared; this one waits for its own submission.
    """
    current = operator._try
    store = current.store
    if store and store.intent not in (None, event["name"]):
        if store.external_id is None:
            raise defer_submission(operator, context, store.intent, operator._operation(store.intent).body)
        return True
    if "error_class" in event:
        refusal = load_refusal(event)
        if refusal.outcome_unknown:
            raise refusal
        if store:
            store.forget()
        if operator.reuse_existing and isinstance(refusal, ModelArtsAlreadyExistsError):
            current.taken = event["name"], refusal
            return False
        raise refusal
    if store:
        store.confirm(event["task_id"])
    current.queued_seconds = event.get("queued_seconds")  # otherwise the trigger pushed it before it restarted
    seconds = f" after {current.queued_seconds:.0f} s" if current.queued_seconds is not None else ""
    operator.log.info(
        "Processing task '%s' is named '%s'; the triggerer submitted it%s.", event["task_id"], event["name"], seconds
    )
    operator._announce(context, event["task_id"])
    return True


def find_deferred(operator: ModelArtsCreateProcessorTaskOperator, context: Context) -> str | None:
    """Return the id of what the triggerer has submitted, for a worker that gets no event; None if it has not."""
    if store := operator._open_store(context):
        name = store.unconfirmed_intent
    else:
        index = context["ti"].map_index
        name = context["ti"].xcom_pull(task_ids=operator.task_id, key=NAME_KEY, map_indexes=index)
    if not isinstance(name, str):
        return None
    try:
        body = None if operator.random_name_suffix else operator._operation(name).body
        found = operator._find(name, body)
    except ModelArtsError as error:
        operator.log.warning("%s", error)
        return None
    return found.task_id if found else None
