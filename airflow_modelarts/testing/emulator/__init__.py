"""A local ModelArts and IAM for tests, examples and trying out DAGs; they validate requests like the real services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_modelarts.testing.emulator.control.state import EmulatorState
    from airflow_modelarts.testing.emulator.http.app import create_app
    from airflow_modelarts.testing.emulator.http.server import EmulatorServer

__all__ = ["EmulatorServer", "EmulatorState", "create_app"]

_MODULES = {"EmulatorServer": "http.server", "EmulatorState": "control.state", "create_app": "http.app"}


def __getattr__(name: str) -> Any:
    """Import on first use, so that the pure parts work without FastAPI and uvicorn."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in {"fastapi", "starlette", "uvicorn"}:
            raise
        raise ModuleNotFoundError(
            f"The emulator needs {error.name}: in a clone of this package, pip install '.[emulator]'", name=error.name
        ) from error


def __dir__() -> list[str]:
    """List names that are not imported yet too, for editors and ``help()``."""
    return sorted({*globals(), *__all__})
