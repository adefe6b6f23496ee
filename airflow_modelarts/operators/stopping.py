"""How an operator stops a processing task: when it is killed, and when a user has cleared an earlier try."""

from __future__ import annotations

import sys
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.statuses import ProcessorTaskStatus, status_name

if TYPE_CHECKING:
    from airflow_modelarts.api.retry import RetryPolicy
    from airflow_modelarts.api.targets import Target
    from airflow_modelarts.hooks import ModelArtsHook

#: Seconds, at least, that a triggerer has to stop what it waited for when a user clears the Airflow task.
TRIGGER_GRACE = 10


class StoppingMixin:
    """Stops what the operator submitted, and nothing else."""

    log: Any
    _current: Any  # the state of this try
    _try: Any
    cancel_on_kill: bool
    _killed = False  # not part of the try: Airflow can kill the task before it executes

    @abstractmethod
    def _target(self, external_id: str) -> Target:
        """Return what the operator waits for."""

    @abstractmethod
    def _poll(self, external_id: str) -> Any:
        """Read what was submitted; an outage does not end it."""

    @abstractmethod
    def is_job_active(self, status: str) -> bool:
        """Whether it has not ended."""

    @abstractmethod
    def is_job_succeeded(self, status: str) -> bool:
        """Whether it has ended without a failure."""

    def on_kill(self) -> None:
        """Stop the running versions that this operator submitted (StopProcessorTaskVersion).

        Where another try follows that adopts them (Airflow 3.3), they are left running. After ``execution_timeout``,
        and when a user has cleared the Airflow task, they are stopped in any case. Without ``cancel_on_kill``, and
        if another Airflow task started them, they are never stopped.
        """
        from airflow_modelarts.api.retry import RetryPolicy

        self._killed = True
        current = self._current
        if current is None:
            return
        # Airflow grants five seconds. It may have interrupted the hook in the middle of anything.
        retries = RetryPolicy(attempts=3, max_delay=1.0, max_retry_after=1.0)
        if current.external_id is None and current.submission is not None:
            current.external_id = self._find_interrupted(current, retries)
        if current.external_id is None:
            return
        if reason := self._why_never_stop():
            self.log.info("%s is not stopped: %s.", self._target(current.external_id), reason)
            return
        is_timeout = isinstance(sys.exception(), AirflowTaskTimeout)  # Airflow calls this while it handles one
        if current.store and not is_timeout and current.store.another_try_adopts():
            self.log.info(
                "%s is not stopped: another try of this Airflow task follows.", self._target(current.external_id)
            )
            return
        with current.hook.clone(retries) as hook:
            self._stop(hook, current.external_id, retries)

    def _find_interrupted(self, current: Any, retries: RetryPolicy) -> str | None:
        """Return the id of what a request submitted that the kill has interrupted; None if there is none."""
        from airflow_modelarts.api import procedures

        try:
            with current.hook.clone(retries) as hook:
                found: str | None = hook.run(procedures.find_interrupted(current.submission, retries))
        except ModelArtsError as error:
            self.log.warning("%s", error)
            return None
        return found

    def _why_never_stop(self) -> str:
        """Return why nothing stops what this try waits for; empty if it can be stopped."""
        if not self.cancel_on_kill:
            return "cancel_on_kill is false"
        return "it existed before this Airflow task" if self._current.is_reused else ""

    def _stop(self, hook: ModelArtsHook, external_id: str, retries: RetryPolicy) -> bool:
        """Stop the running versions; return False, with the reason in the log, where that is not possible."""
        from airflow_modelarts.api import procedures

        try:
            report = hook.run(procedures.stop(self._target(external_id), retries))
        except ModelArtsError as error:
            self.log.warning("%s", error)
            return False
        report.log(self.log)
        return not report.errors

    def _adopts(self, external_id: str, status: int | None) -> bool:
        """Whether to adopt what an earlier try submitted; if a user has cleared that try, it is stopped first."""
        name = status_name(self._stop_if_cleared(external_id, status))
        return self.is_job_active(name) or self.is_job_succeeded(name)

    def _stop_if_cleared(self, external_id: str, status: int | None) -> int | None:
        """Return the status of what an earlier try submitted, after stopping it if a user has cleared that try."""
        if self._try.store is None or not self._try.store.was_cleared or self._why_never_stop():
            return status
        # The triggerer that waited for it stops it. A trigger that is still there would see our stop, and Airflow would
        # resume this try by its event.
        for _ in range(TRIGGER_GRACE):
            if not self.is_job_active(status_name(status)):
                return status
            time.sleep(1.0)
            status = self._poll(external_id).status
        if not self.is_job_active(status_name(status)):
            return status
        from airflow_modelarts.api.procedures import LONG_RETRIES

        self.log.info("%s was submitted before this Airflow task was cleared; stopping it.", self._target(external_id))
        return ProcessorTaskStatus.STOPPED if self._stop(self._try.hook, external_id, LONG_RETRIES) else status
