"""The hook for workers and its asynchronous half for triggerers: each API operation as a typed method."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, overload

from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, mask_secret

from airflow_modelarts import connection, provider
from airflow_modelarts.api import operations
from airflow_modelarts.api.errors import ModelArtsConfigurationError, ModelArtsError
from airflow_modelarts.api.exchange import DEFAULT_RETRIES, Retries
from airflow_modelarts.connection import Overrides, Settings
from airflow_modelarts.drivers import AsyncDriver, Driver

if TYPE_CHECKING:
    from airflow_modelarts.api.operations import ListOperation, Operation, Page

P = ParamSpec("P")
T = TypeVar("T")


class _Method(Generic[P, T]):
    """Turns the builder of an operation into a method, with its signature and its docstring."""

    def __init__(self, build: Callable[P, Operation[T]]) -> None:
        self.build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, hook: ModelArtsHook, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, hook: ModelArtsAsyncHook, owner: type) -> Callable[P, Awaitable[T]]: ...
    @overload
    def __get__(self, hook: None, owner: type) -> Callable[P, Operation[T]]: ...
    def __get__(self, hook: Any, owner: type) -> Any:
        if hook is None:
            return self.build

        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return hook.call(self.build(*args, **kwargs))

        method.__doc__ = self.__doc__
        return method


class _ListMethod(Generic[P, T]):
    """Turns the builder of a list operation into a method that iterates over the items of all pages."""

    def __init__(self, build: Callable[P, ListOperation[T]]) -> None:
        self.build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, hook: ModelArtsHook, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, hook: ModelArtsAsyncHook, owner: type) -> Callable[P, AsyncGenerator[T, None]]: ...
    @overload
    def __get__(self, hook: None, owner: type) -> Callable[P, ListOperation[T]]: ...
    def __get__(self, hook: Any, owner: type) -> Any:
        if hook is None:
            return self.build

        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return hook.iterate(self.build(*args, **kwargs))

        method.__doc__ = self.__doc__
        return method


class _Operations:
    """The twelve operations, written once for both hooks; their arguments and errors are those of the builders."""

    create_processor_task = _Method(operations.create_processor_task)
    list_processor_tasks = _ListMethod(operations.list_processor_tasks)
    list_processor_task_items = _ListMethod(operations.list_processor_task_items)
    describe_processor_task = _Method(operations.describe_processor_task)
    update_processor_task = _Method(operations.update_processor_task)
    delete_processor_task = _Method(operations.delete_processor_task)
    create_processor_task_version = _Method(operations.create_processor_task_version)
    list_processor_task_versions = _ListMethod(operations.list_processor_task_versions)
    describe_processor_task_version = _Method(operations.describe_processor_task_version)
    delete_processor_task_version = _Method(operations.delete_processor_task_version)
    stop_processor_task_version = _Method(operations.stop_processor_task_version)
    list_processor_task_version_results = _ListMethod(operations.list_processor_task_version_results)


class _BaseHook(_Operations, BaseHook):
    conn_name_attr = "modelarts_conn_id"
    default_conn_name = "modelarts_default"
    conn_type = "modelarts"
    hook_name = "ModelArts"

    def __init__(
        self,
        modelarts_conn_id: str = default_conn_name,
        *,
        project_id: str | None = None,
        region: str | None = None,
        endpoint: str | None = None,
        retries: Retries | None = None,
    ) -> None:
        super().__init__()
        self.modelarts_conn_id = modelarts_conn_id
        self.overrides = Overrides(project_id, region, endpoint)
        self.retries = retries or DEFAULT_RETRIES

    def _missing(self) -> ModelArtsConfigurationError:
        return ModelArtsConfigurationError(
            f"connection '{self.modelarts_conn_id}' is not there: add it to Airflow, or check modelarts_conn_id="
        )


class ModelArtsHook(_BaseHook):
    """
    Calls ModelArts from a worker.

    Each operation of the API is a method, for example ``hook.describe_processor_task("…")``; the list operations are
    iterators over all pages. Failed calls raise a :class:`~airflow_modelarts.api.errors.ModelArtsError`.

    As a context manager it closes its sockets in the end.

    :param modelarts_conn_id: the Airflow connection, default ``modelarts_default``.
    :param project_id: instead of the connection's.
    :param region: instead of the connection's host and region.
    :param endpoint: host or URL of ModelArts, instead of the connection's.
    :param retries: how patient each call is, by default five attempts with pauses of 15 seconds in all at most, unless
        the service asks for longer ones; a creation that the service throttles gets 15 attempts.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._driver = Driver(self._read_connection)

    def call(self, operation: Operation[T]) -> T:
        """
        Carry out one operation.

        :raises ModelArtsError: the service refused, or no attempt got a usable answer.
        """
        return self._driver.call(operation, self.retries)

    def iterate(self, operation: ListOperation[T]) -> Iterator[T]:
        """
        Carry out a list operation; each page is asked for when the one before it is used up.

        :raises ModelArtsError: the service refused, or no attempt got a usable answer.
        """
        return self._driver.iterate(operation, self.retries)

    def twin(self, retries: Retries) -> ModelArtsHook:
        """
        Return a hook with sockets of its own that does not read the Airflow connection, if this one has read it.

        So it is fit for a signal handler, which interrupts whatever this one is doing, the renewal of a token included.

        :param retries: how patient each of its calls is.
        """
        twin = copy.copy(self)
        twin.retries = retries
        twin._driver = self._driver.twin()
        return twin

    def get_conn(self) -> Settings:
        """
        Return the connection, read and checked.

        :raises ModelArtsConfigurationError: a field is missing or wrong; the message names it.
        """
        return self._driver.settings()

    def test_connection(self) -> tuple[bool, str]:
        """Make one authenticated, cheap call (ListProcessorTasks), and say what works or what to fix."""
        try:
            client = self.get_conn().client
            self.call(operations.list_processor_tasks(limit=1).page(0))
        except ModelArtsError as error:
            # Airflow's form tests a copy of the connection, under a random name that tells nobody anything.
            return False, str(error).replace(f"connection '{self.modelarts_conn_id}'", "this connection")
        return True, f"ModelArts at {client.endpoint} lets these credentials into project {client.project_id}."

    def close(self) -> None:
        """Close the hook's sockets. A later call opens new ones."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_connection(self) -> Settings:
        try:
            found = self.get_connection(self.modelarts_conn_id)
        except AirflowNotFoundException as error:
            raise self._missing() from error
        settings = connection.read(found, found.extra_dejson, self.overrides)
        _mask(settings)
        return settings

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how Airflow 2 shows the standard fields; Airflow 3 reads it from the provider info."""
        return provider.ui_field_behaviour()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields that Airflow 2 adds to the form; Airflow 3 reads them from the provider info."""
        return provider.connection_form_widgets()


class ModelArtsAsyncHook(_BaseHook):
    """
    Calls ModelArts from a triggerer: the same methods as :class:`ModelArtsHook`, to be awaited or iterated over.

    It takes the same arguments. As an asynchronous context manager it closes its sockets in the end.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._driver = AsyncDriver(self._read_connection)

    async def call(self, operation: Operation[T]) -> T:
        """
        Carry out one operation.

        :raises ModelArtsError: the service refused, or no attempt got a usable answer.
        """
        return await self._driver.call(operation, self.retries)

    def iterate(self, operation: ListOperation[T]) -> AsyncGenerator[T, None]:
        """
        Carry out a list operation; each page is asked for when the one before it is used up.

        :raises ModelArtsError: the service refused, or no attempt got a usable answer.
        """
        return self._driver.iterate(operation, self.retries)

    def pages(self, operation: ListOperation[T]) -> AsyncGenerator[Page[T], None]:
        """
        Carry out a list operation page by page, each with the service's count of all items.

        :raises ModelArtsError: the service refused, or no attempt got a usable answer.
        """
        return self._driver.pages(operation, self.retries)

    async def close(self) -> None:
        """Close the hook's sockets. A later call opens new ones."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _read_connection(self) -> Settings:
        try:
            found = await get_async_connection(self.modelarts_conn_id, self)
        except AirflowNotFoundException as error:
            raise self._missing() from error
        settings = connection.read(found, await get_async_extra_dejson(found), self.overrides)
        await asyncio.to_thread(_mask, settings)  # it tells the supervisor, and blocks for that
        return settings


def _mask(settings: Settings) -> None:
    """Have Airflow mask what it did not read itself, such as a key of the environment."""
    for secret in settings.client.credentials.secrets:
        mask_secret(secret)
