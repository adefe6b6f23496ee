"""The sandbox's client of Airflow's REST API, against recorded answers of v1 and v2."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
import requests_mock

from airflow_modelarts.testing.sandbox import SandboxError, airflow_api
from airflow_modelarts.testing.sandbox.airflow_api import AirflowApi, unwrap_serialized

ORIGIN = "http://127.0.0.1:8080"
RUN = "dags/one/dagRuns/r"


def instance_entry(task_id: str, map_index: int, start: str | None, **values: object) -> dict[str, object]:
    defaults = {"state": "running", "try_number": 1, "end_date": None, "duration": None}
    return {"task_id": task_id, "map_index": map_index, "start_date": start, **defaults, **values}


def xcom_entry(task_id: str, map_index: int, key: str, second: int) -> dict[str, object]:
    timestamp = f"2026-01-01T00:00:0{second}Z"
    return {"task_id": task_id, "map_index": map_index, "key": key, "timestamp": timestamp}


@pytest.fixture(params=["v1", "v2"])
def client(
    request: pytest.FixtureRequest, requests_mock: requests_mock.Mocker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AirflowApi]:
    """A client of each version of the API."""
    requests_mock.get(f"{ORIGIN}/auth/token", status_code=201, json={"access_token": "t1"})
    monkeypatch.setattr(airflow_api, "RETRY_INTERVAL", 0)
    with closing(AirflowApi(ORIGIN, request.param)) as client:
        yield client


only_v2 = pytest.mark.parametrize("client", ["v2"], indirect=True)


@pytest.fixture
def api(client: AirflowApi, requests_mock: requests_mock.Mocker) -> AirflowApi:
    """A client of an API that has one run."""

    def answer(path: str, body: object, **options: Any) -> None:
        requests_mock.get(f"{client._base}/{path}", json=body, **options)

    def listing(path: str, key: str, entries: list[dict[str, object]]) -> None:
        pages = [entries[:2], entries[2:]]  # smaller than the requested size, which a server may lower
        for number, page in enumerate(pages):
            query = f"?offset={2 * number}"
            answer(path + query, {key: page, "total_entries": len(entries)})

    listing("dags", "dags", [{"dag_id": "two"}, {"dag_id": "one"}, {"dag_id": "not_serialized"}])
    answer("dags/one/details", {})
    answer("dags/two/details", {})
    answer("dags/not_serialized/details", {"detail": "no such DAG"}, status_code=404)
    listing("importErrors", "import_errors", [{"filename": "bad.py", "stack_trace": "Traceback"}])
    answer(RUN, {"state": "running"})
    answer("dags/one/dagRuns/none", {"detail": "no such run"}, status_code=404)
    health = {
        "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": "2026-01-01T00:00:00+00:00"},
        "triggerer": {"status": "unhealthy", "latest_triggerer_heartbeat": "2026-01-01T00:00:00+00:00"},
        "dag_processor": {"status": None, "latest_dag_processor_heartbeat": None},
    }
    answer(client._health_path, health)
    listing(
        f"{RUN}/taskInstances",
        "task_instances",
        [
            instance_entry("last", -1, None, state=None, try_number=0),
            instance_entry("wait", 1, "2026-01-01T00:00:02Z"),
            instance_entry("wait", 0, "2026-01-01T00:00:03+00:00", try_number=2),
            instance_entry("create", -1, "2026-01-01T00:00:00Z", end_date="2026-01-01T00:00:01.5Z", duration=1.5),
        ],
    )
    listing(
        f"{RUN}/taskInstances/~/xcomEntries",
        "xcom_entries",
        [
            xcom_entry("wait", 1, "return_value", 3),
            xcom_entry("wait", 0, "return_value", 4),
            xcom_entry("create", -1, "a/b", 2),
            xcom_entry("create", -1, "id", 1),
        ],
    )
    entries = f"{RUN}/taskInstances/wait/xcomEntries/return_value?stringify=false&map_index"
    answer(f"{entries}=0", {"value": "7"})
    answer(f"{entries}=1", {"value": 7})
    answer(f"{RUN}/taskInstances/create/xcomEntries/id", {"value": {"a": [1]}})
    answer(f"{RUN}/taskInstances/create/xcomEntries/a%2Fb", {"detail": "no such XCom"}, status_code=404)
    return client


def test_dags_errors_heartbeats_and_run_states_are_read(api: AirflowApi) -> None:
    assert api.dags() == ["one", "two"]
    assert api.import_errors() == {"bad.py": "Traceback"}
    assert api.heartbeat("scheduler") == datetime(2026, 1, 1, tzinfo=UTC)
    assert api.heartbeat("triggerer") is None, "unhealthy"
    assert api.heartbeat("dag-processor") is None, "never started"
    assert api.run_state("one", "r") == "running"
    assert api.run_state("one", "none") is None


def test_task_instances_are_sorted_by_the_start_of_their_task(api: AirflowApi) -> None:
    instances = api.task_instances("one", "r")
    assert [instance.label for instance in instances] == ["create", "wait[0]", "wait[1]", "last"]
    assert instances[0].end_date == datetime(2026, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert instances[1].try_number == 2
    assert instances[3].start_date is None


def test_xcoms_are_sorted_by_the_time_of_their_task(api: AirflowApi) -> None:
    assert [(xcom.label, xcom.key, xcom.value) for xcom in api.xcoms("one", "r")] == [
        ("create", "id", {"a": [1]}),
        ("create", "a/b", "(Airflow's API does not return the value of this key)"),
        ("wait[0]", "return_value", "7"),
        ("wait[1]", "return_value", 7),
    ]


@pytest.mark.parametrize("status", [400, 500])
def test_an_unreadable_xcom_does_not_break_the_listing(
    api: AirflowApi, requests_mock: requests_mock.Mocker, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(airflow_api, "XCOM_TIMEOUT", 0)
    key = f"{api._base}/{RUN}/taskInstances/create/xcomEntries/id"
    requests_mock.get(key, status_code=status, text="Out of range float values are not JSON compliant")
    values = {(xcom.label, xcom.key): xcom.value for xcom in api.xcoms("one", "r")}
    assert values["wait[0]", "return_value"] == "7"
    assert "Out of range float values" in values["create", "id"]


def test_links_runs_and_asset_events_of_both_versions(client: AirflowApi, requests_mock: requests_mock.Mocker) -> None:
    base, is_v1 = client._base, client._is_v1
    links = {"ModelArts console": "https://console.example.com"}
    requests_mock.get(f"{base}/{RUN}/taskInstances/wait/links", json=links if is_v1 else {"extra_links": links})
    requests_mock.get(f"{base}/dags/one/dagRuns", json={"dag_runs": [{"dag_run_id": "r"}], "total_entries": 1})
    kind, uri = ("dataset", "dataset_uri") if is_v1 else ("asset", "uri")
    entries = [
        {"id": number, f"{kind}_id": 7, uri: "obs://b/w", "source_task_id": "wait", "extra": extra}
        for number, extra in ((2, None), (1, {"status": 2}))
    ]
    requests_mock.get(f"{base}/{kind}s/events", json={f"{kind}_events": entries, "total_entries": 2})
    assert client.extra_links("one", "r", "wait") == links
    assert client.runs("one") == ["r"]
    first, second = client.asset_events()
    assert (first.asset_id, first.uri, first.source_task_id, first.extra) == (7, "obs://b/w", "wait", {"status": 2})
    assert second.extra == {}


@only_v2
def test_asset_states_are_read(client: AirflowApi, requests_mock: requests_mock.Mocker) -> None:
    requests_mock.get(f"{client._base}/assets", json={"assets": [{"id": 7}], "total_entries": 1})
    store = {"asset_state_store": [{"key": "k", "value": {"a": 1}}], "total_entries": 1}
    requests_mock.get(f"{client._base}/assets/7/state-store", json=store)
    assert [client.asset_state(asset_id) for asset_id in client.asset_ids()] == [{"k": {"a": 1}}]


@pytest.mark.parametrize(
    "outage", [{"status_code": 500, "text": "database is locked"}, {"exc": requests.ConnectionError("refused")}]
)
def test_a_request_is_retried_after_an_outage(
    client: AirflowApi, outage: dict[str, Any], requests_mock: requests_mock.Mocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests_mock.get(f"{client._base}/{RUN}", [outage, outage, {"json": {"state": "success"}}])
    checks: list[None] = []
    monkeypatch.setattr(client, "_check", lambda: checks.append(None))
    assert client.run_state("one", "r") == "success"
    assert len(checks) == 2


def test_a_lasting_outage_raises_the_last_answer(
    client: AirflowApi, requests_mock: requests_mock.Mocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airflow_api, "OUTAGE_TIMEOUT", 0)
    requests_mock.get(f"{client._base}/{RUN}", status_code=503, text="starting")
    with pytest.raises(SandboxError, match=f"GET {RUN} got no answer within 0 s: HTTP 503: starting"):
        client.run_state("one", "r")


@only_v2
def test_an_expired_token_is_renewed(client: AirflowApi, requests_mock: requests_mock.Mocker) -> None:
    tokens = [{"status_code": 201, "json": {"access_token": token}} for token in ("old", "new")]
    requests_mock.get(f"{ORIGIN}/auth/token", tokens)
    refused = requests_mock.get(f"{client._base}/{RUN}", status_code=401, json={"detail": "expired"})
    headers = {"Authorization": "Bearer new"}
    requests_mock.get(f"{client._base}/{RUN}", request_headers=headers, json={"state": "success"})
    assert client.run_state("one", "r") == "success"
    assert refused.call_count == 1


def test_a_refused_run_raises_airflows_reason(client: AirflowApi, requests_mock: requests_mock.Mocker) -> None:
    detail = "'name' is a required param"
    requests_mock.post(f"{client._base}/dags/one/dagRuns", status_code=400, json={"detail": detail})
    with pytest.raises(SandboxError, match=f"dagRuns was refused with HTTP 400: {detail}"):
        client.trigger("one", "r", datetime.now(UTC), {})


def test_a_conflict_after_a_failed_attempt_means_that_the_run_was_started(
    client: AirflowApi, requests_mock: requests_mock.Mocker
) -> None:
    conflict = {"status_code": 409, "json": {"detail": "the run exists"}}
    requests_mock.post(f"{client._base}/dags/one/dagRuns", [{"status_code": 500}, conflict, conflict])
    client.trigger("one", "r", datetime.now(UTC), {})
    with pytest.raises(SandboxError, match="the run exists"):
        client.trigger("one", "r", datetime.now(UTC), {})


def test_type_information_of_serialized_xcoms_is_removed() -> None:
    stored = {"t": {"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1, {"b": 2}]}}
    assert unwrap_serialized(stored) == {"t": [1, {"b": 2}]}
