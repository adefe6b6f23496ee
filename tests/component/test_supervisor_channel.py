"""Airflow's triggerer and its supervisor share one channel: no call of the package may mix up its answers."""

import ast
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import airflow
import pytest

import airflow_modelarts
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service.accounts import ACCESS_KEY, PROJECT_ID, SECRET_KEY

on_airflow_3 = pytest.mark.skipif(airflow.__version__.startswith("2."), reason="Airflow 2 has no supervisor")
TRIGGERER = Path(__file__).parents[1] / "support" / "triggerer.py"
#: Seconds after which a triggerer counts as hanging.
HANG_TIMEOUT = 400


class Supervisor:
    """Answers the requests of a triggerer one after another, as Airflow's supervisor does.

    :param host: the host of every connection that is asked for.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.triggerer_end, self._socket = socket.socketpair()
        self.requests: list[dict[str, Any]] = []
        self._xcoms: dict[str, Any] = {}
        self._pace = 0.0005
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.triggerer_end.close()
        with suppress(OSError):  # already closed
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        import msgspec
        from airflow.sdk.execution_time.comms import _RequestFrame, _ResponseFrame

        decoder = msgspec.msgpack.Decoder(_RequestFrame)
        with self._socket.makefile("rb") as stream, suppress(OSError):
            while length := stream.read(4):
                request = decoder.decode(stream.read(int.from_bytes(length, "big")))
                body = dict(request.body or {})
                self.requests.append(body)
                time.sleep(self._pace)
                self._socket.sendall(_ResponseFrame(id=request.id, body=self._answer(body)).as_bytes())

    def _answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        match request:
            case {"type": "GetConnection", "conn_id": str(conn_id)}:
                found = {"conn_id": conn_id, "conn_type": "modelarts", "host": self.host, "schema": None, "port": None}
                keys = {"login": ACCESS_KEY, "password": SECRET_KEY, "extra": json.dumps({"project_id": PROJECT_ID})}
                return {"type": "ConnectionResult", **found, **keys}
            case {"type": "GetVariable", "key": str(key)}:
                return {"type": "VariableResult", "key": key, "value": f"value of {key}"}
            case {"type": "PutVariable", "key": "pace", "value": str(value)}:
                self._pace = {"slow": 0.01, "usual": 0.0005}[value]
                return None
            case {"type": "SetXCom", "key": str(key), "value": value}:
                self._xcoms[key] = value
                return None
            case {"type": "GetXCom", "key": str(key)}:
                return {"type": "XComResult", "key": key, "value": self._xcoms.get(key)}
            case {"type": "GetTaskStates", "run_ids": [run_id]}:
                return {"type": "TaskStatesResult", "task_states": {run_id: {"wait": "deferred"}}}
            case {"type": "MaskSecret"}:
                return None
        raise AssertionError(f"unexpected request: {request}")


@pytest.fixture
def supervisor(server: EmulatorServer) -> Iterator[Supervisor]:
    server.state.reset()
    with Supervisor(server.url) as running:
        yield running


@pytest.fixture
def triggerer(supervisor: Supervisor) -> Callable[[str], Any]:
    """Run a function of :mod:`tests.support.triggerer` in a process whose standard input is the channel."""

    def run(name: str) -> Any:
        how: dict[str, Any] = {"capture_output": True, "text": True, "check": False, "timeout": HANG_TIMEOUT}
        finished = subprocess.run([sys.executable, str(TRIGGERER), name], stdin=supervisor.triggerer_end, **how)
        assert finished.returncode == 0, finished.stderr
        assert "Got response for unknown request frame" not in finished.stdout + finished.stderr
        return json.loads(finished.stdout.splitlines()[-1])

    return run


@on_airflow_3
def test_many_hooks_read_connections_while_other_triggers_get_their_own_answers(
    supervisor: Supervisor, triggerer: Callable[[str], Any]
) -> None:
    found = triggerer("many_hooks")
    assert set(found) == {0}
    masked = [request["value"] for request in supervisor.requests if request["type"] == "MaskSecret"]
    assert masked.count(SECRET_KEY) >= len(found)


@on_airflow_3
def test_triggers_push_and_read_xcoms_and_states_while_other_triggers_get_their_own_answers(
    supervisor: Supervisor, triggerer: Callable[[str], Any]
) -> None:
    xcoms, states = triggerer("many_triggers")
    assert xcoms == [{"status": 2}] * len(states)
    assert not any(states)  # the triggers know no try number
    assert {"SetXCom", "GetXCom", "GetTaskStates"} <= {request["type"] for request in supervisor.requests}


@on_airflow_3
def test_a_cancelled_request_takes_no_answer_from_other_triggers(triggerer: Callable[[str], Any]) -> None:
    assert triggerer("cancelled") == 12


#: Functions that may run in a bare thread because they do not call Airflow.
ALLOWED_IN_A_THREAD = {"_tls_context", "read_file"}


def test_no_bare_thread_calls_airflow() -> None:
    package = Path(airflow_modelarts.__file__).parent
    threaded: dict[str, list[str]] = {}
    for path in set(package.rglob("*.py")) - set((package / "testing").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in {"to_thread", "run_in_executor", "Thread", "ThreadPoolExecutor", "sync_to_async"}:
                threaded.setdefault(path.name, []).append(ast.unparse(node.args[0]) if node.args else called)
    assert sorted(threaded.pop("airflow_calls.py", [])) == ["Thread", "function"]  # a signal handler, an event loop
    assert {what for found in threaded.values() for what in found} <= ALLOWED_IN_A_THREAD, threaded
