"""The operator that creates a processing task and waits for its end."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_modelarts.api.arguments import (
    ArgumentError,
    check_optional_text,
    check_text,
    read_flag,
    read_optional_flag,
)
from airflow_modelarts.api.bodies import OBJECTS
from airflow_modelarts.api.errors import ModelArtsAlreadyExistsError
from airflow_modelarts.operators.arguments import check_object, check_template
from airflow_modelarts.operators.base import ModelArtsOperator
from airflow_modelarts.operators.running import RunTaskOperator
from airflow_modelarts.templating import TEXT_OR_VALUE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.bodies import Shape
    from airflow_modelarts.api.models import CreatedTask, ProcessorTask, TemplateParam
    from airflow_modelarts.api.operations import Operation
    from airflow_modelarts.api.targets import Target

#: The fields of a request body, beside its name.
BODY_FIELDS = ("template", "data_source", "inputs", "work_path", "version_id", "description", "workspace_id")


class RequestBodyMixin(RunTaskOperator):
    """The request body that both operators send; they document its fields."""

    template_fields: Sequence[str] = ("name", *BODY_FIELDS, "output_files_to_xcom", *ModelArtsOperator.template_fields)
    may_be_empty = frozenset({"description"})
    template_fields_renderers = dict.fromkeys(OBJECTS, "json")
    #: Of files that hold one of the objects. A text that ends so in any other field is not a file name.
    template_ext = (".json",)
    argument_shapes: ClassVar[Mapping[str, Shape]] = {**OBJECTS, "output_files_to_xcom": TEXT_OR_VALUE}
    argument_checks: ClassVar = {
        **RunTaskOperator.argument_checks,
        **dict.fromkeys(("name", "version_id", "description", "workspace_id"), check_optional_text),
        **dict.fromkeys(OBJECTS, check_object),
        "template": check_template,
    }

    def __init__(
        self,
        *,
        name: str | None,
        template: Mapping[str, Any] | TemplateParam | str | None,
        data_source: Mapping[str, Any] | str | None = None,
        inputs: Sequence[Mapping[str, Any]] | str | None = None,
        work_path: Mapping[str, Any] | str | None = None,
        version_id: str | None = None,
        description: str | None = None,
        workspace_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_arguments(
            name=name,
            template=template,
            data_source=data_source,
            inputs=inputs,
            work_path=work_path,
            version_id=version_id,
            description=description,
            workspace_id=workspace_id,
        )
        self.name = name
        self.template = dump_models(template)
        self.data_source = dump_models(data_source)
        self.inputs = dump_models(inputs)
        self.work_path = dump_models(work_path)
        self.version_id = version_id
        self.description = description
        self.workspace_id = workspace_id

    def resolve_template_files(self) -> None:
        """Read the files that hold objects of the body; Airflow's own method reads files for every field."""
        fields = self.template_fields
        try:
            self.template_fields = tuple(OBJECTS)
            super().resolve_template_files()
        finally:
            self.template_fields = fields

    def _body(self) -> dict[str, Any]:
        return {field: getattr(self, field) for field in BODY_FIELDS}


class ModelArtsCreateProcessorTaskOperator(RequestBodyMixin):
    """Creates a processing task (CreateProcessorTask) exactly once, waits for its end, and pushes it.

    Before the request is sent, the name of the task is written to Airflow's task state store (Airflow 3.3). A retry
    after a crash looks that name up and adopts the task, active or completed. If there is none, it submits again under
    the same name. The service refuses a name twice, so at most one task exists. A retry after a task that failed
    creates a new one, and so does clearing the Airflow task after a success. On an older Airflow each try creates a
    task.

    It pushes the XComs of :class:`~airflow_modelarts.operators.ModelArtsDescribeProcessorTaskOperator`:
    ``return_value``, ``result``, ``work_path`` and ``output_files``. It also pushes ``processor_task_id`` and
    ``queued_seconds`` as soon as they are known, and ``version``: its id (``task_version_id``), status and sample
    counts (``add_sample_count``, …), or None for a task without versions. An output that is None reaches downstream
    tasks as None:
    ``create.output["result"]`` always works.

    If the Airflow task is cleared or marked while the processing task runs, its running version is stopped, and the
    try is no success whatever ``failed_statuses`` says. Before Airflow 3.3 this does not work for a deferred task. If
    the try is killed for another reason, such as the shutdown of its worker, the version is stopped only if no retry
    follows that adopts it. A feature analysis cannot be stopped: cleared while it runs, it is adopted with the inputs
    that it was started with.

    Every field of the request is templated at any depth. ``template``, ``data_source``, ``inputs`` and ``work_path``
    may also be text: JSON or a Python literal, as a template renders it, or the name of a file that ends in ``.json``
    and is itself a template. Numbers become text wherever the API expects text, and ``render_template_as_native_obj``
    does not turn texts into numbers.

    :param name: name of the processing task (templated).
    :param template: ``{"id": "sys_data_validation", "operator_params": [...]}``, or a
        :class:`~airflow_modelarts.api.models.TemplateParam` (templated).
    :param data_source: the one input; exactly one of this and ``inputs`` is given (templated).
    :param inputs: the list of inputs, for example ``[{"type": "DATASET", "source": …}]`` (templated).
    :param work_path: where the task writes, for example ``{"type": "OBS", "path": "obs://…"}`` (templated).
    :param version_id: the dataset version to process (templated).
    :param description: at most 256 characters, none of ``^ ! < > = & " '`` (templated).
    :param create_version: default is what the template needs: true for any but ``sys_data_analyse``.
    :param workspace_id: default "0" (templated).
    :param random_name_suffix: whether random characters are appended to the name, since the service refuses a name
        twice; default true. Without them the name must be new in the project at each run; later tries append ``-2``.
    :param wait_for_capacity: whether to wait, until ``execution_timeout``, while the service refuses the submission for
        now, since a limit is reached, it throttles or it has a fault; default true. ``queued_seconds`` is the time that
        it waited. Without it, a limit fails the operator at once.
    :param output_files_to_xcom: as in
        :class:`~airflow_modelarts.operators.ModelArtsDescribeProcessorTaskOperator` (templated); the files are read
        after a success.
    :param reuse_existing: whether a task of this name that is active or completed is adopted instead of refused;
        default false. It needs ``random_name_suffix=False``. The request must be the same. A task of the name that
        failed or was stopped is not adopted: then ``-2`` is appended, or the next number that is free or reusable. A
        reused task is not stopped when the Airflow task is killed.
    :param cancel_on_kill: whether the running version is stopped when the Airflow task is killed, cleared or marked, or
        exceeds ``execution_timeout``; default true. Otherwise the processing task goes on, and a retry or a cleared
        Airflow task adopts it (Airflow 3.3).
    :param wait_for_completion: whether to wait for the end; default true. Without it, an ``Asset`` among the outlets is
        refused, since Airflow would emit its event before the end: give it to the sensor that waits.
    :param poll_interval: seconds between two polls, at most, or a timedelta; default 60.
    :param failed_statuses: statuses that fail the operator, with the service's ``error_msg``, as numbers or names, for
        example ``["failed"]``; default 3 (failed) and 4 (stopped).
    :param deferrable: wait in the triggerer; default is Airflow's ``[operators] default_deferrable``.
    :param durable: whether a retry recovers the submission of an earlier try (Airflow 3.3); default true.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :param fail_fast: fail without ``retries`` where a retry cannot mend the error, see
        :mod:`airflow_modelarts.api.permanence`; default false.
    :raises ArgumentError: an argument cannot be right, such as ``template="sys_data_validation"``. It is a
        ``ValueError`` and a ``TypeError``.
    :raises ModelArtsRequestError: the request is not valid; nothing was sent, and every fault is named.
    :raises ModelArtsAlreadyExistsError: there is a task of this name, with ``random_name_suffix=False``; with
        ``reuse_existing``, one of another request, and the message shows the difference.
    :raises ModelArtsProcessorTaskFailed: the task ended with a status in ``failed_statuses``, or was stopped because
        the Airflow task was killed.
    :raises ModelArtsBusyError: a limit is reached, with ``wait_for_capacity=False``.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    argument_checks: ClassVar = {
        **RequestBodyMixin.argument_checks,
        "name": check_text,
        "create_version": read_optional_flag,
        **dict.fromkeys(("random_name_suffix", "reuse_existing"), read_flag),
    }

    def __init__(
        self,
        *,
        name: str,
        template: Mapping[str, Any] | TemplateParam | str,
        create_version: bool | None = None,
        random_name_suffix: bool = True,
        reuse_existing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, template=template, **kwargs)
        self._check_arguments(
            create_version=create_version, random_name_suffix=random_name_suffix, reuse_existing=reuse_existing
        )
        self.create_version = create_version
        self.random_name_suffix = random_name_suffix
        self.reuse_existing = reuse_existing

    @classmethod
    def check_arguments(cls, given: Mapping[str, Any], dag: Any) -> None:
        """Check arguments; ``reuse_existing`` needs a name without a random suffix."""
        super().check_arguments(given, dag)
        if given.get("reuse_existing") and given.get("random_name_suffix", True):
            raise ArgumentError(
                "reuse_existing is True and random_name_suffix is True: a name with random characters is always new. "
                "Give random_name_suffix=False too"
            )

    def _operation(self, name: str) -> Operation[CreatedTask]:
        from airflow_modelarts.api import operations
        from airflow_modelarts.api.models import FEATURE_ANALYSIS

        create_version = self.create_version
        if create_version is None and isinstance(self.template, Mapping):
            create_version = True if self.template.get("id") != FEATURE_ANALYSIS else None
        return operations.create_processor_task(name=name, create_version=create_version, **self._body())

    def _validate_request(self) -> None:
        self._operation(self.name or "")

    def _submit(self, context: Context, unconfirmed: Any) -> str:
        if isinstance(unconfirmed, str):
            found = self._find(unconfirmed)
            is_given_up = self.cancel_on_kill and self._try.store is not None and self._try.store.was_cleared
            if found is None and not is_given_up:
                self.log.info("An earlier try was about to create '%s', which does not exist.", unconfirmed)
                return self._create(context, unconfirmed, may_exist=True)
            if found is not None and self._adopts(found.task_id, found.status):
                self.log.info("An earlier try has created '%s' already; adopting it.", unconfirmed)
                return found.task_id
        if self.reuse_existing:
            from airflow_modelarts.operators.reusing import create_or_reuse

            return create_or_reuse(self, context)
        name = self._new_name(context)
        if not self.random_name_suffix:
            self._refuse_existing(name)  # before it is stored: a task with a stored name is adopted
        if self._try.store:
            self._try.store.begin(name)
        return self._create(context, name, may_exist=False)

    def _new_name(self, context: Context) -> str:
        if self.random_name_suffix:
            return f"{self.name}-{secrets.token_hex(4)}"
        try_number = context["ti"].try_number
        return f"{self.name}-{try_number}" if try_number > 1 else f"{self.name}"

    def _recall_reuse(self, context: Context) -> bool:
        from airflow_modelarts.operators.reusing import recall_reuse

        return self.reuse_existing and recall_reuse(self, context)

    def _refuse_existing(self, name: str) -> None:
        if found := self._find(name):
            raise ModelArtsAlreadyExistsError(
                f"A processing task named '{name}' exists already: '{found.task_id}'. "
                f"{ModelArtsAlreadyExistsError.default_advice}, or set random_name_suffix.",
                operation="CreateProcessorTask",
            )

    def _create(self, context: Context, name: str, *, may_exist: bool) -> str:
        from airflow_modelarts.api import procedures
        from airflow_modelarts.operators.queued_submission import defer_submission, is_left_to_triggerer

        operation = self._operation(name)
        if is_left_to_triggerer(self, operation.body):
            raise defer_submission(self, context, name, operation.body)
        create = partial(procedures.create_task, operation, name, self.workspace_id)
        task_id = self._run_submission(create, may_exist=may_exist, is_ours=self.random_name_suffix)
        self.log.info("Processing task '%s' is named '%s'.", task_id, name)
        return task_id

    def _take_over(self, context: Context, event: dict[str, Any]) -> bool:
        from airflow_modelarts.operators.queued_submission import take_over

        return take_over(self, context, event)

    def _find_deferred(self, context: Context) -> str | None:
        from airflow_modelarts.operators.queued_submission import find_deferred

        return find_deferred(self, context)

    def _find(self, name: str, body: bytes | None = None) -> ProcessorTask | None:
        from airflow_modelarts.api import procedures

        return self._try.hook.run(procedures.find_task(name, self.workspace_id, body=body))

    def _target(self, external_id: str) -> Target:
        from airflow_modelarts.api.targets import Target

        return Target(external_id)

    def _lineage_body(self) -> dict[str, Any]:
        self._read_arguments()  # lineage can be asked for before the operator executes
        return self._body()


def dump_models(value: Any) -> Any:
    """Return a value with models dumped as JSON, at any depth: Airflow renders templates in plain JSON only."""
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_unset=True)
    if not isinstance(value, tuple | list | dict):
        return value
    made = (
        {key: dump_models(item) for key, item in value.items()}
        if isinstance(value, dict)
        else [*map(dump_models, value)]
    )
    return value if made == value else made  # Airflow recognizes values that it must not render again by identity
