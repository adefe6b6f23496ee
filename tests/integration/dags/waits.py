"""Waits in every mode and with every option. The conf of the run has the ids of the processing tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, Param, task

from airflow_modelarts.operators import ModelArtsDescribeProcessorTaskOperator
from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor

MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke", "deferrable": False},
    # Airflow takes a task that is back within a second or two for a lost one, and fails it.
    "reschedule": {"mode": "reschedule", "deferrable": False, "poke_interval": 5},
    "deferrable": {"deferrable": True},
    "triggerer": {"start_from_trigger": True, "end_from_trigger": True},
}
PATIENCE: dict[str, Any] = {"poke_interval": 1, "timeout": 600, "retry_delay": timedelta(seconds=1)}

#: Waits with a processing task of their own, which runs until the wait has polled it; by connection.
RUNNING = {"running": "modelarts_default", "password": "modelarts_password"}


def sensor(task_id: str, **arguments: Any) -> ModelArtsProcessorTaskSensor:
    return ModelArtsProcessorTaskSensor(task_id=task_id, **{**PATIENCE, **arguments})


def log_success(context: Any) -> None:
    print("The callback is called")


with DAG(
    "waits",
    schedule=None,
    params={
        name: Param("", type="string")
        for name in (
            "failed",
            "stopped",
            "versioned",
            "version",
            *(f"{mode}_{name}" for mode in MODES for name in RUNNING),
        )
    },
):
    for mode, options in MODES.items():
        for name in ("failed", "stopped"):
            sensor(f"{mode}_{name}", processor_task_id=f"{{{{ params.{name} }}}}", **options)
        sensor(f"{mode}_any_end", processor_task_id="{{ params.failed }}", failed_statuses=(), **options)
        sensor(f"{mode}_soft_fail", processor_task_id="{{ params.failed }}", soft_fail=True, **options)
        sensor(f"{mode}_retries", processor_task_id="{{ params.failed }}", retries=1, **options)
        sensor(f"{mode}_unknown", processor_task_id="no-such-task", **options)
        sensor(
            f"{mode}_empty",
            processor_task_id="{{ params.stopped }}",
            project_id="{{ dag_run.conf.absent }}",
            failed_statuses=(),
            **options,
        )
        sensor(
            f"{mode}_version",
            processor_task_id="{{ params.versioned }}",
            task_version_id="{{ params.version }}",
            **options,
        )
        sensor(
            f"{mode}_outlets",
            processor_task_id="{{ params.failed }}",
            failed_statuses=["stopped"],
            outlets=[Asset(f"{mode}_ended")],
            on_success_callback=log_success,
            **options,
        )
        for name, conn_id in RUNNING.items():
            sensor(
                f"{mode}_{name}",
                processor_task_id=f"{{{{ params.{mode}_{name} }}}}",
                modelarts_conn_id=conn_id,
                **options,
            )

    @task
    def samples(params: dict[str, Any]) -> list[dict[str, Any]]:
        """Read the results of a version. Their signed links must not be logged or pushed."""
        from airflow_modelarts.hooks import ModelArtsHook

        with ModelArtsHook("modelarts_password") as hook:
            (version,) = hook.list_processor_task_versions(params["versioned"])
            assert version.task_version_id
            results = list(hook.list_processor_task_version_results(params["versioned"], version.task_version_id))
        print(results)
        return [result.to_json() for result in results]

    samples()

with DAG("inputs", schedule=None, params={"ids": Param([], type="array")}):

    @task
    def ids(params: dict[str, Any]) -> list[str]:
        return list(params["ids"])

    @task
    def first(params: dict[str, Any]) -> str:
        return str(params["ids"][0])

    @task
    def nested(params: dict[str, Any]) -> dict[str, str]:
        return {"id": params["ids"][0]}

    for mode, options in MODES.items():
        ModelArtsProcessorTaskSensor.partial(task_id=f"{mode}_mapped", **{**PATIENCE, **options}).expand(
            processor_task_id=ids()
        )
        one = first()
        wait = sensor(f"{mode}_xcom", processor_task_id=one, **options)
        pulled = sensor(
            f"{mode}_pulled", processor_task_id=f"{{{{ ti.xcom_pull(task_ids='{one.operator.task_id}') }}}}", **options
        )
        one >> pulled
    read = ModelArtsDescribeProcessorTaskOperator(task_id="read", processor_task_id=one)
    read_all = ModelArtsDescribeProcessorTaskOperator.partial(task_id="read_all").expand(processor_task_id=ids())

    @task
    def use(result: Any, work_path: Any) -> dict[str, Any]:
        return {"result": result, "work_path": work_path}

    wait >> read
    use(read.output["result"], read.output["work_path"])

with DAG("patience", schedule=None, params={"id": Param("", type="string")}):
    for mode, options in MODES.items():
        sensor(f"{mode}_patient", processor_task_id="{{ params.id }}", **options)

with DAG("timeouts", schedule=None, params={"id": Param("", type="string")}):
    for mode, options in MODES.items():
        sensor(f"{mode}_timeout", processor_task_id="{{ params.id }}", **{**options, "timeout": 4, "retries": 1})
