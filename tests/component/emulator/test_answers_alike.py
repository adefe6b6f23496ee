"""Both drivers and the triggerer's wait, with answers of the emulator that a client must tolerate."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_modelarts.api import operations
from airflow_modelarts.api.errors import ModelArtsAuthenticationError, ModelArtsNotFoundError, ModelArtsTransientError
from airflow_modelarts.api.retry import RetryPolicy
from airflow_modelarts.api.targets import Target
from airflow_modelarts.hooks import ModelArtsAsyncHook, ModelArtsHook
from airflow_modelarts.polling.target_status import describe_status
from airflow_modelarts.polling.wait import Ended, OutageBegan
from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState
from airflow_modelarts.testing.emulator.service import accounts
from tests.support.target_waits import wait_for_end

ONCE = RetryPolicy(attempts=1)
RunAll = Callable[..., Any]


@pytest.fixture
def with_password(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    described = json.loads(emulator.airflow_connection())
    described |= {"login": accounts.USER_NAME, "password": accounts.PASSWORD}
    described["extra"] |= {"auth": "password", "domain_name": accounts.DOMAIN_NAME}
    monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", json.dumps(described))


def on_a_worker(work: Callable[[Any], Any], retries: RetryPolicy) -> Any:
    with ModelArtsHook(retries=retries) as hook:
        return [hook.call(one) for one in work(hook)]


def in_a_triggerer(work: Callable[[Any], Any], retries: RetryPolicy) -> Any:
    async def run() -> Any:
        async with ModelArtsAsyncHook(retries=retries) as hook:
            return [await hook.call(one) for one in work(hook)]

    return asyncio.run(run())


@pytest.fixture(params=[on_a_worker, in_a_triggerer], ids=["requests", "aiohttp"])
def run_all(request: pytest.FixtureRequest) -> RunAll:
    """Return a function that runs operations one after the other, and returns their values."""
    run: RunAll = request.param
    return run


@pytest.mark.parametrize("meaning", ["more_follow", "all_returned", "absent"])
def test_all_samples_are_listed_for_every_meaning_of_has_more(state: EmulatorState, meaning: Any) -> None:
    state.settings.has_more, state.settings.sample_count = meaning, 250
    task = state.add_task(template="sys_data_validation", status=2)
    version_id = task.versions[0].version_id
    with ModelArtsHook(retries=ONCE) as hook:
        assert len({one.sample_id for one in hook.list_processor_task_version_results(task.task_id, version_id)}) == 250

    async def read() -> int:
        async with ModelArtsAsyncHook(retries=ONCE) as hook:
            results = hook.list_processor_task_version_results(task.task_id, version_id)
            return len({one.sample_id async for one in results})

    assert asyncio.run(read()) == 250


@pytest.mark.usefixtures("with_password")
@pytest.mark.parametrize("code", ["APIGW.0301", "APIGW.0307", "ModelArts.0202", "ModelArts.0203", "ModelArts.4127"])
def test_a_revoked_token_is_renewed_once(state: EmulatorState, run_all: RunAll, code: Any) -> None:
    state.settings.refused_token = code
    task = state.add_task(status=2)

    def twice(_: Any) -> Iterator[Any]:
        yield operations.describe_processor_task(task.task_id)
        assert state.accounts.expire_tokens() == 1
        yield operations.describe_processor_task(task.task_id)

    assert [read.status for read in run_all(twice, ONCE)] == [2, 2]
    assert state.log.counts() == {"KeystoneCreateUserTokenByPassword": 2, "DescribeProcessorTask": 3}


@pytest.mark.usefixtures("with_password")
def test_a_missing_permission_does_not_renew_the_token(state: EmulatorState, run_all: RunAll) -> None:
    task = state.add_task(status=2)
    state.faults.refuse("APIGW.0302", times=None, operation="DescribeProcessorTask")
    with pytest.raises(ModelArtsAuthenticationError):
        run_all(lambda _: [operations.describe_processor_task(task.task_id)], ONCE)
    assert state.log.counts() == {"KeystoneCreateUserTokenByPassword": 1, "DescribeProcessorTask": 1}


def test_a_refused_static_token_is_read_from_the_connection_again(
    emulator: EmulatorServer, run_all: RunAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = emulator.state
    state.settings.refused_token = "ModelArts.0203"
    task = state.add_task(status=2)
    described = json.loads(emulator.airflow_connection())
    del described["login"]

    def issue() -> None:
        token = state.accounts.issue_token(accounts.PROJECT_ID, now=state.gateway_time, lifetime=600)
        rotated = {**described, "password": token.value, "extra": {**described["extra"], "auth": "token"}}
        monkeypatch.setenv("AIRFLOW_CONN_MODELARTS_DEFAULT", json.dumps(rotated))

    def twice(_: Any) -> Iterator[Any]:
        yield operations.describe_processor_task(task.task_id)
        state.accounts.expire_tokens()
        issue()
        yield operations.describe_processor_task(task.task_id)

    issue()
    assert [read.status for read in run_all(twice, ONCE)] == [2, 2]
    assert state.log.counts() == {"DescribeProcessorTask": 3}


def test_a_gateways_error_does_not_count_as_a_deletion(state: EmulatorState, run_all: RunAll) -> None:
    task = state.add_task(status=2)
    state.faults.answer(504)
    state.faults.refuse("ModelArts.4700", "Unavailable gateway.", status=503, times=None)
    with pytest.raises(ModelArtsTransientError):
        run_all(lambda _: [operations.delete_processor_task(task.task_id)], RetryPolicy(attempts=2, initial_delay=0))
    assert state.find_task(task.task_id)


def events_of(task_id: str, *, version_id: str | None = None) -> list[Any]:
    async def read() -> list[Any]:
        def opened() -> ModelArtsAsyncHook:
            return ModelArtsAsyncHook(retries=ONCE)

        events: list[Any] = []
        target = Target(task_id, version_id)
        await wait_for_end("this", opened, target, interval=0.1, on_event=events.append, poll_at_once=True)
        return events

    return asyncio.run(asyncio.wait_for(read(), 60))


def test_a_503_with_the_code_of_a_missing_task_does_not_end_a_wait(state: EmulatorState) -> None:
    task = state.add_task(status=2)
    state.faults.refuse("ModelArts.4700", "Unavailable gateway.", status=503, times=3)
    *before, last = events_of(task.task_id)
    assert last == Ended(2)
    assert any(isinstance(one, OutageBegan) for one in before)


def test_an_answer_about_another_task_does_not_end_a_wait(state: EmulatorState, run_all: RunAll) -> None:
    task = state.add_task(status=2)
    other = json.dumps({"task_id": "another", "status": 3})
    state.faults.answer(200, other, operation="DescribeProcessorTask", times=2)
    assert events_of(task.task_id)[-1] == Ended(2)
    state.faults.answer(200, other)
    with pytest.raises(ModelArtsTransientError, match="another object than the requested one"):
        run_all(lambda _: [operations.describe_processor_task(task.task_id)], ONCE)


def test_an_answer_about_another_version_does_not_end_a_wait(state: EmulatorState) -> None:
    task = state.add_task(template="sys_data_validation", status=2)
    version_id = task.versions[0].version_id
    other = json.dumps({"task_id": task.task_id, "task_version_id": "another", "status": 3})
    state.faults.answer(200, other, times=2)
    assert events_of(task.task_id, version_id=version_id)[-1] == Ended(2)


@pytest.mark.parametrize("levels", [190, 300, 100_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_a_result_of_any_depth_is_read(state: EmulatorState, run_all: RunAll, levels: int, brackets: str) -> None:
    task = state.add_task(status=2)
    opening = '{"a":' if brackets == "{}" else "["
    result = opening * levels + '"x"' + brackets[1] * levels
    body = f'{{"task_id": "{task.task_id}", "status": 2, "result": {result}, "name": "n"}}'
    state.faults.answer(200, body, times=None)
    assert events_of(task.task_id)[-1] == Ended(2)
    (read,) = run_all(lambda _: [operations.describe_processor_task(task.task_id)], ONCE)
    assert (read.status, read.name) == (2, "n")
    assert read.result == (result if levels > 200 else json.loads(result))
    json.dumps(read.result)


def test_a_list_with_a_deeply_nested_result_is_read(state: EmulatorState) -> None:
    deep = "[" * 300 + "]" * 300
    tasks = f'{{"task_id": "a", "status": 2, "result": {deep}}}, {{"task_id": "b", "x": [{deep}], "status": 1}}'
    state.faults.answer(200, f'{{"count": 2, "tasks": [{tasks}]}}')
    with ModelArtsHook(retries=ONCE) as hook:
        assert [(one.task_id, one.status) for one in hook.list_processor_tasks()] == [("a", 2), ("b", 1)]


NUMBERS = st.one_of(
    st.integers().map(str),
    st.floats().map(json.dumps),
    st.sampled_from(
        ["1e400", "-1e400", "1e1", "2.0", "2.5", "-0", "true", "null", '"2"', '"two"', "[]", "{}", "1e-400"]
    ),
    st.integers(18, 6000).map(lambda digits: "9" * digits),
)


@settings(deadline=None, max_examples=300)
@given(NUMBERS)
@example("1e400")
@example("NaN")
@example("-Infinity")
@example("9" * 5000)
def test_worker_and_triggerer_read_a_status_alike(status: str) -> None:
    body = f'{{"task_id": "t", "status": {status}}}'.encode()
    readings = []
    # The watcher reads no more than it needs, and has no public reader of its own.
    for operation in (operations.describe_processor_task("t"), describe_status(Target("t"))):
        try:
            readings.append(operation.read(body).status)
        except ValueError:
            readings.append("unreadable")
    assert readings[0] == readings[1]


def test_thirty_simultaneous_creates_succeed_despite_throttling(state: EmulatorState) -> None:
    state.faults.limit_rate(60, 5, operation="CreateProcessorTask")

    async def create(number: int, hook: ModelArtsAsyncHook) -> Any:
        source = {"type": "OBS", "source": "obs://bucket/k"}
        return await hook.create_processor_task(
            name=f"n{number}", template={"id": "sys_data_analyse"}, data_source=source
        )

    async def create_all() -> list[Any]:
        async with ModelArtsAsyncHook(retries=RetryPolicy(initial_delay=0.01, throttled_attempts=15)) as hook:
            return await asyncio.gather(*[create(number, hook) for number in range(30)])

    assert len({made.task_id for made in asyncio.run(create_all())}) == 30


def test_a_missing_task_raises_not_found(state: EmulatorState, run_all: RunAll) -> None:
    with pytest.raises(ModelArtsNotFoundError):
        run_all(lambda _: [operations.describe_processor_task("missing")], ONCE)
    with pytest.raises(ModelArtsNotFoundError):
        events_of("missing")
