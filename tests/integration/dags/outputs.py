"""Outputs with and without a value for downstream tasks, and bodies as text, in a file and mapped."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task, task_group

from airflow_modelarts.operators import ModelArtsCreateProcessorTaskOperator, ModelArtsDescribeProcessorTaskOperator

WAYS: dict[str, dict[str, Any]] = {"worker": {"deferrable": False}, "triggerer": {"deferrable": True}}
BODY = '{"id": "sys_data_validation", "operator_params": [{"params": {"n": 7, "text": "7", "on": true}}]}'
OBS: dict[str, Any] = {"type": "OBS", "path": "obs://outputs/out/"}


@task
def take(result: Any, work_path: Any, version: Any = "not asked for") -> list[Any]:
    """Return what arrives; a result can be large."""
    return [result and sorted(result), work_path, version and type(version).__name__]


@task
def take_all(results: Any, work_paths: Any, versions: Any = ()) -> list[Any]:
    """Return what arrives of mapped tasks."""
    kinds = [version and type(version).__name__ for version in versions]
    return [[result and sorted(result) for result in results], list(work_paths), kinds]


def create(task_id: str, template: Any, **arguments: Any) -> ModelArtsCreateProcessorTaskOperator:
    given = {"inputs": [{"type": "DATASET", "source": "images"}], "poll_interval": 1, **arguments}
    return ModelArtsCreateProcessorTaskOperator(task_id=task_id, name=task_id, template=template, **given)


with DAG("outputs", schedule=None, params={name: Param("", type="string") for name in ("analysis", "validation")}):
    ids = ["{{ params.analysis }}", "{{ params.validation }}"]
    for name, id_ in zip(("analysis", "validation"), ids, strict=True):
        read = ModelArtsDescribeProcessorTaskOperator(task_id=f"read_{name}", processor_task_id=id_)
        take.override(task_id=f"take_{name}")(read.output["result"], read.output["work_path"])
    for way, how in WAYS.items():
        analyse = create(f"analyse_{way}", {"id": "sys_data_analyse"}, work_path=OBS, **how)
        validate = create(f"validate_{way}", {"id": "sys_data_validation"}, **how)
        for made in (analyse, validate):
            outputs = (made.output[key] for key in ("result", "work_path", "version"))
            take.override(task_id=f"take_{made.task_id}")(*outputs)
    made_in_triggerer = validate

    reads = ModelArtsDescribeProcessorTaskOperator.partial(task_id="reads").expand(processor_task_id=ids)
    take_all(reads.output["result"], reads.output["work_path"])

    made = ModelArtsCreateProcessorTaskOperator.partial(
        task_id="made", name="made", data_source={"type": "DATASET", "source": "images"}, poll_interval=1
    ).expand(template=[{"id": "sys_data_analyse"}, {"id": "sys_data_validation"}])
    outputs = (made.output[key] for key in ("result", "work_path", "version"))
    take_all.override(task_id="take_all_made")(*outputs)

    @task_group
    def each(id_: Any) -> None:
        read = ModelArtsDescribeProcessorTaskOperator(task_id="read", processor_task_id=id_)
        take(read.output["result"], read.output["work_path"], read.output["version"])

    @task
    def listed(params: Any) -> list[str]:
        """Return the ids, since Airflow renders no template for a mapped group."""
        return [params["analysis"], params["validation"]]

    each.expand(id_=listed())

    @task
    def pull(ti: Any) -> list[Any]:
        """Pull, as templates and functions do."""
        keys = ("result", "work_path", "version")
        return [ti.xcom_pull(task_ids="validate_triggerer", key=key) is None for key in keys]

    create("validate_quietly", {"id": "sys_data_validation"}, do_xcom_push=False)
    made_in_triggerer >> pull()

with DAG("bodies", schedule=None, params={"body": BODY, "number": 20261125}, render_template_as_native_obj=True):
    create("from_text", "{{ params.body }}", version_id="{{ params.number }}")
    create("from_file", "body.json", description="1, 2")
    mapped = {"name": "{{ params.number }}", "poll_interval": 1, "inputs": [{"type": "DATASET", "source": "1_000"}]}
    ModelArtsCreateProcessorTaskOperator.partial(task_id="from_files", template="body.json", **mapped).expand(
        version_id=["1e5", "{{ params.number }}", 7]
    )
