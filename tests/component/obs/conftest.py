"""An object store for the tests of this folder, and connections to it."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader

from tests.support.object_store import Clock, ObjectStore, SetConnection, connect
from tests.support.worker_credentials import worker  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def s3_read_once() -> Iterator[None]:
    """Make botocore read its description of S3 once. Each file system opened anew would take 0.1 s of CPU for it."""
    load = functools.cache(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: load(path))
        yield


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def running(clock: Clock) -> Iterator[ObjectStore]:
    with ObjectStore(clock) as store:
        yield store


@pytest.fixture
def store(running: ObjectStore, clock: Clock, set_connection: SetConnection, monkeypatch: Any) -> ObjectStore:
    """An empty bucket; the usual connection has the permanent key."""
    clock.offset = 0.0
    running.reset()
    monkeypatch.setattr("airflow_modelarts.connection.reading.time", _Time(clock))
    connect(set_connection, running)
    return running


class _Time:
    """The module ``time`` as the connection reads it."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, clock: Clock) -> None:
        self.time = clock
