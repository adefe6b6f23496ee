"""The server: where it listens, how it starts and stops, and what it imports."""

import importlib
import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import uvicorn

from airflow_modelarts.testing import emulator as emulator_package
from airflow_modelarts.testing.emulator import EmulatorServer, EmulatorState, create_app
from airflow_modelarts.testing.emulator.service import accounts
from tests.support.calling import Caller
from tests.support.waiting import TIMEOUT


def test_the_server_listens_on_a_free_loopback_port() -> None:
    with EmulatorServer() as first, EmulatorServer() as second:
        assert first.url.startswith("http://127.0.0.1:")
        assert first.port != second.port
        assert requests.get(first.url, timeout=60).status_code == 200
        assert first.faults is first.state.faults


def test_the_server_listens_on_ipv6() -> None:
    with EmulatorServer("::1") as server:
        assert server.url == f"http://[::1]:{server.port}"
        assert Caller(server)("GET").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "modelarts.example.com", ""])
def test_a_remote_address_needs_allow_remote(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        EmulatorServer(host)
    assert EmulatorServer(host, allow_remote=True).host == host


def test_the_airflow_connection_has_the_servers_credentials(emulator: EmulatorServer) -> None:
    connection = json.loads(emulator.airflow_connection())
    assert (connection["conn_type"], connection["host"]) == ("modelarts", emulator.url)
    assert (connection["login"], connection["password"]) == (accounts.ACCESS_KEY, accounts.SECRET_KEY)
    endpoints = {"iam_endpoint": emulator.url, "obs_endpoint": emulator.obs_url}
    assert connection["extra"] == {"project_id": accounts.PROJECT_ID, "region": accounts.REGION, **endpoints}


def test_the_server_sets_the_duration_of_tasks() -> None:
    server = EmulatorServer(task_duration=0)
    assert server.state.status(server.state.add_task().task_id) == 2


def test_the_server_stops_at_once_with_open_held_and_slow_connections(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_modelarts.testing.emulator.http.server.STOP_TIMEOUT", 120.0)
    with EmulatorServer() as server, ThreadPoolExecutor(4) as pool:
        idle = Caller(server)
        idle("GET")
        hold = server.faults.hold(path="/held")
        server.faults.slow(3600, path="/slow")
        server.faults.trickle(0.1, path="/drops")
        calls = [pool.submit(Caller(server), "GET", path) for path in ("/held", "/slow", "/drops")]
        assert hold.wait(60)
        while server.state.log.count() < 4:
            time.sleep(0.005)
        time.sleep(0.05)
        uvicorn_server = server._server
        server.stop()
        assert not uvicorn_server.force_exit
        for call in calls:
            with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
                call.result(60)
        hold.release()
        idle.session.close()
    assert caplog.records == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port)).close()


def test_a_stopped_server_can_be_started_again_with_its_port_and_tasks() -> None:
    server = EmulatorServer()
    server.start()
    task = server.state.add_task()
    server.faults.throttle()
    url = server.url
    server.stop()
    server.stop()
    with server:
        assert server.url == url
        call = Caller(server)
        assert [call("GET", f"/{task.task_id}").status_code for _ in range(2)] == [429, 200]
        call.session.close()


def test_a_state_can_be_served_by_another_server() -> None:
    state = EmulatorState()
    task = state.add_task()
    with EmulatorServer(state=state) as server:
        assert Caller(server)("GET", f"/{task.task_id}").status_code == 200


def test_a_port_in_use_is_an_os_error(emulator: EmulatorServer) -> None:
    with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
        EmulatorServer(port=emulator.port).start()


def test_a_stopped_server_leaves_no_thread() -> None:
    before = set(threading.enumerate())  # those of earlier tests may end meanwhile
    with EmulatorServer():
        assert len(set(threading.enumerate()) - before) == 1
    assert set(threading.enumerate()) <= before


def test_a_server_that_does_not_start_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(*_: Any, sockets: list[socket.socket]) -> None:
        for listener in sockets:
            listener.close()

    monkeypatch.setattr(uvicorn.Server, "serve", serve)
    server = EmulatorServer()
    with pytest.raises(RuntimeError, match="did not start"):
        server.start()


def test_a_server_that_does_not_stop_is_forced_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async def do_nothing(_: uvicorn.Server) -> None:
        return

    monkeypatch.setattr("airflow_modelarts.testing.emulator.http.server.STOP_TIMEOUT", 0.3)
    monkeypatch.setattr("airflow_modelarts.testing.emulator.http.server._end", do_nothing)
    tick = uvicorn.Server.on_tick

    async def exit_when_forced(self: uvicorn.Server, counter: int) -> bool:
        return self.force_exit or await tick(self, counter)

    monkeypatch.setattr(uvicorn.Server, "on_tick", exit_when_forced)
    with EmulatorServer() as server:
        thread = server._thread
    assert thread is not None
    thread.join(60)
    assert not thread.is_alive()


def test_many_simultaneous_connections_are_served(emulator: EmulatorServer) -> None:
    connections = []
    try:
        for _ in range(200):
            connections.append(socket.create_connection((emulator.host, emulator.port), timeout=60))
        for connection in connections:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert all(connection.recv(12) == b"HTTP/1.1 200" for connection in connections)
    finally:
        for connection in connections:
            connection.close()


# Importing


def test_an_import_without_fastapi_names_the_extra_to_install() -> None:
    # In another process: removing a module and importing it again would give other tests a second copy of it.
    code = "import sys; sys.modules['fastapi'] = None; from airflow_modelarts.testing.emulator import create_app"
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert "needs fastapi: in a clone of this package, pip install '.[emulator]'" in finished.stderr


def test_another_missing_module_is_not_reported_as_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(_: str) -> None:
        raise ModuleNotFoundError("no module named 'typo'", name="typo")

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(ModuleNotFoundError, match="typo"):
        emulator_package.EmulatorServer  # noqa: B018  # the access imports it


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Emulador'"):
        emulator_package.Emulador  # noqa: B018  # the access is the test


def test_the_emulator_imports_only_the_api_and_nothing_of_airflow() -> None:
    program = (
        "import sys; from airflow_modelarts.testing.emulator import EmulatorServer, create_app, EmulatorState;"
        "print([n for n in sys.modules if n.split('.')[0] == 'airflow'"
        " or n.startswith('airflow_modelarts.') and n.split('.')[1] not in ('api', 'testing')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_application_works_without_a_server() -> None:
    assert create_app(EmulatorState()).openapi()["info"]["title"] == "ModelArts emulator"
