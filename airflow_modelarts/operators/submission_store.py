"""What an operator keeps between its tries, in Airflow's task state store: the submission and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The key of the record. Renaming it breaks retries that are in flight.
RECORD_KEY = "modelarts_submission"
#: States after which Airflow starts no further try by itself.
FINISHED_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
#: The state of a task instance that a user has cleared while a worker had it; Airflow sets it for nothing else.
CLEARED_STATE = "restarting"
#: Seconds for asking Airflow from a signal handler, of the five that it grants for the whole of on_kill.
ASK_TIMEOUT = 2.0


class State(StrEnum):
    """How far a submission has come."""

    #: Written before the request is sent. Until there is an id too, the service may have accepted it or not.
    INTENDED = "intended"
    #: A user has cleared the Airflow task before the end: what runs is to be stopped.
    CLEARED = "cleared"
    #: The result has been published. Clearing the Airflow task after that submits again.
    CONCLUDED = "concluded"


@dataclass(frozen=True, slots=True)
class Record:
    """A submission as it is stored.

    :param intent: what was about to be submitted, in the form of the operator.
    :param max_tries: that of the task instance at that time.
    """

    intent: Any
    max_tries: int | None
    state: State = State.INTENDED

    @classmethod
    def load(cls, stored: dict[str, Any]) -> Record:
        """Read a record. Earlier versions stored flags instead of a state, and add them to a record of this version."""
        flagged = "concluded" if stored.get("done") else "cleared" if stored.get("cleared") else None
        return cls(stored.get("intent"), stored.get("max_tries"), State(flagged or stored.get("state", "intended")))

    def dump(self) -> dict[str, Any]:
        """Return the record as JSON."""
        return {"intent": self.intent, "max_tries": self.max_tries, "state": self.state.value}


class SubmissionStore:
    """The submission of a task instance, stored before the request is sent.

    Airflow's ``ResumableJobMixin`` stores the id that the service returned, under a key of its own, right after the
    request. A record without an id is an unconfirmed intent.

    Airflow raises ``max_tries`` when a user clears a task, but not for a retry. This tells the two apart, with two
    exceptions:

    - ``retries`` was lowered by the number of tries made. Such a clear looks like a retry.
    - A worker has the task when it is cleared, and the executor does not report that the worker ended well. So that
      worker stops what runs. It then counts as a failed try, and the next try submits again.

    :param store: Airflow's task state store.
    :param id_key: the key under which the mixin stores the id.
    :param task_instance: the Airflow task instance, in this try.
    """

    def __init__(self, store: Any, id_key: str, task_instance: Any) -> None:
        self._store = store
        self._id_key = id_key
        self._task_instance = task_instance
        self._max_tries: int = getattr(task_instance, "max_tries", 0)
        stored = store.get(RECORD_KEY)
        self._record = Record.load(stored) if stored else None
        if self._record and self._record.max_tries != self._max_tries:  # a user has cleared the Airflow task
            if self.is_concluded:
                self.forget()
            else:
                self._save(replace(self._record, max_tries=self._max_tries, state=State.CLEARED))

    @classmethod
    def open(cls, context: Context, id_key: str) -> SubmissionStore | None:
        """Return the store of a task instance; None where Airflow has none."""
        store = context.get("task_state_store")
        return None if store is None else cls(store, id_key, context["ti"])

    @property
    def external_id(self) -> str | None:
        """The id that the service returned."""
        return self._store.get(self._id_key) or None

    @property
    def intent(self) -> Any:
        """What was about to be submitted; None when there is none."""
        return self._record.intent if self._record else None

    @property
    def unconfirmed_intent(self) -> Any:
        """The intent of an earlier try that may or may not have been accepted; None when there is none."""
        return self._record.intent if self._record and self.external_id is None else None

    @property
    def was_cleared(self) -> bool:
        """Whether a user has cleared the Airflow task since the submission, which stops what runs."""
        return self._record is not None and self._record.state is State.CLEARED

    @property
    def is_concluded(self) -> bool:
        """Whether the result of the submission has been published."""
        return self._record is not None and self._record.state is State.CONCLUDED

    def begin(self, intent: Any) -> None:
        """Store what is about to be submitted."""
        self._save(Record(intent, self._max_tries))
        # After that: an id without its record would be taken for a submission that was never intended.
        self._store.delete(self._id_key)

    def confirm(self, external_id: str) -> None:
        """Store the id of what the triggerer has submitted; otherwise the mixin stores it."""
        self._store.set(self._id_key, external_id)

    def conclude(self) -> None:
        """Store that the result has been published."""
        if self._record:
            self._save(replace(self._record, state=State.CONCLUDED))

    def forget(self) -> None:
        """Delete the submission: otherwise a later try would adopt what somebody else submits under the same name."""
        self._store.delete(self._id_key)
        self._store.delete(RECORD_KEY)
        self._record = None

    def another_try_adopts(self) -> bool:
        """Whether Airflow runs this task instance again and no user wants it stopped, so that the next try adopts.

        Airflow tells a worker to stop for many reasons. After a scheduler has died, another resets the task instances
        that the dead one had queued, while their workers may still run. When a user clears a task, another try
        follows too, but it is to submit anew.

        When Airflow does not answer, a try is assumed to follow as long as there are retries left.
        """
        from airflow_modelarts.airflow_calls import call_airflow_in_time

        return call_airflow_in_time(self._ask_for_another_try, ASK_TIMEOUT, default=self._has_retries_left)

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
            # Airflow no longer finds the record of a try that another one has replaced.
            if found[0] != "running" or (self._record is not None and self._store.get(RECORD_KEY) is None):
                return True
        except Exception:  # whatever the channel raises: on_kill must come to its decision
            return self._has_retries_left
        return self._has_retries_left  # this try runs, for example on a worker that is being shut down

    def _save(self, record: Record) -> None:
        self._store.set(RECORD_KEY, record.dump())
        self._record = record
