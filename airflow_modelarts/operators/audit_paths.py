"""The paths of an audit's files: how they end, and that no two audits of a run write to the same file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from airflow_modelarts.api.arguments import is_template

#: How the names of the files may end, by the operator's argument.
SUFFIXES = {"report_path": (".html",), "rows_path": (".jsonl", ".csv")}
#: What differs between the tasks of one run, in templates.
_OF_THE_TASK = r"\b(?:ti|task\w*|map_index|params)\b"


def check_suffix(argument: str, path: object) -> None:
    """Check how the name of a file ends.

    :raises ValueError: the name does not end as SUFFIXES says, or is nothing but that.
    """
    name, suffixes = PurePosixPath(str(path)).name, SUFFIXES[argument]
    if str(path).endswith("/") or not name.endswith(suffixes) or name in suffixes:
        raise ValueError(f"{argument} is {str(path)!r}: name a file that ends in {' or '.join(suffixes)}")


def check_paths(operator: Any) -> None:
    """Check the paths of an audit when its DAG is parsed, as far as they are literal.

    :raises ValueError: a name has another suffix, or another audit of the DAG has the same path.
    """
    dag = operator.get_dag()
    is_in_dag = dag is not None and dag.task_dict.get(operator.task_id) is operator  # unlike one of a mapped task
    others = [task for task in dag.tasks if task is not operator and _is_audit(task)] if is_in_dag else []
    for argument in SUFFIXES:
        path = getattr(operator, argument)
        if not path or hasattr(path, "iter_references"):  # an XCom or an argument of a mapped group
            continue
        if not is_template(path):
            check_suffix(argument, path)
        elif re.search(_OF_THE_TASK, path):
            continue
        for other in others:
            is_same_store = other.object_storage_conn_id == operator.object_storage_conn_id
            if is_same_store and str(getattr(other, argument)) == str(path):
                raise ValueError(
                    f"{argument} of task '{operator.task_id}' is {str(path)!r}, as that of task '{other.task_id}': "
                    "one would replace the file of the other; give each its own path"
                )


def _is_audit(task: Any) -> bool:
    return all(hasattr(task, argument) for argument in SUFFIXES)


def is_mapped(task_instance: Any) -> bool:
    """Return whether a task instance is one of a mapped task, or of a task in a mapped group."""
    index: int = task_instance.map_index
    return index >= 0


def own_path(path: str, written: Any, argument: str, context: Mapping[str, Any]) -> str:
    """Return the path with the index of the mapped task before its suffix, if all instances of the task got this path.

    So ``audit.html`` becomes ``audit-3.html``. A path that names ``map_index``, or that is mapped itself, stays.

    :param written: the path before Airflow rendered it.
    :param argument: the operator's argument.
    """
    task_instance = context["ti"]
    names_index = is_template(written) and "map_index" in written
    if not is_mapped(task_instance) or names_index or _is_mapped_argument(written, argument, context):
        return path
    stem, dot, suffix = path.rpartition(".")
    return f"{stem}-{task_instance.map_index}{dot}{suffix}"


def _is_mapped_argument(written: Any, argument: str, context: Mapping[str, Any]) -> bool:
    if type(written).__name__ == "MappedArgument":  # of a mapped task group
        return True
    # The DAG still has the mapped operator; Airflow executes an instance of it.
    tasks = getattr(context.get("dag"), "task_dict", {})
    partial = getattr(tasks.get(context["ti"].task_id), "partial_kwargs", None)
    return partial is not None and argument not in partial
