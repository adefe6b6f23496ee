"""The retry policy for tasks that call ModelArts (Airflow 3.3)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_modelarts.api.permanence import is_permanent

if TYPE_CHECKING or AIRFLOW_V_3_3_PLUS:
    from airflow.sdk import RetryDecision, RetryPolicy
else:
    RetryPolicy = object

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: Bounds of a delay that the service asks for. Airflow limits its own delays to a day. It can take a retry that comes
#: sooner than a second for a lost task.
MIN_DELAY, MAX_DELAY = timedelta(seconds=1), timedelta(days=1)
PATH = "airflow_modelarts.retry_policy.ModelArtsRetryPolicy"


class ModelArtsRetryPolicy(RetryPolicy):
    """Decides by the error whether Airflow retries a task that calls ModelArts, and when (Airflow 3.3).

    - What a retry cannot mend fails the task: a refused request, a wrong configuration, refused credentials, a task or
      version that does not exist, and a processing task that failed with a reason that will stay.
    - If the service asked for a delay (``Retry-After``), the retry comes after that delay, at most a day.
    - For any other error the task's ``retries`` and ``retry_delay`` apply.

    It works for operators and sensors, and for tasks of your own that call a hook. It also examines the exceptions from
    which the raised one was raised (``raise … from error``).

    :raises RuntimeError: Airflow is older than 3.3.
    """

    def __init__(self) -> None:
        if not AIRFLOW_V_3_3_PLUS:
            raise RuntimeError(
                "ModelArtsRetryPolicy needs Airflow 3.3: give operators and sensors fail_fast=True instead"
            )

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Return the decision. Airflow calls this on the worker, with the exception that the task raised."""
        cause: BaseException | None = exception
        while cause is not None:
            if is_permanent(cause):
                return RetryDecision.fail(f"a retry cannot mend this: {cause}")
            if (seconds := getattr(cause, "retry_after", None)) is not None:
                delay = min(max(timedelta(seconds=min(seconds, MAX_DELAY.total_seconds())), MIN_DELAY), MAX_DELAY)
                return RetryDecision.retry(delay, f"the service asks for a retry after {seconds:g} s")
            cause = cause.__cause__
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Return the policy as JSON. Airflow 3.3 does not store it: its workers read the DAG file."""
        return {"__type": PATH}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Self:
        """Return the policy from what ``serialize`` returned."""
        return cls()
