"""Operators that make the service run a processing task: a new one, or one that is there, again."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_modelarts.api.bodies import OBJECTS
from airflow_modelarts.operators.arguments import check_object
from airflow_modelarts.operators.base import ModelArtsOperator
from airflow_modelarts.operators.running import RunTaskOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.bodies import Shape
    from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion, TemplateParam
    from airflow_modelarts.api.operations import Operation

#: What a body is made of, beside its name.
BODY_FIELDS = ("template", "data_source", "inputs", "work_path", "version_id", "description", "workspace_id")


class RequestBodyMixin(RunTaskOperator):
    """What both operations send, see the operators below for its meaning."""

    template_fields: Sequence[str] = ("name", *BODY_FIELDS, *ModelArtsOperator.template_fields)
    may_be_empty = frozenset({"description"})
    template_fields_renderers = dict.fromkeys(OBJECTS, "json")
    #: Of the files that may hold one of the objects; anything else that ends so is no file's name.
    template_ext = (".json",)
    argument_shapes: ClassVar[Mapping[str, Shape]] = OBJECTS

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
        objects = {"template": template, "data_source": data_source, "inputs": inputs, "work_path": work_path}
        if not getattr(self.get_dag(), "jinja_environment_kwargs", None):  # with them, any text can be a template
            for field, value in objects.items():
                check_object(field, value)
        self.name = name
        self.template = plain(template)
        self.data_source = plain(data_source)
        self.inputs = plain(inputs)
        self.work_path = plain(work_path)
        self.version_id = version_id
        self.description = description
        self.workspace_id = workspace_id

    def resolve_template_files(self) -> None:
        """Read the files that the objects of the body are in; Airflow's own looks at every field."""
        fields = self.template_fields
        try:
            self.template_fields = tuple(OBJECTS)
            super().resolve_template_files()
        finally:
            self.template_fields = fields

    def _body(self) -> dict[str, Any]:
        return {field: getattr(self, field) for field in BODY_FIELDS}


class ModelArtsCreateProcessorTaskOperator(RequestBodyMixin):
    """
    Creates a processing task (CreateProcessorTask), exactly once, waits for its end, and hands it on.

    Before it posts, it writes the name that the task will have to Airflow's task state store (Airflow 3.3). A retry
    after a crash finds that name: a task that has it is adopted, active or completed; if there is none, it is posted
    again under the same name, which the service refuses twice. After a task that failed, a retry starts a new one, and
    so does clearing the Airflow task after a success. On an older Airflow each try creates a task.

    It pushes what :class:`~airflow_modelarts.operators.ModelArtsDescribeProcessorTaskOperator` does: ``return_value``,
    ``result`` and ``work_path``; beside that ``processor_task_id`` as soon as it is known, and ``version``: its id
    (``task_version_id``), status and sample counts (``add_sample_count``, …), or None for a task without versions. An
    output that is None arrives as such: ``create.output["result"]`` can always be given to another task.

    Cleared or marked while the task runs, it stops the running version, which is then no success whatever
    ``failed_statuses`` says. Before Airflow 3.3 a task that is deferred cannot notice this. Killed for another reason,
    such as the shutdown of the worker, it stops it only if no retry follows that adopts it. A feature analysis cannot
    be stopped: cleared while it runs, it is adopted, with the inputs that it was started with.

    Every field of the request is templated, however deep in it the template stands. ``template``, ``data_source``,
    ``inputs`` and ``work_path`` may be text too: JSON or a Python literal, as a template renders it, or the name of a
    file that ends in ``.json`` and is a template itself. Numbers are taken for text wherever the API wants text, and
    texts are not turned into numbers by ``render_template_as_native_obj``.

    :param name: of the processing task (templated).
    :param template: ``{"id": "sys_data_validation", "operator_params": [...]}``, or a
        :class:`~airflow_modelarts.api.models.TemplateParam` (templated).
    :param data_source: the one input; exactly one of this and ``inputs`` is given (templated).
    :param inputs: the list of inputs, for example ``[{"type": "DATASET", "source": …}]`` (templated).
    :param work_path: where the task writes, for example ``{"type": "OBS", "path": "obs://…"}`` (templated).
    :param version_id: the dataset version to process (templated).
    :param description: at most 256 characters, none of ``^ ! < > = & " '`` (templated).
    :param create_version: default is what the template needs: true for any but ``sys_data_analyse``.
    :param workspace_id: default "0" (templated).
    :param random_name_suffix: whether a few random characters follow the name, since the service refuses a name twice;
        default true. Without them the name must be new in the project at each run, and only a later try gets ``-2``.
    :param wait_for_completion: whether to wait for the end; default true.
    :param poll_interval: seconds between two looks, at most; default 60.
    :param failed_statuses: ends that fail the operator, with the service's ``error_msg``, as numbers or names, for
        example ``["failed"]``; default 3 (failed) and 4 (stopped).
    :param deferrable: wait in the triggerer; default is Airflow's ``[operators] default_deferrable``.
    :param durable: whether to remember across tries (Airflow 3.3); default true.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :raises ValueError: ``failed_statuses`` has one that is no end, or an object of the request is a literal that is
        none, such as ``template="sys_data_validation"``.
    :raises ModelArtsRequestError: the request is not valid; nothing was sent, and every fault is named.
    :raises ModelArtsAlreadyExistsError: there is a task of this name, with ``random_name_suffix=False``.
    :raises ModelArtsProcessorTaskFailed: the task ended with a status in ``failed_statuses``, or was stopped since the
        Airflow task was killed.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    def __init__(
        self,
        *,
        name: str,
        template: Mapping[str, Any] | TemplateParam | str,
        create_version: bool | None = None,
        random_name_suffix: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, template=template, **kwargs)
        self.create_version = create_version
        self.random_name_suffix = random_name_suffix

    def _operation(self, name: str) -> Operation[Any]:
        from airflow_modelarts.api import operations
        from airflow_modelarts.api.models import FEATURE_ANALYSIS

        create_version = self.create_version
        if (
            create_version is None
            and isinstance(self.template, Mapping)
            and self.template.get("id") != FEATURE_ANALYSIS
        ):
            create_version = True
        return operations.create_processor_task(name=name, create_version=create_version, **self._body())

    def _check(self) -> None:
        self._operation(self.name or "")

    def _submit(self, context: Context, pending: Any) -> str:
        if pending is not None:
            found = self._find(pending)
            if found is None:
                self.log.info("An earlier try meant to create '%s', and it is not there.", pending)
                return self._create(pending, may_exist=True)
            if self._adopts(found.task_id, found.status):
                self.log.info("An earlier try has created '%s' already; adopting it.", pending)
                return found.task_id
        name = self._new_name(context)
        if not self.random_name_suffix:
            self._refuse_a_taken(name)  # before it is noted: what is found under a noted name is adopted
        if self._submission_store:
            self._submission_store.begin(name)
        return self._create(name, may_exist=False)

    def _new_name(self, context: Context) -> str:
        if self.random_name_suffix:
            return f"{self.name}-{secrets.token_hex(4)}"
        try_number = context["ti"].try_number
        return f"{self.name}-{try_number}" if try_number > 1 else f"{self.name}"

    def _refuse_a_taken(self, name: str) -> None:
        from airflow_modelarts.api.errors import ADVICE, ModelArtsAlreadyExistsError

        if found := self._find(name):
            raise ModelArtsAlreadyExistsError(
                f"A processing task named '{name}' exists already: '{found.task_id}'. "
                f"{ADVICE[ModelArtsAlreadyExistsError]}, or set random_name_suffix.",
                operation="CreateProcessorTask",
            )

    def _create(self, name: str, *, may_exist: bool) -> str:
        from airflow_modelarts.api import procedures

        create = partial(procedures.create_task, self._operation(name), name, self.workspace_id)
        task_id = self._run_submission(create, may_exist=may_exist)
        self.log.info("Processing task '%s' is named '%s'.", task_id, name)
        return task_id

    def _find(self, name: str) -> ProcessorTask | None:
        from airflow_modelarts.api import procedures

        return self._open().run(procedures.find_task(name, self.workspace_id))

    def _read(self, external_id: str) -> ProcessorTask:
        return self._open().describe_processor_task(external_id)

    def _note_for_lineage(self, seen: ProcessorTask) -> None:
        self._processor_task = seen

    def _lineage_body(self) -> dict[str, Any]:
        self._read_arguments()  # before it is executed
        return self._body()

    def _ids(self, external_id: str) -> tuple[str, str | None]:
        return external_id, None


class ModelArtsCreateProcessorTaskVersionOperator(RequestBodyMixin):
    """
    Runs a processing task again, as a new version of it (CreateProcessorTaskVersion), and waits for that version's end.

    What is not given is taken from the task as it is; with new inputs, the old ``version_id`` is not. It pushes what
    :class:`~airflow_modelarts.operators.ModelArtsCreateProcessorTaskOperator` does, and ``task_version_id`` beside
    ``processor_task_id``, as soon as they are known. Killed, it stops the version, as that one does.

    Before it posts, it notes the task's versions in Airflow's task state store (Airflow 3.3). A retry after a crash
    adopts a version that has come since. It cannot tell its own version from one that somebody else made of the same
    task before the retry, as there is nothing in a version by which to know it.

    :param processor_task_id: the processing task's id (templated). A feature analysis has no versions.
    :param name: that the request carries, without a suffix (templated); default is the task's own.
    :param template: as in :class:`~airflow_modelarts.operators.ModelArtsCreateProcessorTaskOperator`, as are all
        others; there is no ``create_version`` and no ``random_name_suffix`` here, and none has to be given.
    :raises ValueError: ``failed_statuses`` has one that is no end.
    :raises ModelArtsRequestError: the request is not valid; no version was made.
    :raises ModelArtsProcessorTaskFailed: the version ended with a status in ``failed_statuses``, or was stopped since
        the Airflow task was killed.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

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
        self.processor_task_id = processor_task_id

    def _check(self) -> None:
        """Nothing to check before the task is read, which lends what is not given."""

    def _submit(self, context: Context, pending: Any) -> str:
        from airflow_modelarts.api import procedures

        noted = self._noted(pending)
        if noted is not None:
            found = self._open().run(procedures.newest_version(self.processor_task_id, ignored=noted))
            if found is None:
                return self._create(self._operation(), noted, may_exist=True)
            if self._adopts(found.task_version_id or "", found.status):
                self.log.info("An earlier try has created version '%s' already; adopting it.", found.task_version_id)
                return found.task_version_id or ""
        operation = self._operation()  # before it is noted, since it may turn out not to be valid
        before = self._open().run(procedures.version_ids(self.processor_task_id))
        if self._submission_store:
            self._submission_store.begin({"processor_task_id": self.processor_task_id, "versions": sorted(before)})
        return self._create(operation, before, may_exist=False)

    def _noted(self, pending: Any) -> set[str] | None:
        """Return the versions that there were when an earlier try was about to post; None if it was of another task."""
        if pending is None or pending["processor_task_id"] != self.processor_task_id:
            return None
        return set(pending["versions"])

    def _create(self, operation: Operation[Any], known: set[str], *, may_exist: bool) -> str:
        from airflow_modelarts.api import procedures

        create = partial(procedures.create_version, operation, self.processor_task_id, known)
        created = self._run_submission(create, may_exist=may_exist)
        self.log.info("Processing task '%s' runs again, as version '%s'.", self.processor_task_id, created)
        return created

    def _operation(self) -> Operation[Any]:
        from airflow_modelarts.api import operations

        given = {"name": self.name, **self._body()}
        body = self._inherited_fields(given) | {field: value for field, value in given.items() if value is not None}
        return operations.create_processor_task_version(self.processor_task_id, **body)

    def _inherited_fields(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the task as it is lends to the new version."""
        task = self._open().describe_processor_task(self.processor_task_id).to_json()
        lent = {field: task[field] for field in ("name", *BODY_FIELDS) if task.get(field) is not None}
        if given["inputs"] is not None or given["data_source"] is not None:
            for field in ("data_source", "inputs", "version_id"):  # the last is of the dataset that they name
                lent.pop(field, None)
        elif "inputs" in lent:
            lent.pop("data_source", None)  # the service tells both, and takes one
        if isinstance(lent.get("work_path"), dict):
            lent["work_path"].pop("version_name", None)  # that of the version before
        return lent

    def _read(self, external_id: str) -> ProcessorTaskVersion:
        return self._open().describe_processor_task_version(self.processor_task_id, external_id)

    def _note_for_lineage(self, seen: ProcessorTaskVersion) -> None:
        self._task_version = seen

    def _ids(self, external_id: str) -> tuple[str, str | None]:
        return self.processor_task_id, external_id


def plain(value: Any) -> Any:
    """Return models as the JSON they stand for, and the rest as it is: Airflow renders templates in plain JSON only."""
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_unset=True)
    if not isinstance(value, tuple | list | dict):
        return value
    made = {key: plain(value[key]) for key in value} if isinstance(value, dict) else [plain(item) for item in value]
    return value if made == value else made  # Airflow knows by their identity the values that it must not render again
