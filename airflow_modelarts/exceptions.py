"""What the operators and sensors raise; what calls raise is in :mod:`airflow_modelarts.api.errors`."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException


class ModelArtsProcessorTaskFailed(AirflowException):  # as Airflow names its own, e.g. DagRunFailed
    """
    A processing task ended with a status that counts as a failure.

    :param message: the task's id, its status and the service's ``error_msg``.
    """


class ModelArtsAuditFailed(AirflowFailException):
    """
    An audit found rules broken. Airflow does not retry it: what the tasks did stays done.

    :param message: the broken rules, and the processing tasks that broke them.
    """
