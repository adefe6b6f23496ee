"""Which file an audit writes to, where several audits could write to the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_mapped(task_instance: Any) -> bool:
    """Return whether a task instance is one of a mapped task, or of a task in a mapped group."""
    index: int = task_instance.map_index
    return index >= 0


def own_path(path: str, written: Any, argument: str, context: Mapping[str, Any]) -> str:
    """
    Return the path with the index of the mapped task before its suffix, if all instances of the task got this path.

    So ``audit.html`` becomes ``audit-3.html``. A path that names ``map_index``, or that is mapped itself, stays.

    :param written: the path before Airflow rendered it.
    :param argument: the operator's argument.
    """
    task_instance = context["ti"]
    if not is_mapped(task_instance) or "map_index" in str(written) or _is_mapped_argument(written, argument, context):
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
