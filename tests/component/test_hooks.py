"""The public side of the hooks: their methods, the connection test, and how Airflow creates them."""

import asyncio
import importlib
import inspect
import json
import logging
import pydoc
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import airflow
import pytest
from airflow.providers.common.compat.sdk import redact
from requests_mock import Mocker

from airflow_modelarts import hooks
from airflow_modelarts.api import operations, procedures
from airflow_modelarts.api.errors import ModelArtsAuthenticationError, ModelArtsConfigurationError
from airflow_modelarts.api.http import Request, Response
from airflow_modelarts.connection import reading
from airflow_modelarts.connection.values import Overrides
from airflow_modelarts.hooks import ModelArtsAsyncHook, ModelArtsHook
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.transport import AsyncDriver, Settings
from tests.support.loopback import ONCE, Carry
from tests.support.waiting import TIMEOUT

PROJECT = "https://modelarts.example.com/v2/0123456789abcdef0123456789abcdef"
OPERATIONS = """
    create_processor_task list_processor_tasks list_processor_task_items describe_processor_task update_processor_task
    delete_processor_task create_processor_task_version list_processor_task_versions describe_processor_task_version
    delete_processor_task_version stop_processor_task_version list_processor_task_version_results"""


@pytest.mark.parametrize("name", OPERATIONS.split())
@pytest.mark.parametrize("hook", [ModelArtsHook, ModelArtsAsyncHook])
def test_every_operation_is_a_method_with_signature_and_docstring_of_its_builder(hook: type[Any], name: str) -> None:
    build = getattr(operations, name)
    expected = inspect.signature(build, eval_str=True)
    method = getattr(hook, name)
    assert inspect.isfunction(method)
    assert method.__module__ == hook.__module__
    assert (method.__name__, method.__qualname__) == (name, f"{hook.__name__}.{name}")
    assert method.__doc__ == getattr(hook(), name).__doc__ == build.__doc__
    bound = inspect.signature(getattr(hook(), name))
    assert list(bound.parameters.values()) == list(expected.parameters.values())
    assert list(inspect.signature(method).parameters) == ["self", *expected.parameters]
    (result,) = get_args(expected.return_annotation)
    asynchronous = hook is ModelArtsAsyncHook
    if name.startswith("list_"):
        returned = AsyncGenerator[result, None] if asynchronous else Iterator[result]  # type: ignore[valid-type]  # at run time
        assert inspect.isasyncgenfunction(getattr(hook(), name)) is asynchronous
    else:
        returned = result
        assert inspect.iscoroutinefunction(getattr(hook(), name)) is asynchronous
    assert bound.return_annotation == returned
    assert get_type_hints(method)["return"] == returned


@pytest.mark.parametrize("hook", [ModelArtsHook, ModelArtsAsyncHook])
def test_the_arguments_of_a_hook_are_documented(hook: type[Any]) -> None:
    documented = ["modelarts_conn_id", "project_id", "region", "endpoint", "retries"]
    assert list(inspect.signature(hook).parameters) == documented


def test_help_lists_the_methods_with_their_signatures() -> None:
    text = pydoc.plain(pydoc.render_doc(ModelArtsHook))
    methods = text[text.index("Methods defined here:") : text.index("Class methods defined here:")]
    assert all(f" {name}(self, " in methods or f" {name}(\n" in methods for name in OPERATIONS.split())
    assert "describe_processor_task(task_id: str)" in pydoc.plain(
        pydoc.render_doc(ModelArtsAsyncHook().describe_processor_task)
    )


def test_every_method_uses_an_overridden_call() -> None:
    class Recorded(ModelArtsHook):
        def call(self, operation: Any) -> Any:
            return operation.name

    assert Recorded().describe_processor_task("abc") == "DescribeProcessorTask"


@pytest.mark.parametrize(
    "name", ["airflow_modelarts.operators", "airflow_modelarts.audit", "airflow_modelarts.testing.emulator"]
)
def test_lazily_imported_names_are_listed(name: str) -> None:
    code = f"import {name} as module; print([n for n in module.__all__ if n not in dir(module) or n in vars(module)])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=TIMEOUT)
    assert finished.stdout == "[]\n"
    module = importlib.import_module(name)
    text = pydoc.plain(pydoc.render_doc(module))
    assert all(exported in text for exported in module.__all__)


def test_every_lazily_importing_module_lists_its_names() -> None:
    package = Path(hooks.__file__).parent
    sources = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}
    lazy = {name for name, source in sources.items() if "\ndef __getattr__(" in source}
    assert lazy == {"audit/__init__.py", "operators/__init__.py", "testing/emulator/__init__.py"}
    assert all("\ndef __dir__(" in sources[name] for name in lazy)


def test_a_task_is_created_changed_run_again_stopped_and_deleted(requests_mock: Mocker) -> None:
    requests_mock.post(f"{PROJECT}/processor-tasks", json={"task_id": "abc"})
    requests_mock.put(f"{PROJECT}/processor-tasks/abc", json={})
    requests_mock.post(f"{PROJECT}/processor-tasks/abc/versions", json={"version_id": "v1"})
    requests_mock.get(f"{PROJECT}/processor-tasks/abc/versions/v1", json={"task_version_id": "v1", "status": 1})
    requests_mock.post(f"{PROJECT}/processor-tasks/abc/versions/v1/stop", json={})
    requests_mock.delete(f"{PROJECT}/processor-tasks/abc/versions/v1", json={})
    requests_mock.delete(f"{PROJECT}/processor-tasks/abc", text="")
    template = {"id": "sys_data_validation", "operator_params": [{"name": "MetaValidation", "params": {"a": "[0,1]"}}]}
    arguments: dict[str, Any] = {"name": "mine", "template": template}
    arguments["inputs"] = [{"type": "OBS", "source": "obs://b/i/"}]
    with ModelArtsHook() as hook:
        assert hook.create_processor_task(**arguments, create_version=True).task_id == "abc"
        hook.update_processor_task("abc", description="new")
        assert hook.create_processor_task_version("abc", **arguments).version_id == "v1"
        assert hook.describe_processor_task_version("abc", "v1").status == 1
        hook.stop_processor_task_version("abc", "v1")
        hook.delete_processor_task_version("abc", "v1")
        hook.delete_processor_task("abc")
    sent = [
        (request.method, request.path.rpartition("processor-tasks")[2]) for request in requests_mock.request_history
    ]
    assert sent == [
        ("POST", ""),
        ("PUT", "/abc"),
        ("POST", "/abc/versions"),
        ("GET", "/abc/versions/v1"),
        ("POST", "/abc/versions/v1/stop"),
        ("DELETE", "/abc/versions/v1"),
        ("DELETE", "/abc"),
    ]
    assert requests_mock.request_history[0].json() == {**arguments, "create_version": True}


def test_all_pages_of_a_list_are_read(requests_mock: Mocker) -> None:
    items = {"total": 1, "items": [{"template_id": "sys_data_analyse"}]}
    requests_mock.get(f"{PROJECT}/processor-tasks/items", json=items)
    versions = {"count": 1, "versions": [{"task_version_id": "v1"}]}
    requests_mock.get(f"{PROJECT}/processor-tasks/abc/versions", json=versions)
    results = f"{PROJECT}/processor-tasks/abc/versions/v1/results"
    samples = [{"sample_id": f"s{more}", "signed_new_source": "https://x"} for more in (True, False)]
    pages = [{"json": {"count": 2, "has_more": s is samples[0], "results": [s]}} for s in samples]
    requests_mock.get(results, pages)
    hook = ModelArtsHook()
    assert [item.template_id for item in hook.list_processor_task_items()] == ["sys_data_analyse"]
    assert [version.task_version_id for version in hook.list_processor_task_versions("abc")] == ["v1"]
    found = list(hook.list_processor_task_version_results("abc", "v1", limit=1))
    assert [(result.sample_id, result.signed_new_source) for result in found] == [("sTrue", None), ("sFalse", None)]


def test_both_hooks_run_a_procedure(emulator: EmulatorServer) -> None:
    task = emulator.state.add_task("mine")

    async def run_asynchronously() -> Any:
        async with ModelArtsAsyncHook() as hook:
            return await hook.run(procedures.find_task("mine", None))

    with ModelArtsHook() as hook:
        found = hook.run(procedures.find_task("mine", None))
    assert found.task_id == asyncio.run(run_asynchronously()).task_id == task.task_id


def test_the_connection_test_names_endpoint_project_and_identity(requests_mock: Mocker) -> None:
    requests_mock.get(f"{PROJECT}/processor-tasks", json={"count": 0, "tasks": []})
    works, sentence = ModelArtsHook().test_connection()
    assert works
    assert sentence == (
        "Connected to https://modelarts.example.com: the credentials are valid for project "
        "0123456789abcdef0123456789abcdef. Identity: access key 'FAKEACCESSKEY'."
    )
    assert len(requests_mock.request_history) == 1
    assert requests_mock.last_request.qs == {"limit": ["1"], "offset": ["0"], "return_result": ["false"]}


def test_the_connection_test_of_a_refused_key_says_what_to_change(requests_mock: Mocker) -> None:
    requests_mock.get(f"{PROJECT}/processor-tasks", status_code=401, json={"error_code": "APIGW.0301"})
    works, sentence = ModelArtsHook().test_connection()
    assert not works
    assert "Check the credentials" in sentence


def test_the_connection_test_of_an_incomplete_connection_names_the_field(set_connection: Callable[..., None]) -> None:
    set_connection(extra={"project_id": ""})
    assert ModelArtsHook().test_connection() == (
        False,
        "project_id is missing: set it in the extras of this connection, or pass project_id=, or set region, of which "
        "IAM knows the project",
    )


def test_airflow_creates_the_hook_from_the_connection() -> None:
    hook = ModelArtsHook.get_hook("modelarts_default")
    assert isinstance(hook, ModelArtsHook)
    assert hook.get_conn().client.endpoint == "https://modelarts.example.com"


def test_both_hooks_have_the_same_arguments() -> None:
    arguments = {"project_id": "p2", "region": "eu-de", "endpoint": "other.example.com"}
    hook = ModelArtsHook("modelarts_default", **arguments)
    another = ModelArtsAsyncHook("modelarts_default", **arguments)
    assert hook.overrides == another.overrides
    assert hook.get_conn() == asyncio.run(another.settings())


def test_logs_and_errors_of_a_call_contain_no_secret(
    requests_mock: Mocker, caplog: pytest.LogCaptureFixture, pauses: list[float]
) -> None:
    caplog.set_level(logging.DEBUG)

    def echo(request: Any, context: Any) -> dict[str, Any]:
        context.status_code = 400
        return {"error_code": "ModelArts.4614", "error_msg": f"{dict(request.headers)} fake-secret-key"}

    requests_mock.get(f"{PROJECT}/processor-tasks/abc", json=echo)
    with pytest.raises(Exception, match="the task failed") as caught:
        ModelArtsHook().describe_processor_task("abc")
    assert "fake-secret-key" not in str(caught.value) + caplog.text


@pytest.mark.parametrize("hook", [ModelArtsHook, ModelArtsAsyncHook])
def test_a_key_from_the_environment_is_masked_in_logs(
    set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, hook: type
) -> None:
    secret = f"environment-secret-of-{hook.__name__}"
    monkeypatch.setenv("HUAWEICLOUD_SDK_AK", "ENVKEY")
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", secret)
    set_connection(extra={"auth": "environment"})
    read_on_a_worker() if hook is ModelArtsHook else read_in_a_triggerer()
    assert secret not in str(redact(f"the key is {secret}"))


def read_on_a_worker(**arguments: Any) -> Settings:
    with ModelArtsHook(**arguments) as hook:
        return hook.get_conn()


def read_in_a_triggerer(**arguments: Any) -> Settings:
    async def read() -> Settings:
        async with ModelArtsAsyncHook(**arguments) as hook:
            return await hook._driver.settings()

    return asyncio.run(read())


both = pytest.mark.parametrize("read", [read_on_a_worker, read_in_a_triggerer], ids=["worker", "triggerer"])


#: On Airflow 3.0 and 3.1, a connection that cannot be parsed does not exist for tasks.
sees_odd_extras = pytest.mark.skipif(
    airflow.__version__.startswith(("3.0.", "3.1.")), reason="this Airflow says that there is no such connection"
)


@sees_odd_extras
@both
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("[1]", "are a JSON list"),
        (json.dumps(json.dumps({"project_id": "p"})), "are JSON text within a JSON text"),
        ("null", "are null"),
        ("17", "are a JSON number"),
        ("true", "are a JSON boolean"),
        ("{'project_id': 'p'}", "are not JSON"),
        ('{"project_id": "p"', "are not JSON"),
        ([1], "are a JSON list"),
    ],
)
def test_extras_that_are_no_object_are_refused(
    monkeypatch: pytest.MonkeyPatch, read: Callable[..., Settings], extra: Any, words: str
) -> None:
    described = {"conn_type": "modelarts", "host": "h.example", "login": "AK", "password": "SK", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", json.dumps(described))
    with pytest.raises(ModelArtsConfigurationError, match=f"^the extras of connection 'modelarts_default' {words}"):
        read()


@sees_odd_extras
def test_the_connection_test_reports_extras_that_are_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    described = {"conn_type": "modelarts", "host": "h.example", "login": "AK", "password": "SK", "extra": "[1]"}
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", json.dumps(described))
    works, sentence = ModelArtsHook().test_connection()
    assert not works
    assert sentence.startswith("the extras of this connection are a JSON list")


def test_the_emulators_project_id_is_text_in_a_connection_uri_too(emulator: EmulatorServer) -> None:
    """Airflow's metadata database reads the extras of a URI as JSON."""
    from airflow.models.connection import Connection

    for project_id in (accounts.PROJECT_ID, accounts.OTHER_PROJECT_ID):
        with pytest.raises(ValueError, match="Expecting value"):
            json.loads(project_id)
        found = Connection(conn_id="mine", uri=f"modelarts://AK:SK@h.example/?project_id={project_id}")
        assert reading.read(found, found.extra_dejson, Overrides()).client.project_id == project_id


def test_a_project_id_that_airflow_read_as_a_number_is_refused() -> None:
    from airflow.models.connection import Connection

    project_id = f"0e{'0' * 29}1"
    found = Connection(conn_id="mine", uri=f"modelarts://AK:SK@h.example/?project_id={project_id}")
    if found.extra_dejson == {"project_id": project_id}:  # Airflow 2 ignores it
        key = {"login": "AK", "password": "SK"}
        found = Connection(conn_id="mine", host="h.example", **key, extra=json.dumps({"project_id": 0.0}))
    with pytest.raises(ModelArtsConfigurationError, match=r"^project_id of connection 'mine' is 0\.0, .*__extra__"):
        reading.read(found, found.extra_dejson, Overrides())


@both
def test_an_unrendered_template_is_refused_as_a_connection(read: Callable[..., Settings]) -> None:
    with pytest.raises(ModelArtsConfigurationError, match=r"^modelarts_conn_id is .*was not rendered"):
        read(modelarts_conn_id="{{ params.connection }}")


def described(access_key: str) -> str:
    found = {"conn_type": "modelarts", "host": "modelarts.example.com", "login": access_key, "password": "SK"}
    return json.dumps({**found, "extra": json.dumps({"project_id": PROJECT.rpartition("/")[2]})})


#: Connections that a secrets backend can return while it is written to, or out of order.
BROKEN_STORES = {
    "missing": None,
    "half-written": described("NEWKEY")[:40],
    "half-written extras": json.dumps({**json.loads(described("NEWKEY")), "extra": '{"project_id": '}),
    "a field missing": json.dumps({**json.loads(described("NEWKEY")), "password": None}),
    "not a connection": "[]",
}


class Store:
    """A secrets backend whose connection is broken when the service first refuses, and valid 8 seconds later."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broken: str | None, *, whole_after: float = 8.0) -> None:
        self._set = lambda value: (
            monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", value)
            if value is not None
            else monkeypatch.delenv("AIRFLOW_CONN_MODELARTS_DEFAULT")
        )
        self._broken = broken
        self._whole_after = whole_after
        self.slept = 0.0
        self._set(described("OLDKEY"))

    def answer(self, request: Any, context: Any) -> dict[str, Any]:
        if "Access=NEWKEY" in request.headers["Authorization"]:
            return {"task_id": "abc", "status": 2}
        self._set(self._broken)
        context.status_code = 401
        return {"error_code": "APIGW.0301"}

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        if self.slept >= self._whole_after:
            self._set(described("NEWKEY"))


@pytest.mark.parametrize("broken", BROKEN_STORES.values(), ids=BROKEN_STORES)
def test_a_worker_waits_for_a_failing_secrets_backend_after_a_refused_key(
    requests_mock: Mocker, monkeypatch: pytest.MonkeyPatch, broken: str | None
) -> None:
    store = Store(monkeypatch, broken)
    monkeypatch.setattr("time.sleep", store.sleep)
    requests_mock.get(f"{PROJECT}/processor-tasks/abc", json=store.answer)
    assert ModelArtsHook(retries=ONCE).describe_processor_task("abc").status == 2
    assert 8 <= store.slept < 60


@pytest.mark.parametrize("broken", BROKEN_STORES.values(), ids=BROKEN_STORES)
def test_a_triggerer_waits_for_a_failing_secrets_backend_after_a_refused_key(
    monkeypatch: pytest.MonkeyPatch, broken: str | None
) -> None:
    store = Store(monkeypatch, broken)

    async def sleep(seconds: float) -> None:
        store.sleep(seconds)

    async def exchange(driver: AsyncDriver, request: Request) -> Response:
        """Answer instead of a socket."""
        context = SimpleNamespace(status_code=200)
        body = store.answer(request, context)
        return Response(context.status_code, {}, json.dumps(body).encode())

    monkeypatch.setattr(AsyncDriver, "_exchange", exchange)
    monkeypatch.setattr(
        "airflow_modelarts.transport.aiohttp_driver.asyncio", SimpleNamespace(Lock=asyncio.Lock, sleep=sleep)
    )

    async def run() -> int | None:
        async with ModelArtsAsyncHook(retries=ONCE) as hook:
            return (await hook.describe_processor_task("abc")).status

    assert asyncio.run(run()) == 2
    assert 8 <= store.slept < 60


def test_a_connection_that_never_existed_is_an_error_at_once(pauses: list[float]) -> None:
    with pytest.raises(ModelArtsConfigurationError, match="does not exist"):
        ModelArtsHook("not_there").describe_processor_task("abc")
    assert pauses == []


def test_a_deleted_connection_fails_after_a_minute(requests_mock: Mocker, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch, None, whole_after=1e9)
    monkeypatch.setattr("time.sleep", store.sleep)
    requests_mock.get(f"{PROJECT}/processor-tasks/abc", json=store.answer)
    with pytest.raises(ModelArtsConfigurationError, match="does not exist"):
        ModelArtsHook().describe_processor_task("abc")
    assert 30 <= store.slept <= 60


def iam_user(server: EmulatorServer, **extra: Any) -> str:
    """Return the connection of the emulator's IAM user."""
    found = json.loads(server.airflow_connection())
    extras = {**found["extra"], "auth": "password", "domain_name": accounts.DOMAIN_NAME, **extra}
    return json.dumps({**found, "login": accounts.USER_NAME, "password": accounts.PASSWORD, "extra": extras})


LIST = operations.list_processor_tasks().page(0)


@pytest.mark.parametrize("size", [8 * 1024, 100 * 1024])
def test_the_emulators_tokens_can_be_large(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, carry_out: Carry, size: int
) -> None:
    monkeypatch.setattr(accounts, "TOKEN_BYTES", size)
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", iam_user(emulator))
    assert carry_out(LIST, ONCE).items == []


def test_a_project_name_of_another_project_is_refused(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, carry_out: Carry
) -> None:
    wrong = iam_user(emulator, project_name=accounts.OTHER_PROJECT_NAME)
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", wrong)
    with pytest.raises(ModelArtsConfigurationError, match=f"is the project {accounts.OTHER_PROJECT_ID}"):
        carry_out(LIST, ONCE)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"project_name": "no-such-project"}, "project_name 'no-such-project'"),
        ({"domain_name": "no-such-domain"}, "domain_name 'no-such-domain'"),
        ({"project_id": accounts.PROJECT_NAME}, f"project_id '{accounts.PROJECT_NAME}' looks like a project's name"),
        ({"project_id": "f" * 32}, f"project_id '{'f' * 32}' .32 hex digits"),
    ],
)
def test_an_error_of_iam_names_the_setting(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, carry_out: Carry, extra: dict[str, str], named: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", iam_user(emulator, **extra))
    with pytest.raises(ModelArtsAuthenticationError, match=named):
        carry_out(LIST, ONCE)


def test_a_project_name_instead_of_the_id_is_refused(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch, carry_out: Carry
) -> None:
    found = json.loads(emulator.airflow_connection())
    found["extra"]["project_id"] = "eu-de_project"
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", json.dumps(found))
    with pytest.raises(ModelArtsConfigurationError, match="'eu-de_project' looks like a project's name"):
        carry_out(LIST, ONCE)


def test_hooks_of_one_connection_share_its_rate_limit_for_all_projects(set_connection: Callable[..., None]) -> None:
    def limiter_of(**how: Any) -> Any:
        return ModelArtsHook(**how).get_conn().client.limiter

    async def limiter_in_a_triggerer() -> Any:
        async with ModelArtsAsyncHook(project_id="another") as hook:
            return (await hook._driver.settings()).client.limiter

    assert limiter_of() is limiter_of(project_id="another") is asyncio.run(limiter_in_a_triggerer())
    assert limiter_of() is not limiter_of(endpoint="https://elsewhere.example.com")
    before = limiter_of()
    set_connection(password="rotated")
    assert limiter_of() is before


def test_a_clone_copies_the_rate_limit_without_sharing_turns(requests_mock: Mocker, pauses: list[float]) -> None:
    requests_mock.get(f"{PROJECT}/processor-tasks/abc", [{"status_code": 429}, {"json": {"task_id": "abc"}}])
    hook = ModelArtsHook()
    hook.describe_processor_task("abc")
    limiter = hook.get_conn().client.limiter
    other = hook.clone(ONCE).get_conn().client.limiter
    assert limiter is not None
    assert other is not None
    assert other is not limiter
    assert other.rate == limiter.rate < 2


def test_a_worker_paces_its_requests_after_throttling(requests_mock: Mocker, pauses: list[float]) -> None:
    requests_mock.get(f"{PROJECT}/processor-tasks/abc", [{"status_code": 429}, *[{"json": {"task_id": "abc"}}] * 4])
    ModelArtsHook().describe_processor_task("abc")
    paused = len(pauses)
    for _ in range(3):
        ModelArtsHook().describe_processor_task("abc")
    assert len(pauses) == paused + 3
    assert min(pauses[paused:]) > 0.5
