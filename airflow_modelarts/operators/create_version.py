"""The operator that runs a processing task again, as a new version, and waits for its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_modelarts.api.arguments import check_text
from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.operators.create import BODY_FIELDS, RequestBodyMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.models import CreatedVersion, TemplateParam
    from airflow_modelarts.api.operations import Operation
    from airflow_modelarts.api.targets import Target


class ModelArtsCreateProcessorTaskVersionOperator(RequestBodyMixin):
    """Runs a processing task again, as a new version (CreateProcessorTaskVersion), and waits for that version's end.

    Fields that are not given are those of the existing task; with new inputs, its ``version_id`` is left out. It pushes
    the XComs of :class:`~airflow_modelarts.operators.ModelArtsCreateProcessorTaskOperator`, and ``task_version_id``
    beside ``processor_task_id`` as soon as they are known. Killed, it stops the version, as that one does.

    Before the request is sent, the ids of the existing versions are written to Airflow's task state store (Airflow
    3.3). A retry after a crash adopts a version that is newer. It cannot tell its own version from one that somebody
    else creates of the same task before the retry, since a version carries nothing of the request to compare.

    :param processor_task_id: the processing task's id (templated). A feature analysis has no versions.
    :param name: the name in the request, without a suffix (templated); default is the task's own.
    :param template: as in :class:`~airflow_modelarts.operators.ModelArtsCreateProcessorTaskOperator`, as are all other
        parameters; none of them is required, and there is no ``create_version`` and no ``random_name_suffix``.
    :param wait_for_capacity: whether to wait while the service refuses the version for now; default true. If the answer
        is lost, the version is looked up instead, and the operator fails if there is none: the service would accept a
        second one. With ``deferrable`` the triggerer waits, and then a worker submits.
    :raises ArgumentError: an argument cannot be right.
    :raises ModelArtsRequestError: the request is not valid; no version was created.
    :raises ModelArtsProcessorTaskFailed: the version ended with a status in ``failed_statuses``, or was stopped because
        the Airflow task was killed.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    argument_checks: ClassVar = {**RequestBodyMixin.argument_checks, "processor_task_id": check_text}
    external_id_key = "modelarts_task_version_id"
    _id_xcom = "task_version_id"
    template_fields: Sequence[str] = ("processor_task_id", *RequestBodyMixin.template_fields)

    def __init__(
        self,
        *,
        processor_task_id: str,
        name: str | None = None,
        template: Mapping[str, Any] | TemplateParam | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, template=template, **kwargs)
        self._check_arguments(processor_task_id=processor_task_id)
        self.processor_task_id = processor_task_id

    def _validate_request(self) -> None:
        """No-op: defaults come from the existing task, so there is nothing to validate yet."""

    def _submit(self, context: Context, unconfirmed: Any) -> str:
        from airflow_modelarts.api import procedures
        from airflow_modelarts.api.capacity import is_not_now
        from airflow_modelarts.operators.queued_submission import defer_submission, is_left_to_triggerer

        hook, store = self._try.hook, self._try.store
        is_queued = is_left_to_triggerer(self)
        if unconfirmed is not None and unconfirmed["processor_task_id"] == self.processor_task_id:
            known = set(unconfirmed["versions"])
            found = hook.run(procedures.newest_version(self.processor_task_id, ignored=known))
            if found is not None:
                version_id = found.task_version_id or ""
                if self._adopts(version_id, found.status):
                    self.log.info("An earlier try has created version '%s' already; adopting it.", version_id)
                    return version_id
            elif not is_queued:
                return self._create(self._operation(), known, may_exist=True)
        # The service does not refuse a version twice, so the triggerer waits for the turn, and a worker submits.
        if is_queued and self._try.queued_since is None:
            raise defer_submission(self, context)
        operation = self._operation()  # before the intent is stored, since it may turn out not to be valid
        known = hook.run(procedures.version_ids(self.processor_task_id))
        if store:
            store.begin({"processor_task_id": self.processor_task_id, "versions": sorted(known)})
        try:
            return self._create(operation, known, may_exist=False, once=is_queued)
        except ModelArtsError as error:
            if not is_queued or not is_not_now(error) or error.outcome_unknown:
                raise
            self.log.info("%s Waiting for capacity again.", error)
            raise defer_submission(self, context, refusal=error) from None

    def _create(
        self, operation: Operation[CreatedVersion], known: set[str], *, may_exist: bool, once: bool = False
    ) -> str:
        from airflow_modelarts.api import procedures

        create = partial(procedures.create_version, operation, self.processor_task_id, known)
        version_id = self._run_submission(create, may_exist=may_exist, can_repeat=False, once=once)
        if self._try.queued_since is not None:
            self._try.queued_seconds = time.time() - self._try.queued_since
        self.log.info("Processing task '%s' runs again, as version '%s'.", self.processor_task_id, version_id)
        return version_id

    def _operation(self) -> Operation[CreatedVersion]:
        from airflow_modelarts.api import operations

        given = {field: value for field, value in {"name": self.name, **self._body()}.items() if value is not None}
        return operations.create_processor_task_version(
            self.processor_task_id, **self._inherited_fields(given), **given
        )

    def _inherited_fields(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the existing task's fields that are the defaults of the new version."""
        task = self._try.hook.describe_processor_task(self.processor_task_id).to_json()
        inherited = {field: task[field] for field in ("name", *BODY_FIELDS) if task.get(field) is not None}
        if "inputs" in given or "data_source" in given:
            for field in ("data_source", "inputs", "version_id"):  # version_id is of the dataset that they name
                inherited.pop(field, None)
        elif "inputs" in inherited:
            inherited.pop("data_source", None)  # the service answers with both, and accepts one
        if isinstance(inherited.get("work_path"), dict):
            inherited["work_path"].pop("version_name", None)  # that of the version before
        return {field: value for field, value in inherited.items() if field not in given}

    def _target(self, external_id: str) -> Target:
        from airflow_modelarts.api.targets import Target

        return Target(self.processor_task_id, external_id)
