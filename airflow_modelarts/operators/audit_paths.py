"""The paths of an audit's files: how they end, and that no two audits of a run write to the same file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sized
from pathlib import PurePosixPath
from posixpath import normpath
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


def check_path(argument: str, path: Any) -> None:
    """Check the path of a file when its DAG is parsed, as far as it is literal.

    :raises ValueError: the name has another suffix.
    """
    if _is_given(path) and not is_template(path):
        check_suffix(argument, path)


def refuse_shared_paths(task_id: str, given: Mapping[str, Any], dag: Any, *, is_mapped: bool = False) -> None:
    """Refuse paths that another audit of the DAG has.

    :param given: the arguments of the audit.
    :param is_mapped: whether it is a mapped task, whose paths get its map indexes.
    :raises ValueError: another audit has the same path.
    """
    for other in dag.tasks if dag is not None else ():
        others = getattr(other, "partial_kwargs", None)
        if other.task_id == task_id or (others is not None) is not is_mapped:
            continue
        others = vars(other) if others is None else others
        if others.get("object_storage_conn_id") != given.get("object_storage_conn_id"):
            continue
        for argument in SUFFIXES:
            path = given.get(argument)
            if not _is_given(path) or (is_template(path) and re.search(_OF_THE_TASK, str(path))):
                continue
            if _is_given(others.get(argument)) and _place(others[argument]) == _place(path):
                raise ValueError(
                    f"{argument} of task '{task_id}' is {str(path)!r}, as that of task '{other.task_id}': "
                    "one would replace the file of the other; give each its own path"
                )


def _is_given(path: Any) -> bool:
    return bool(path) and not hasattr(path, "iter_references")  # an XCom or an argument of a mapped group


def _place(path: object) -> str:
    """Return a path as it is the same for all spellings of a local file."""
    scheme, mark, rest = str(path).partition("://")
    return str(path) if mark and scheme not in ("file", "local") else normpath(rest if mark else str(path))


def is_mapped(task_instance: Any) -> bool:
    """Return whether a task instance is one of a mapped task, or of a task in a mapped group."""
    index: int = task_instance.map_index
    return index >= 0


def own_path(path: str, written: Any, argument: str, context: Mapping[str, Any]) -> str:
    """Return the path with the index of the mapped task before its suffix, if all instances of the task got this path.

    So ``audit.html`` becomes ``audit-3.html``. A path that names ``map_index`` stays, and so does one that is mapped
    itself, unless several instances are known to get it.

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
    mapped = tasks.get(context["ti"].task_id)
    partial = getattr(mapped, "partial_kwargs", None)
    return partial is not None and argument not in partial and not _is_repeated(written, argument, mapped)


def _is_repeated(path: Any, argument: str, mapped: Any) -> bool:
    """Return whether several instances of a mapped task get a mapped path."""
    values = mapped.expand_input.value
    if isinstance(values, Mapping):  # each path is combined with each value of the other arguments
        others = [value for name, value in values.items() if name != argument]
        if any(not isinstance(other, Sized) or len(other) > 1 for other in others):
            return True
        values = values.get(argument)
    else:
        values = [one.get(argument) for one in values if isinstance(one, Mapping)] if _is_list(values) else values
    return _is_list(values) and [_place(value) for value in values].count(_place(path)) > 1


def _is_list(values: Any) -> bool:
    return isinstance(values, list | tuple)
