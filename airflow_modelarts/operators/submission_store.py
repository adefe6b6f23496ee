"""What an operator keeps between its tries, in Airflow's task state store: which submission is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The key of the intent. Renaming it breaks retries that are in flight.
INTENT_KEY = "modelarts_submission"
#: States after which Airflow starts no further try by itself.
FINISHED_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
#: The state of a task instance that a user has cleared while a worker had it; Airflow sets it for nothing else.
CLEARED_STATE = "restarting"
#: Seconds for asking Airflow from a signal handler, of the five that it grants for the whole of on_kill.
ASK_TIMEOUT = 2.0


class SubmissionStore:
    """
    The intent of a submission, written before it is posted, and whether it has been seen to its end.

    The id that the service gave is kept beside it, by Airflow's ``ResumableJobMixin``. An intent without an id is one
    that may or may not have reached the service.

    Airflow raises ``max_tries`` when a user clears a task, and leaves it alone for a retry: that tells the two apart.
    It does not where ``retries`` was lowered by as many as there were tries: such a clear looks like a retry. A task
    that is cleared while a worker has it comes back as a plain retry too, unless the executor reports that the worker
    ended well. So the worker stops what runs, which then counts as a failed try, and is submitted anew.

    :param store: Airflow's task state store.
    :param id_key: under which the mixin keeps the id.
    :param task_instance: the Airflow task instance, in this try.
    """

    def __init__(self, store: Any, id_key: str, task_instance: Any) -> None:
        self._store = store
        self._id_key = id_key
        self._task_instance = task_instance
        self._max_tries = max_tries = getattr(task_instance, "max_tries", 0)
        self._record: dict[str, Any] = store.get(INTENT_KEY) or {}
        if self._record and self._record.get("max_tries") != max_tries:
            self._cleared()

    @classmethod
    def of(cls, context: Context, id_key: str) -> SubmissionStore | None:
        """Return the memory of a task instance; None where Airflow keeps none."""
        store = context.get("task_state_store")
        if store is None:
            return None
        return cls(store, id_key, context["ti"])

    @property
    def external_id(self) -> str | None:
        """The id that the service gave."""
        return self._store.get(self._id_key) or None

    @property
    def pending(self) -> Any:
        """The intent whose outcome is not known; None when there is none."""
        return self._record.get("intent") if self._record and self.external_id is None else None

    @property
    def was_cleared(self) -> bool:
        """Whether the submission is from before a user cleared the Airflow task, which stops what runs."""
        return bool(self._record.get("cleared"))

    @property
    def is_done(self) -> bool:
        """Whether the submission has been seen to its end."""
        return bool(self._record.get("done"))

    def another_try_adopts(self) -> bool:
        """
        Whether Airflow runs this task instance again, and nobody wants what runs stopped, so that the next try adopts.

        Airflow tells a worker to stop for many reasons. After a scheduler has died, another resets the task instances
        that the dead one had queued, while their workers may still run. When a user clears a task, another try
        follows too, but is to submit anew.

        When Airflow does not answer, it is assumed that a try follows as long as there are retries left.
        """
        from airflow_modelarts.airflow_calls import call_airflow_in_time

        return call_airflow_in_time(self._ask_for_another_try, ASK_TIMEOUT, default=self._has_retries_left)

    def begin(self, intent: Any) -> None:
        """Note what is about to be posted."""
        self._save({"intent": intent, "max_tries": self._max_tries})
        # After that: an id without its intent would be taken for a submission that nobody intended.
        self._store.delete(self._id_key)

    def conclude(self) -> None:
        """Note that the submission has been seen to its end, so that clearing the Airflow task runs it anew."""
        self._save({**self._record, "done": True})

    def forget(self) -> None:
        """Forget the submission."""
        self._store.delete(self._id_key)
        self._store.delete(INTENT_KEY)
        self._record = {}

    @property
    def _has_retries_left(self) -> bool:
        return bool(self._task_instance.try_number <= self._max_tries)

    def _ask_for_another_try(self) -> bool:
        instance = self._task_instance
        try:
            states = instance.get_task_states(
                dag_id=instance.dag_id,
                task_ids=[instance.task_id],
                run_ids=[instance.run_id],
                map_index=instance.map_index,
            )
            found = list(states.get(instance.run_id, {}).values())
            if not found or found[0] in FINISHED_STATES | {CLEARED_STATE}:  # deleted, marked, given up, or cleared
                return False
            if found[0] != "running" or self._is_replaced():
                return True
        except Exception:  # whatever the channel raises; nothing may keep on_kill from its decision
            return self._has_retries_left
        return self._has_retries_left  # it is this try that runs, such as on a worker that is shut down

    def _is_replaced(self) -> bool:
        """Whether another try has taken the place of this one, whose record Airflow then no longer finds."""
        return bool(self._record) and self._store.get(INTENT_KEY) is None

    def _cleared(self) -> None:
        if self.is_done:
            self.forget()
        else:
            self._save({**self._record, "max_tries": self._max_tries, "cleared": True})

    def _save(self, record: dict[str, Any]) -> None:
        self._store.set(INTENT_KEY, record)
        self._record = record
