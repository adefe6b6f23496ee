"""The sensor. Whatever is heavy is imported where it runs, since every DAG file pays for the imports at the top."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_modelarts.api.statuses import TERMINAL_STATUSES, ProcessorTaskStatus, status_name
from airflow_modelarts.exceptions import ModelArtsProcessorTaskFailed

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context

    from airflow_modelarts.api.errors import ModelArtsError
    from airflow_modelarts.api.models import ProcessorTask
    from airflow_modelarts.hooks import ModelArtsHook

#: Seconds; where the pauses of an outage stop growing, unless the poke interval is longer.
LONGEST_OUTAGE_PAUSE = 300.0


class ModelArtsProcessorTaskSensor(BaseSensorOperator):
    """
    Waits until a processing task has ended: completed (2), failed (3) or stopped (4).

    Its XCom is ``{"task_id": …, "status": 2, "status_name": "completed"}``.

    While the service is out of order, throttles, or answers nonsense, the sensor goes on waiting, with growing pauses,
    until its own ``timeout``. Refused credentials, an unknown task and a wrong project or endpoint fail it at once.

    It calls DescribeProcessorTask once a poke.

    :param processor_task_id: the processing task's id (templated).
    :param failed_statuses: ends that fail the sensor, with the service's ``error_msg``; default 3 and 4. With ``()`` it
        succeeds at any end and says in its XCom which one it was.
    :param modelarts_conn_id: the Airflow connection (templated), default ``modelarts_default``.
    :param project_id: instead of the connection's (templated).
    :raises ValueError: ``failed_statuses`` has one that is no end.
    :raises ModelArtsProcessorTaskFailed: the task ended with a status in ``failed_statuses``; with ``soft_fail`` the
        sensor is skipped instead.
    :raises ModelArtsError: the service refused the call; the message says what to change.
    """

    template_fields: Sequence[str] = ("processor_task_id", "modelarts_conn_id", "project_id")
    ui_color = "#ffe4e1"

    def __init__(
        self,
        *,
        processor_task_id: str,
        failed_statuses: Iterable[int] = (ProcessorTaskStatus.FAILED, ProcessorTaskStatus.STOPPED),
        modelarts_conn_id: str = "modelarts_default",
        project_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.processor_task_id = processor_task_id
        self.failed_statuses = tuple(int(status) for status in failed_statuses)
        self.modelarts_conn_id = modelarts_conn_id
        self.project_id = project_id
        if not TERMINAL_STATUSES.issuperset(self.failed_statuses):
            raise ValueError(f"failed_statuses is {self.failed_statuses}: only 2, 3 and 4 are ends of a task")
        self._last_status: int | None = -1  # unlike anything that was seen
        self._outage: ModelArtsError | None = None
        self._failed_pokes = 0

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Read the task once (DescribeProcessorTask)."""
        task = self._read()
        if task is None or not task.is_terminal:
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._conclude(task))

    def _conclude(self, task: ProcessorTask) -> dict[str, Any]:
        """Turn the end of the task into the sensor's XCom, or into its failure."""
        outcome = f"Processing task '{task.task_id}' {status_name(task.status)}"
        if task.status not in self.failed_statuses:
            return {"task_id": task.task_id, "status": task.status, "status_name": status_name(task.status)}
        message = f"{outcome}: {task.error_msg or 'the service gave no error_msg'}"
        if self.soft_fail:
            raise AirflowSkipException(message)
        if self.silent_fail:
            # It would swallow any other exception, and go on asking after a task that has ended.
            raise AirflowFailException(message)
        raise ModelArtsProcessorTaskFailed(message)

    def _read(self) -> ProcessorTask | None:
        """Read the task; None while nobody can tell how it is."""
        from airflow_modelarts.api.errors import ModelArtsError

        try:
            with self._open_hook() as hook:
                task = hook.describe_processor_task(self.processor_task_id)
        except ModelArtsError as error:
            if not error.temporary:
                raise
            if self._outage is None:
                self.log.warning("%s The sensor goes on waiting.", error)
            self._outage = error
            self._failed_pokes += 1
            return None
        if self._outage is not None:
            self.log.info("ModelArts answers again.")
            self._outage, self._failed_pokes = None, 0
        self._log_change(task)
        return task

    def _open_hook(self) -> ModelArtsHook:
        from airflow_modelarts.api.exchange import Retries
        from airflow_modelarts.hooks import ModelArtsHook

        # The wait itself is the retry; one repetition spares a mere blip the whole poke interval.
        retries = Retries(attempts=2, longest_retry_after=5.0)
        return ModelArtsHook(self.modelarts_conn_id, project_id=self.project_id, retries=retries)

    def _log_change(self, task: ProcessorTask) -> None:
        if task.status == self._last_status:
            return
        self._last_status = task.status
        self.log.info("Processing task '%s' is %s.", task.task_id, status_name(task.status))

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        """Stretch the pause during an outage, and let the service say how long; otherwise it is Airflow's own."""
        usual: float = super()._get_next_poke_interval(started_at, run_duration, poke_count)
        if self._outage is None:
            return usual
        longest = max(usual, LONGEST_OUTAGE_PAUSE)
        grown = usual * 2.0 ** min(self._failed_pokes - 1, 60)
        wanted = min(longest, max(grown, self._outage.retry_after or 0.0))
        # The wait must not sleep past its own timeout.
        return max(min(wanted, self.timeout - run_duration()), 0.0) if wanted > usual else usual
