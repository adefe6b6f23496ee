"""What the sandbox asks its Airflow: the stable REST API, v2 of Airflow 3 and v1 of Airflow 2.

Nothing here knows the metadata database, whose tables are no interface and change between versions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import requests

REQUEST_TIMEOUT = 30.0
"""Seconds for one answer; some ten milliseconds are usual."""
OUTAGE_TIMEOUT = 60.0
"""Seconds for which a request is repeated: the server may be starting, and SQLite may be locked by another process."""
XCOM_TIMEOUT = 10.0
"""The same for the value of one XCom, since an error can be about this value alone."""
RETRY_INTERVAL = 0.3
"""Seconds between two attempts."""
PAGE_SIZE = 10_000
"""Entries on a page; the sandbox raises Airflow's ``[api] maximum_page_limit`` to it, or a page would have 100."""


class SandboxError(Exception):
    """The scratch Airflow cannot do what was asked of it; the message says what happened and shows the log."""


class AirflowApiError(SandboxError):
    """Airflow's API refused a request, or did not answer; the message holds Airflow's own words."""


class RefusedError(AirflowApiError):
    """Airflow refused a request for what was asked (HTTP 4xx)."""


class NotFoundError(RefusedError):
    """Airflow knows no such thing (HTTP 404)."""


@dataclass(frozen=True)
class TaskInstance:
    """One task of a run; ``map_index`` is -1 unless it is mapped, ``duration`` in seconds is of the last try."""

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    start_date: datetime | None
    end_date: datetime | None
    duration: float | None

    @property
    def label(self) -> str:
        """The task's id, with the index of a mapped instance: ``wait[3]``."""
        return _label(self.task_id, self.map_index)


@dataclass(frozen=True)
class XCom:
    """A value that a task pushed."""

    task_id: str
    map_index: int
    key: str
    value: Any

    @property
    def label(self) -> str:
        """The task's id, with the index of a mapped instance: ``wait[3]``."""
        return _label(self.task_id, self.map_index)


@dataclass(frozen=True)
class AssetEvent:
    """An update of an asset, which Airflow 2 calls a dataset."""

    asset_id: int
    uri: str
    name: str | None
    source_task_id: str | None
    extra: dict[str, Any]


class AirflowApi:
    """A client of the stable REST API of one Airflow whose users are all administrators.

    :param url: scheme, host and port of the API server (Airflow 3) or web server (Airflow 2)
    :param version: ``v1`` or ``v2``
    :param check: called before a request is repeated; raises if waiting has become pointless
    """

    def __init__(self, url: str, version: str, check: Callable[[], None] = lambda: None) -> None:
        self._origin = url
        self._base = f"{url}/api/{version}"
        self._is_v1 = version == "v1"
        self._check = check
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a netrc is for a server on this machine
        self._has_token = self._is_v1  # v1 needs none: its authentication is switched off

    def close(self) -> None:
        """Close the connections to the server."""
        self._session.close()

    # Airflow itself

    def is_up(self) -> bool:
        """Return whether the server answers."""
        try:
            return self._session.get(self._health_url, timeout=REQUEST_TIMEOUT).ok
        except requests.RequestException:
            return False

    def heartbeat(self, component: str) -> datetime | None:
        """Return the latest heartbeat of a component's newest process, None unless it is alive.

        :param component: its name in Airflow's command line: ``scheduler``, ``triggerer`` or ``dag-processor``
        """
        name = component.replace("-", "_")
        health = self._get("health" if self._is_v1 else "monitor/health").get(name) or {}
        return _time(health.get(f"latest_{name}_heartbeat")) if health.get("status") == "healthy" else None

    # DAGs

    def dags(self) -> list[str]:
        """Return the ids of the DAGs that are ready to run: parsed and serialized."""
        return sorted(dag["dag_id"] for dag in self._all("dags", "dags") if self._is_serialized(dag["dag_id"]))

    def is_paused(self, dag_id: str) -> bool:
        """Return whether a DAG is paused."""
        return bool(self._get(f"dags/{_quoted(dag_id)}")["is_paused"])

    def unpause(self, dag_id: str) -> None:
        """Let a DAG run."""
        self._request("PATCH", f"dags/{_quoted(dag_id)}", body={"is_paused": False})

    def import_errors(self) -> dict[str, str]:
        """Return stack traces by file."""
        return {error["filename"]: error["stack_trace"] for error in self._all("importErrors", "import_errors")}

    # Runs

    def trigger(self, dag_id: str, run_id: str, logical_date: datetime, conf: Mapping[str, Any]) -> None:
        """Start a run.

        :raises RefusedError: there is no such DAG, or the configuration does not fit its params
        """
        body = {"dag_run_id": run_id, "logical_date": logical_date.isoformat(), "conf": dict(conf)}
        self._request("POST", f"dags/{_quoted(dag_id)}/dagRuns", body=body)

    def runs(self, dag_id: str) -> list[str]:
        """Return the ids of a DAG's runs."""
        return [run["dag_run_id"] for run in self._all(f"dags/{_quoted(dag_id)}/dagRuns", "dag_runs")]

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """Return the state of a run, None when there is no such run."""
        try:
            return str(self._get(_run_path(dag_id, run_id))["state"])
        except NotFoundError:
            return None

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Return the task instances of a run by the start of their task, those not started last."""
        entries = self._all(f"{_run_path(dag_id, run_id)}/taskInstances", "task_instances")
        instances = [
            TaskInstance(
                entry["task_id"],
                entry["map_index"],
                entry["state"],
                entry["try_number"],
                _time(entry["start_date"]),
                _time(entry["end_date"]),
                entry["duration"],
            )
            for entry in entries
        ]
        first = _earliest((instance.task_id, instance.start_date) for instance in instances)

        def key(instance: TaskInstance) -> tuple[bool, float, str, int]:
            start = first.get(instance.task_id)
            return (start is None, start.timestamp() if start else 0, instance.task_id, instance.map_index)

        return sorted(instances, key=key)

    def xcoms(self, dag_id: str, run_id: str) -> list[XCom]:
        """Return what the tasks of a run pushed, by the time of each task's first.

        The API lists XComs without their values, so each one costs a request.
        """
        entries = self._all(f"{_run_path(dag_id, run_id)}/taskInstances/~/xcomEntries", "xcom_entries")
        first = _earliest((entry["task_id"], _time(entry["timestamp"])) for entry in entries)
        entries.sort(key=lambda e: (first[e["task_id"]], e["task_id"], e["map_index"], e["timestamp"], e["key"]))
        return [XCom(e["task_id"], e["map_index"], e["key"], self._xcom_value(dag_id, run_id, e)) for e in entries]

    def extra_links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str | None]:
        """Return the URLs behind a task instance's buttons, by their names."""
        answer = self._get(f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}/links")
        return dict(answer if self._is_v1 else answer["extra_links"])

    # Assets

    def asset_events(self) -> list[AssetEvent]:
        """Return all asset events, the oldest first."""
        kind = "dataset" if self._is_v1 else "asset"
        entries = sorted(self._all(f"{kind}s/events", f"{kind}_events"), key=lambda entry: entry["id"])
        return [
            AssetEvent(
                entry[f"{kind}_id"],
                entry["dataset_uri" if self._is_v1 else "uri"],
                entry.get("name"),
                entry["source_task_id"],
                entry["extra"] or {},
            )
            for entry in entries
        ]

    def asset_ids(self) -> list[int]:
        """Return the ids of all assets (Airflow 3)."""
        return [asset["id"] for asset in self._all("assets", "assets")]

    def asset_state(self, asset_id: int) -> dict[str, Any]:
        """Return what is in the state store of an asset, by key (Airflow 3.3)."""
        entries = self._all(f"assets/{asset_id}/state-store", "asset_state_store")
        return {entry["key"]: entry["value"] for entry in entries}

    # Requests

    def _is_serialized(self, dag_id: str) -> bool:
        try:
            self._get(f"dags/{_quoted(dag_id)}/details")
        except NotFoundError:
            return False
        return True

    def _xcom_value(self, dag_id: str, run_id: str, entry: Mapping[str, Any]) -> Any:
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(entry['task_id'])}/xcomEntries"
        parameters = {"map_index": entry["map_index"], "stringify": "false"}
        try:
            answer = self._request("GET", f"{path}/{_quoted(entry['key'])}", parameters, timeout=XCOM_TIMEOUT)
            return plain(answer["value"])
        except NotFoundError:
            return "(Airflow's API does not give the value of this key)"  # such as a key with a slash
        except AirflowApiError as error:
            return f"(Airflow's API does not give this value: {error})"

    def _all(self, path: str, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self._get(path, {"limit": PAGE_SIZE, "offset": len(found)})
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found

    def _get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        return self._request("GET", path, parameters)

    def _request(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any] | None = None,
        body: object = None,
        timeout: float | None = None,
    ) -> Any:
        """Send a request until it is answered. Repeating is safe: a run has the same id each time.

        :param timeout: seconds for which it is repeated; default is `OUTAGE_TIMEOUT`
        """
        timeout = OUTAGE_TIMEOUT if timeout is None else timeout
        deadline = time.monotonic() + timeout
        repeated = False
        while True:
            try:
                self._log_in()
                url = f"{self._base}/{path}"
                answer = self._session.request(method, url, params=parameters, json=body, timeout=REQUEST_TIMEOUT)
                if repeated and answer.status_code == 409:
                    return None  # the first attempt has succeeded, although its answer was an error
                if answer.status_code == 401 and not self._is_v1:
                    self._has_token = False  # it has expired
                elif answer.status_code < 500:
                    return _json(method, path, answer)
                problem = f"HTTP {answer.status_code}: {answer.text}"
            except requests.RequestException as error:
                problem = str(error)
            self._check()
            if time.monotonic() > deadline:
                raise AirflowApiError(f"{method} {path} got no answer within {timeout:g} s: {problem}")
            time.sleep(RETRY_INTERVAL)
            repeated = True

    def _log_in(self) -> None:
        if self._has_token:
            return
        answer = self._session.get(f"{self._origin}/auth/token", timeout=REQUEST_TIMEOUT)
        answer.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        self._has_token = True

    @property
    def _health_url(self) -> str:
        return f"{self._base}/{'health' if self._is_v1 else 'monitor/health'}"


def _json(method: str, path: str, answer: requests.Response) -> Any:
    if answer.ok:
        return answer.json()
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.text
    kind = NotFoundError if answer.status_code == 404 else RefusedError
    raise kind(f"{method} {path} was refused with HTTP {answer.status_code}: {detail}")


def _run_path(dag_id: str, run_id: str) -> str:
    return f"dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}"


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _earliest(times: Any) -> dict[str, datetime]:
    """Return the earliest time by key, without keys that have none."""
    found: dict[str, datetime] = {}
    for key, moment in times:
        if moment is not None:
            found[key] = min(found.get(key, moment), moment)
    return found


def _label(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def plain(value: Any) -> Any:
    """Return a stored XCom without the marks by which Airflow remembers types (``__classname__``, ``__data__``)."""
    if isinstance(value, dict):
        if "__classname__" in value and "__data__" in value:
            return plain(value["__data__"])
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value
