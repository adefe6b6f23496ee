"""Every exception of the package can be copied and pickled, as multiprocessing and Airflow do."""

import copy
import importlib
import pickle
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest

import airflow_modelarts
from airflow_modelarts.api.errors import ModelArtsError
from airflow_modelarts.api.http import TransportError
from airflow_modelarts.testing.emulator.http.s3_signature import StoreError
from airflow_modelarts.testing.emulator.service.errors import KeystoneError, ServiceError
from airflow_modelarts.testing.sandbox import DagImportError

#: All arguments of the exceptions that take more than a message.
ARGUMENTS: dict[type[Exception], tuple[tuple[Any, ...], dict[str, Any]]] = {
    ModelArtsError: (
        ("the request was refused",),
        {
            "error_code": "ModelArts.0104",
            "http_status": 400,
            "request_id": "a1",
            "operation": "CreateProcessorTask",
            "retry_after": 2.5,
            "outcome_unknown": True,
        },
    ),
    TransportError: (("the connection ended early",), {"kind": "broken", "sent": True}),
    DagImportError: (({"my_dag.py": "SyntaxError"},), {}),
    KeystoneError: ((401, "no such user"), {}),
    StoreError: ((403, "AccessDenied", "the request is not signed"), {}),
    ServiceError: (("ModelArts.0104", "values are wrong"), {"status": 422}),
}
COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {p}": lambda error, p=p: pickle.loads(pickle.dumps(error, p))
        for p in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


def exceptions_of_the_package() -> list[type[Exception]]:
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(airflow_modelarts.__path__, f"{airflow_modelarts.__name__}.")
        if not found.name.endswith("__main__")
    ]
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == module.__name__
    }
    return sorted(classes, key=lambda kind: kind.__qualname__)


def create(kind: type[Exception]) -> Exception:
    for base in kind.__mro__:
        if base in ARGUMENTS:
            positional, named = ARGUMENTS[base]
            return kind(*positional, **named)
    return kind("a message")


@pytest.mark.parametrize("copy_of", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", exceptions_of_the_package(), ids=lambda kind: kind.__name__)
def test_a_copied_or_pickled_exception_is_equal(kind: type[Exception], copy_of: Callable[[Any], Any]) -> None:
    error = create(kind)
    other = copy_of(error)
    assert type(other) is kind
    assert (str(other), vars(other)) == (str(error), vars(error))


def test_notes_of_an_exception_are_pickled() -> None:
    error = TransportError("the connection ended early", kind="broken", sent=True)
    error.add_note("while reading the body")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while reading the body"]
