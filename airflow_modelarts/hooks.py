"""The hook for workers and the asynchronous hook for triggerers: each API operation is a typed method."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from types import GenericAlias
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Self,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_modelarts import provider
from airflow_modelarts.airflow_calls import call_airflow
from airflow_modelarts.api import operations
from airflow_modelarts.api.errors import ModelArtsConfigurationError, ModelArtsError
from airflow_modelarts.api.retry import DEFAULT_RETRIES, RetryPolicy
from airflow_modelarts.compat import mask_secret
from airflow_modelarts.connection import reading
from airflow_modelarts.connection.values import Overrides, check_rendered
from airflow_modelarts.transport import AsyncDriver, Driver, Settings

if TYPE_CHECKING:
    from airflow_modelarts.api.http import Flow
    from airflow_modelarts.api.operations import ListOperation, Operation, Page

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")
A = TypeVar("A")
H = TypeVar("H", "ModelArtsHook", "ModelArtsAsyncHook")


class _Method(Generic[P, S, A]):
    """An operation as a method of both hooks, for type checkers; ``_with_operations`` makes the real methods.

    The synchronous hook's method returns an ``S``, the asynchronous hook's an ``A``.
    """

    def __init__(self, build: Callable[P, Operation[Any]]) -> None:
        self.build = build

    @overload
    def __get__(self, hook: ModelArtsHook, owner: type) -> Callable[P, S]: ...
    @overload
    def __get__(self, hook: ModelArtsAsyncHook, owner: type) -> Callable[P, A]: ...
    @overload
    def __get__(self, hook: None, owner: type[ModelArtsHook]) -> Callable[Concatenate[ModelArtsHook, P], S]: ...
    @overload
    def __get__(
        self, hook: None, owner: type[ModelArtsAsyncHook]
    ) -> Callable[Concatenate[ModelArtsAsyncHook, P], A]: ...
    def __get__(self, hook: Any, owner: type) -> Any:
        return self


def _call(build: Callable[P, Operation[T]]) -> _Method[P, T, Coroutine[Any, Any, T]]:
    return _Method(build)


def _listing(build: Callable[P, ListOperation[T]]) -> _Method[P, Iterator[T], AsyncGenerator[T, None]]:
    """Return a method that iterates over the items of all pages."""
    return _Method(build)


def _method(build: Callable[..., Any], *, is_async: bool) -> Any:
    """Return a hook's method, with the name, the docstring and the signature of the operation's builder."""
    hints = get_type_hints(build)
    result = get_args(hints["return"])[0]  # of Operation[…]
    method: Any
    if get_origin(hints["return"]) is operations.Operation:

        def call(self: ModelArtsHook, *args: Any, **kwargs: Any) -> Any:
            return self.call(build(*args, **kwargs))

        async def async_call(self: ModelArtsAsyncHook, *args: Any, **kwargs: Any) -> Any:
            return await self.call(build(*args, **kwargs))

        method = async_call if is_async else call
    else:

        def iterate(self: ModelArtsHook, *args: Any, **kwargs: Any) -> Iterator[Any]:
            return self.iterate(build(*args, **kwargs))

        async def async_iterate(self: ModelArtsAsyncHook, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            async with aclosing(self.iterate(build(*args, **kwargs))) as items:
                async for item in items:
                    yield item

        method = async_iterate if is_async else iterate
        result = GenericAlias(AsyncGenerator, (result, None)) if is_async else GenericAlias(Iterator, (result,))
    hints["return"] = result
    signature = inspect.signature(build)
    parameters = [parameter.replace(annotation=hints[name]) for name, parameter in signature.parameters.items()]
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__name__, method.__doc__, method.__annotations__ = build.__name__, build.__doc__, hints
    method.__signature__ = inspect.Signature([own, *parameters], return_annotation=hints["return"])
    return method


def _with_operations(hook: type[H]) -> type[H]:
    """Add a method for each operation to a hook class."""
    for name, operation in vars(_Operations).items():
        if isinstance(operation, _Method):
            method = _method(operation.build, is_async=inspect.iscoroutinefunction(hook.call))
            method.__qualname__ = f"{hook.__qualname__}.{name}"
            setattr(hook, name, method)
    return hook


class _Operations:
    """The twelve operations, once for both hooks; arguments and errors are those of ``api.operations``."""

    create_processor_task = _call(operations.create_processor_task)
    list_processor_tasks = _listing(operations.list_processor_tasks)
    list_processor_task_items = _listing(operations.list_processor_task_items)
    describe_processor_task = _call(operations.describe_processor_task)
    update_processor_task = _call(operations.update_processor_task)
    delete_processor_task = _call(operations.delete_processor_task)
    create_processor_task_version = _call(operations.create_processor_task_version)
    list_processor_task_versions = _listing(operations.list_processor_task_versions)
    describe_processor_task_version = _call(operations.describe_processor_task_version)
    delete_processor_task_version = _call(operations.delete_processor_task_version)
    stop_processor_task_version = _call(operations.stop_processor_task_version)
    list_processor_task_version_results = _listing(operations.list_processor_task_version_results)


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
        retries: RetryPolicy | None = None,
    ) -> None:
        super().__init__()
        self.modelarts_conn_id = modelarts_conn_id
        self.overrides = Overrides(project_id, region, endpoint)
        self.retries = retries or DEFAULT_RETRIES
        self._driver: Any = self._new_driver()

    def _new_driver(self) -> Driver | AsyncDriver:
        """Return the driver that sends the requests."""
        raise NotImplementedError

    def _read_connection(self) -> Settings:
        """Read the Airflow connection; it blocks."""
        found = self._find_connection()
        return self._masked(reading.read(found, found.extra_dejson, self.overrides))

    def _find_connection(self) -> Any:
        check_rendered("modelarts_conn_id", self.modelarts_conn_id)
        try:
            return self.get_connection(self.modelarts_conn_id)
        except AirflowNotFoundException as error:
            raise ModelArtsConfigurationError(
                f"Airflow connection '{self.modelarts_conn_id}' does not exist: create it, or pass another "
                "modelarts_conn_id="
            ) from error

    def _masked(self, settings: Settings) -> Settings:
        for secret in settings.client.credentials.secrets:
            mask_secret(secret)  # Airflow masks only what it reads itself, not a key from the environment
        return settings


@_with_operations
class ModelArtsHook(_BaseHook):
    """Calls ModelArts from a worker.

    Each operation of the API is a method, for example ``hook.describe_processor_task("…")``; the list operations are
    iterators over all pages. A call that the service refuses, or of which no attempt is answered, raises a
    :class:`~airflow_modelarts.api.errors.ModelArtsError`.

    As a context manager it closes its sockets on exit.

    :param modelarts_conn_id: the Airflow connection, default ``modelarts_default``.
    :param project_id: instead of the connection's.
    :param region: instead of the connection's host and region.
    :param endpoint: host or URL of ModelArts, instead of the connection's.
    :param retries: the retry policy of each call. By default five attempts with delays of at most 15 seconds in all,
        unless the service asks for longer ones; a create that the service throttles gets 15 attempts.
    """

    _driver: Driver

    def _new_driver(self) -> Driver:
        return Driver(self._read_connection)

    def call(self, operation: Operation[T]) -> T:
        """Call one operation."""
        return self._driver.call(operation, self.retries)

    def iterate(self, operation: ListOperation[T]) -> Iterator[T]:
        """Call a list operation; each page is requested when the items of the one before it are consumed."""
        return self._driver.iterate(operation, self.retries)

    def pages(self, operation: ListOperation[T]) -> Iterator[Page[T]]:
        """Call a list operation page by page, each with the service's count of all items.

        :raises ModelArtsError: the service refused the call, or no attempt was answered.
        """
        return self._driver.pages(operation, self.retries)

    def run(self, procedure: Flow[T]) -> T:
        """Run a procedure of :mod:`airflow_modelarts.api.procedures`: several calls with their own retry policies."""
        return self._driver.run(procedure)

    def clone(self, retries: RetryPolicy) -> ModelArtsHook:
        """Return a hook with its own sockets and tokens, which does not read the Airflow connection if this one has.

        A signal handler can use it: it interrupts this hook at any point, such as the renewal of a token.

        :param retries: the retry policy of each of its calls.
        """
        clone = copy.copy(self)
        clone.retries = retries
        clone._driver = self._driver.clone()
        return clone

    def get_conn(self) -> Settings:
        """Return the connection, read and checked.

        :raises ModelArtsConfigurationError: a field is missing or wrong; the message names it.
        """
        return self._driver.settings()

    def get_object_store(self) -> reading.ObjectStore:
        """Return the object store of the connection, read anew; :mod:`airflow_modelarts.filesystem` opens it.

        :raises ModelArtsConfigurationError: a field is missing or wrong; the message names it.
        """
        found = self._find_connection()
        store = reading.read_object_store(found, found.extra_dejson, self.overrides)
        self._masked(store.settings)
        return store

    def test_connection(self) -> tuple[bool, str]:
        """Make one authenticated, cheap call (ListProcessorTasks); return whether it worked, as whom or what to fix."""
        operation = operations.list_processor_tasks(limit=1).page(0)
        client = None
        try:
            client = self.get_conn().client
            self.call(operation)
        except ModelArtsError as error:
            # Airflow's form tests a copy of the connection under a random name.
            message = str(error).replace(f"connection '{self.modelarts_conn_id}'", "this connection")
            if client and error.operation == operation.name and error.http_status is not None:  # it was sent, so signed
                message += f" Identity: {client.credentials.identity(client.cache)}."
            return False, message
        identity = client.credentials.identity(client.cache)
        message = (
            f"Connected to {client.endpoint}: the credentials are valid for project {client.project_id}. "
            f"Identity: {identity}."
        )
        # Airflow's command shows neither the message of a success nor the log.
        if log.isEnabledFor(logging.INFO):
            log.info(message)
        else:
            print(message)
        return True, message

    def close(self) -> None:
        """Close the hook's sockets. A later call opens new ones."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how Airflow 2 shows the standard fields; Airflow 3 reads it from the provider info."""
        return provider.ui_field_behaviour()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields that Airflow 2 adds to the form; Airflow 3 reads them from the provider info."""
        return provider.connection_form_widgets()


@_with_operations
class ModelArtsAsyncHook(_BaseHook):
    """Calls ModelArts from a triggerer: the same methods as :class:`ModelArtsHook`, to be awaited or iterated over.

    It takes the same arguments and raises the same errors. As an asynchronous context manager it closes its sockets on
    exit.
    """

    _driver: AsyncDriver

    def _new_driver(self) -> AsyncDriver:
        return AsyncDriver(lambda: call_airflow(self._read_connection))

    async def call(self, operation: Operation[T]) -> T:
        """Call one operation."""
        return await self._driver.call(operation, self.retries)

    def iterate(self, operation: ListOperation[T]) -> AsyncGenerator[T, None]:
        """Call a list operation; each page is requested when the items of the one before it are consumed."""
        return self._driver.iterate(operation, self.retries)

    def pages(self, operation: ListOperation[T]) -> AsyncGenerator[Page[T], None]:
        """Call a list operation page by page, each with the service's count of all items."""
        return self._driver.pages(operation, self.retries)

    async def run(self, procedure: Flow[T]) -> T:
        """Run a procedure of :mod:`airflow_modelarts.api.procedures`: several calls with their own retry policies."""
        return await self._driver.run(procedure)

    async def settings(self) -> Settings:
        """Return the connection, read and checked, as ``get_conn`` of the other hook does.

        :raises ModelArtsConfigurationError: a field is missing or wrong; the message names it.
        """
        return await self._driver.settings()

    async def close(self) -> None:
        """Close the hook's sockets. A later call opens new ones."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
