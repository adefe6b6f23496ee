"""Exceptions of operators and sensors; those of API calls are in :mod:`airflow_modelarts.api.errors`."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException


class ModelArtsProcessorTaskFailed(AirflowException):  # as Airflow names its own, e.g. DagRunFailed
    """A processing task ended with a status in ``failed_statuses``.

    :param message: the task's id, its status and the service's ``error_msg``.
    :param is_permanent: whether a retry of the Airflow task certainly ends the same way.
    """

    def __init__(self, message: str = "", *, is_permanent: bool = False) -> None:
        super().__init__(message)
        self.is_permanent = is_permanent


class ModelArtsAuditFailed(AirflowFailException):
    """An audit found broken rules. Airflow does not retry it, since a retry would audit the same tasks.

    :param message: the broken rules, and the processing tasks that broke them.
    """


class ModelArtsReportNotWritten(AirflowException):
    """An audit could not write its report. Airflow retries it, since the store may accept a later try.

    :param message: each file that could not be written and why, and the rules that are broken besides.
    """
