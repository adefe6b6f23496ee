"""``reuse_existing`` of the create operator: adopts a task of the same name that is active or completed."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from airflow_modelarts.api.errors import ModelArtsAlreadyExistsError
from airflow_modelarts.api.same_request import check_same_request
from airflow_modelarts.api.statuses import ProcessorTaskStatus
from airflow_modelarts.operators.submission_store import REUSED

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.models import ProcessorTask
    from airflow_modelarts.operators.create import ModelArtsCreateProcessorTaskOperator


def first_usable_name(operator: ModelArtsCreateProcessorTaskOperator) -> tuple[str, ProcessorTask | None]:
    """Return the first name that is free or that of an active or completed task, and that task.

    The names are the operator's, and the same with ``-2``, ``-3`` and so on.
    """
    for number in count(1):
        name = f"{operator.name}-{number}" if number > 1 else f"{operator.name}"
        found = operator._find(name)
        if found is None or not found.is_terminal or found.status == ProcessorTaskStatus.COMPLETED:
            return name, found
        operator.log.info("Processing task '%s' named '%s' is %s: not reused.", found.task_id, name, found.status_name)
    raise AssertionError("count is endless")


def create_or_reuse(operator: ModelArtsCreateProcessorTaskOperator, context: Context) -> str:
    """Adopt the task of the name, or create it; if another run creates it in that moment, adopt that one.

    :raises ModelArtsAlreadyExistsError: another request created it, or it is not in the workspace of this one.
    """
    name, existing = first_usable_name(operator)
    taken, refusal = operator._try.taken or ("", None)
    if existing is None and name != taken:
        if operator._try.store:
            operator._try.store.begin(name)
        try:
            return operator._create(context, name, may_exist=False)
        except ModelArtsAlreadyExistsError as error:
            if error.outcome_unknown:
                raise
            taken, refusal = name, error
        name, existing = first_usable_name(operator)
    if existing is not None:
        return reuse(operator, context, name, existing)
    assert refusal is not None  # noqa: S101  # nosec B101 - without one, the task was created
    if name == taken:
        hint = "No task of this name is in the workspace of this request: set workspace_id if it is in another one."
        refusal.args = (f"{refusal} {hint}",)
    raise refusal


def reuse(operator: ModelArtsCreateProcessorTaskOperator, context: Context, name: str, existing: ProcessorTask) -> str:
    """Adopt a task that exists, and note that nothing here may stop it; return its id.

    :raises ModelArtsAlreadyExistsError: another request created it.
    """
    current = operator._try
    task = current.hook.describe_processor_task(existing.task_id)  # a list may leave fields out
    check_same_request(operator._body(), task)
    operator.log.info("Processing task '%s' named '%s' is %s: reusing it.", task.task_id, name, task.status_name)
    if current.store:
        current.store.begin({REUSED: name})
    context["ti"].xcom_push(key=REUSED, value=True)
    current.is_reused = True
    return task.task_id


def recall_reuse(operator: ModelArtsCreateProcessorTaskOperator, context: Context) -> bool:
    """Whether this try adopted a task that existed: a worker that resumes may have no store."""
    index = context["ti"].map_index
    return bool(context["ti"].xcom_pull(task_ids=operator.task_id, key=REUSED, map_indexes=index))
