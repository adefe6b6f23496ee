"""What the oldest accepted release of the provider package common-compat lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS, AIRFLOW_V_3_3_PLUS

if TYPE_CHECKING or AIRFLOW_V_3_3_PLUS:
    from airflow.sdk import ResumableJobMixin as ResumableJobMixin
else:

    class ResumableJobMixin:
        """Airflow 3.3's mixin, for versions that store nothing between two tries: each try submits again."""

        external_id_key = "remote_job_id"

        def __init__(self, *, durable: bool = True, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.durable = False  # there is no task state store

        def execute_resumable(self, context: Any) -> Any:
            """Submit, wait and return the result."""
            external_id = self.submit_job(context)
            self.poll_until_complete(external_id, context)
            return self.get_job_result(external_id, context)


def mask_secret(secret: str) -> None:
    """Make Airflow mask a secret in logs and rendered fields."""
    if TYPE_CHECKING or AIRFLOW_V_3_1_PLUS:
        from airflow.sdk.log import mask_secret as mask
    elif AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.execution_time.secrets_masker import mask_secret as mask
    else:
        from airflow.utils.log.secrets_masker import mask_secret as mask
    mask(secret)
