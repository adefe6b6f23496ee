"""One task for each case of the loss of a scheduler; the environment variable SCHEDULER_LOSS_CASES tells which."""

from __future__ import annotations

import json
import os
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator

CASES: dict[str, Any] = json.loads(os.environ.get("SCHEDULER_LOSS_CASES", "{}"))

with DAG("scheduler_loss", schedule=None):
    for task_id, deferrable in CASES.items():
        ModelArtsCreateProcessorTaskOperator(
            task_id=task_id,
            modelarts_conn_id=task_id,
            name=task_id,
            template={"id": "sys_data_validation"},
            inputs=[{"type": "DATASET", "source": "PYc9H2HGv5BJNwBGXyK"}],
            work_path={"type": "OBS", "path": "obs://bucket/work/"},
            poll_interval=0.5,
            deferrable=deferrable,
            retries=2,
        )
