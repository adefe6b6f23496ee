"""A client of Airflow's stable REST API, v2 of Airflow 3 and v1 of Airflow 2, with the requests the sandbox needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

import requests

REQUEST_TIMEOUT = 30.0
"""Seconds for one response; it usually takes some ten milliseconds."""
OUTAGE_TIMEOUT = 180.0
"""Seconds for which a request is retried: the server may be starting, and another process may lock SQLite."""
XCOM_TIMEOUT = 10.0
"""Seconds for which a request for one XCom value is retried. It is shorter, since the value itself can be the cause."""
RETRY_INTERVAL = 0.3
"""Seconds between two attempts."""
PAGE_SIZE = 10_000
"""Entries on a page. The sandbox raises Airflow's ``[api] maximum_page_limit``, by default 100, to it."""


class SandboxError(Exception):
    """The scratch Airflow failed; the message says what happened and, for a process, shows the end of its log."""


class AirflowApiError(SandboxError):
    """Airflow's API refused a request or did not answer; the message quotes Airflow."""


class RefusedError(AirflowApiError):
    """Airflow refused a request because of its contents (HTTP 4xx)."""


class NotFoundError(RefusedError):
    """Airflow has no such object (HTTP 404)."""


@dataclass(frozen=True)
class _OfTaskInstance:
    """Identifies a task instance; ``map_index`` is -1 unless the task is mapped."""

    task_id: str
    map_index: int

    @property
    def label(self) -> str:
        """The task's id, with the index of a mapped instance: ``wait[3]``."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


@dataclass(frozen=True)
class TaskInstance(_OfTaskInstance):
    """One task of a run; the dates and the duration in seconds are those of the last try."""

    state: str | None
    try_number: int
    start_date: datetime | None
    end_date: datetime | None
    duration: float | None


@dataclass(frozen=True)
class XCom(_OfTaskInstance):
    """A value that a task pushed."""

    key: str
    value: Any


@dataclass(frozen=True)
class AssetEvent:
    """An update of an asset, which Airflow 2 calls a dataset."""

    asset_id: int
    uri: str
    name: str | None
    source_task_id: str | None
    extra: dict[str, Any]


class AirflowApi:
    """A client of an Airflow in which every user is an administrator.

    :param url: scheme, host and port of the API server (Airflow 3) or web server (Airflow 2)
    :param version: ``v1`` or ``v2``
    :param check: called before each retry; raises to stop retrying
    """

    def __init__(self, url: str, version: str, check: Callable[[], None] = lambda: None) -> None:
        self._origin = url
        self._base = f"{url}/api/{version}"
        self._is_v1 = version == "v1"
        self._health_path = "health" if self._is_v1 else "monitor/health"
        self._check = check
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a netrc applies to a server on this machine
        self._has_token = self._is_v1  # v1 needs none: the sandbox disables its authentication

    def close(self) -> None:
        """Close the connections to the server."""
        self._session.close()

    # Airflow itself

    def is_up(self) -> bool:
        """Return whether the server answers."""
        try:
            return self._session.get(f"{self._base}/{self._health_path}", timeout=REQUEST_TIMEOUT).ok
        except requests.RequestException:
            return False

    def heartbeat(self, component: str) -> datetime | None:
        """Return the latest heartbeat of a component's newest process, None unless Airflow reports it as healthy.

        :param component: its name in Airflow's command line: ``scheduler``, ``triggerer`` or ``dag-processor``
        """
        name = component.replace("-", "_")
        health = self._get(self._health_path).get(name) or {}
        return _time(health.get(f"latest_{name}_heartbeat")) if health.get("status") == "healthy" else None

    # DAGs

    def dags(self) -> list[str]:
        """Return the ids of the DAGs that are ready to run: parsed and serialized."""
        return sorted(dag["dag_id"] for dag in self._list("dags", "dags") if self._is_serialized(dag["dag_id"]))

    def is_paused(self, dag_id: str) -> bool:
        """Return whether a DAG is paused."""
        return bool(self._get(f"dags/{_quoted(dag_id)}")["is_paused"])

    def unpause(self, dag_id: str) -> None:
        """Unpause a DAG."""
        self._request("PATCH", f"dags/{_quoted(dag_id)}", body={"is_paused": False})

    def import_errors(self) -> dict[str, str]:
        """Return stack traces by file."""
        return {error["filename"]: error["stack_trace"] for error in self._list("importErrors", "import_errors")}

    # Runs

    def trigger(self, dag_id: str, run_id: str, logical_date: datetime, conf: Mapping[str, Any]) -> None:
        """Start a run.

        :raises RefusedError: the DAG does not exist, or `conf` does not match its params
        """
        body = {"dag_run_id": run_id, "logical_date": logical_date.isoformat(), "conf": dict(conf)}
        self._request("POST", f"dags/{_quoted(dag_id)}/dagRuns", body=body)

    def runs(self, dag_id: str) -> list[str]:
        """Return the ids of a DAG's runs."""
        return [run["dag_run_id"] for run in self._list(f"dags/{_quoted(dag_id)}/dagRuns", "dag_runs")]

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """Return the state of a run, None if the run does not exist."""
        try:
            return str(self._get(_run_path(dag_id, run_id))["state"])
        except NotFoundError:
            return None

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Return the task instances of a run by the first start of their task; those not started come last."""
        instances = [
            TaskInstance(
                **{name: entry[name] for name in ("task_id", "map_index", "state", "try_number", "duration")},
                start_date=_time(entry["start_date"]),
                end_date=_time(entry["end_date"]),
            )
            for entry in self._list(f"{_run_path(dag_id, run_id)}/taskInstances", "task_instances")
        ]
        first = _earliest((instance.task_id, instance.start_date) for instance in instances)
        never = datetime.max.replace(tzinfo=UTC)
        return sorted(instances, key=lambda i: (first.get(i.task_id, never), i.task_id, i.map_index))

    def xcoms(self, dag_id: str, run_id: str) -> list[XCom]:
        """Return the XComs of a run by the time of their task's first XCom.

        The API lists XComs without values, so each value takes a request.
        """
        entries = self._list(f"{_run_path(dag_id, run_id)}/taskInstances/~/xcomEntries", "xcom_entries")
        first = _earliest((entry["task_id"], _time(entry["timestamp"])) for entry in entries)
        entries.sort(key=lambda e: (first[e["task_id"]], e["task_id"], e["map_index"], e["timestamp"], e["key"]))
        return [XCom(e["task_id"], e["map_index"], e["key"], self._xcom_value(dag_id, run_id, e)) for e in entries]

    def extra_links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str | None]:
        """Return the URLs of a task instance's extra links, by name."""
        answer = self._get(f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}/links")
        return dict(answer if self._is_v1 else answer["extra_links"])

    # Assets

    def asset_events(self) -> list[AssetEvent]:
        """Return all asset events, the oldest first."""
        kind = "dataset" if self._is_v1 else "asset"
        entries = sorted(self._list(f"{kind}s/events", f"{kind}_events"), key=lambda entry: entry["id"])
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
        return [asset["id"] for asset in self._list("assets", "assets")]

    def asset_state(self, asset_id: int) -> dict[str, Any]:
        """Return the state store of an asset, by key (Airflow 3.3)."""
        entries = self._list(f"assets/{asset_id}/state-store", "asset_state_store")
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
        except NotFoundError:
            return "(Airflow's API does not return the value of this key)"  # such as a key with a slash
        except AirflowApiError as error:
            return f"(Airflow's API does not return this value: {error})"
        return unwrap_serialized(answer["value"])

    def _list(self, path: str, key: str) -> list[dict[str, Any]]:
        """Return the entries of all pages."""
        entries: list[dict[str, Any]] = []
        while True:
            page = self._get(path, {"limit": PAGE_SIZE, "offset": len(entries)})
            entries += page[key]
            if not page[key] or len(entries) >= page["total_entries"]:
                return entries

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
        """Send a request, and retry it after an outage. Retrying is safe: a run keeps its id.

        :param timeout: seconds for which it is retried; default is `OUTAGE_TIMEOUT`
        """
        timeout = OUTAGE_TIMEOUT if timeout is None else timeout
        deadline = time.monotonic() + timeout
        is_retry = False
        while True:
            try:
                self._log_in()
                url = f"{self._base}/{path}"
                answer = self._session.request(method, url, params=parameters, json=body, timeout=REQUEST_TIMEOUT)
                if is_retry and answer.status_code == 409:
                    return None  # an earlier attempt succeeded although its response was an error
                if answer.status_code == 401 and not self._is_v1:
                    self._has_token = False  # it has expired
                elif answer.status_code < 500:
                    return _read(method, path, answer)
                problem = f"HTTP {answer.status_code}: {answer.text}"
            except requests.RequestException as error:
                problem = str(error)
            self._check()
            if time.monotonic() > deadline:
                raise AirflowApiError(f"{method} {path} got no answer within {timeout:g} s: {problem}")
            time.sleep(RETRY_INTERVAL)
            is_retry = True

    def _log_in(self) -> None:
        if self._has_token:
            return
        answer = self._session.get(f"{self._origin}/auth/token", timeout=REQUEST_TIMEOUT)
        answer.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        self._has_token = True


def _read(method: str, path: str, answer: requests.Response) -> Any:
    if answer.ok:
        return answer.json()
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.text
    kind = NotFoundError if answer.status_code == 404 else RefusedError
    raise kind(f"{method} {path} was refused with HTTP {answer.status_code}: {detail}")


_quoted = partial(quote, safe="")  # a slash, too


def _run_path(dag_id: str, run_id: str) -> str:
    return f"dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}"


def _earliest(times: Iterable[tuple[str, datetime | None]]) -> dict[str, datetime]:
    """Return the earliest time of each key that has one."""
    return dict(sorted(((key, moment) for key, moment in times if moment), reverse=True))


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def unwrap_serialized(value: Any) -> Any:
    """Return a serialized XCom without Airflow's type information (``__classname__``, ``__data__``)."""
    if isinstance(value, dict):
        if "__classname__" in value and "__data__" in value:
            return unwrap_serialized(value["__data__"])
        return {key: unwrap_serialized(item) for key, item in value.items()}
    return [unwrap_serialized(item) for item in value] if isinstance(value, list) else value
