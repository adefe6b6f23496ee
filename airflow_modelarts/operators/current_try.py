"""What a run operator knows of its current try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_modelarts.api.errors import ModelArtsError
    from airflow_modelarts.api.procedures import Submission
    from airflow_modelarts.hooks import ModelArtsHook
    from airflow_modelarts.operators.submission_store import SubmissionStore


class CurrentTry:
    """The state of one try, in one process.

    :param store: what is kept between tries; None where Airflow keeps nothing, or ``durable`` is off.
    :param external_id: the id of what was submitted, once its XComs are pushed.
    """

    def __init__(
        self, hook: ModelArtsHook, store: SubmissionStore | None = None, external_id: str | None = None
    ) -> None:
        self.hook = hook
        self.store = store
        self.external_id = external_id
        #: Whether it existed before this Airflow task, so that nothing here stops it.
        self.is_reused = store is not None and store.is_reused
        self.submission: Submission | None = None  # what this process submits, or has submitted
        self.queued_since: float | None = None  # since the epoch, if the triggerer gave this try its turn to submit
        self.refusals = 0  # how often a turn was refused for a reason of its own
        self.taken: tuple[str, ModelArtsError] | None = None  # the name that was refused to the triggerer, and how
        self.queued_seconds: float | None = 0.0  # from the first attempt to submit to the accepted one
        self.deadline: float | None = None  # when ``execution_timeout`` is over, if an earlier deferral knew
        self.latest: Any = None  # what was last read of what was submitted
        self.result: Any = None  # what the try has published
