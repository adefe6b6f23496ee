"""Arbitrary requests to the emulator's application, without a socket, and what every answer must be."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

from airflow_modelarts.api import signing
from airflow_modelarts.testing.emulator import EmulatorState, create_app
from airflow_modelarts.testing.emulator.control.faults import Hold, Slow
from airflow_modelarts.testing.emulator.http.middleware import TRANSPORT
from airflow_modelarts.testing.emulator.http.openapi import EXAMPLES
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.projects import TaskQuery
from airflow_modelarts.testing.emulator.service.results import ResultQuery
from tests.security.draws import Draws, one_in, pick
from tests.security.flows import PropertyViolationError
from tests.security.mutations import ODD_VALUES, Document, body

#: Requests to one emulator before it is reset, so that a request also meets what earlier ones have changed.
REQUESTS_A_CASE = 5
_FEATURE_ANALYSIS, _VALIDATION = EXAMPLES["CreateProcessorTask"], EXAMPLES["CreateProcessorTaskVersion"]
_PLACES = {"data_source": {"type": "OBS", "source": "obs://bucket/key"}, "work_path": {"type": "OBS", "path": "/b-1/o"}}
_CREATE = tuple(
    Document.of(value)
    for value in (_FEATURE_ANALYSIS, _VALIDATION, {"name": "n", "template": {"id": "sys_data_cleaning"}, **_PLACES})
)
_UPDATE = (Document.of(EXAMPLES["UpdateProcessorTask"]),)
_TOKEN = (Document.of(EXAMPLES["KeystoneCreateUserTokenByPassword"]),)
_NOTHING = (Document(b"", ((0, 0),)),)
#: A fault of each kind.
_FAULTS = tuple(
    Document.of({"kind": kind, "times": 1, **fields})
    for kind, fields in {
        "throttle": {"retry_after": 1, "method": "GET"},
        "limit_rate": {"rate": 0.5, "burst": 2},
        "refuse": {"code": "ModelArts.0101", "message": "m", "status": 400},
        "expired_token": {"operation": "ListProcessorTasks"},
        "answer": {"status": 200, "body": "b", "headers": {"X-A": "b"}, "path": "/v2"},
        "redirect": {"location": "https://elsewhere.example"},
        "malformed": {"form": "html", "skip": 1},
        "hold": {"when": "before", "times": 1},
        "reset": {"when": "after"},
        "cut_off": {"body_bytes": 1},
        "slow": {"seconds": 0.0},
    }.items()
)
_TASKS = "/v2/{project}/processor-tasks"
_TASK, _VERSION = f"{_TASKS}/{{task}}", f"{_TASKS}/{{task}}/versions/{{version}}"
#: Method, path and bodies of every route; the usual ones more often.
ROUTES: tuple[tuple[str, str, tuple[Document, ...]], ...] = (
    *(("POST", _TASKS, _CREATE),) * 4,
    *(("GET", _TASKS, _NOTHING),) * 3,
    ("GET", f"{_TASKS}/items", _NOTHING),
    *(("GET", _TASK, _NOTHING),) * 3,
    *(("PUT", _TASK, _UPDATE),) * 2,
    ("DELETE", _TASK, _NOTHING),
    *(("POST", f"{_TASK}/versions", _CREATE),) * 2,
    *(("GET", place, _NOTHING) for place in (f"{_TASK}/versions", _VERSION, f"{_VERSION}/results", _VERSION)),
    ("DELETE", _VERSION, _NOTHING),
    ("POST", f"{_VERSION}/stop", _NOTHING),
    *(("POST", "/v3/auth/tokens", _TOKEN),) * 2,
    *(("GET", f"/emulator/{place}", _NOTHING) for place in ("settings", "requests", "tasks", "tasks/{task}", "faults")),
    *(("DELETE", f"/emulator/{place}", _NOTHING) for place in ("requests", "rules", "faults", "users/u", "faults/1")),
    *(("POST", f"/emulator/tasks/{{task}}/{verb}", _NOTHING) for verb in ("finish", "fail", "stop")),
    ("POST", "/emulator/reset", _NOTHING),
    ("POST", "/emulator/clock/advance", (Document.of({"seconds": 1.0}),)),
    (
        "PATCH",
        "/emulator/settings",
        (Document.of({"not_found": "http404", "sample_count": 3}), Document.of({"result_form": "absent"})),
    ),
    (
        "PATCH",
        "/emulator/tasks/{task}",
        (Document.of({"status": 2, "result": {"a": 1}, "duration": 1, "error_msg": "m"}), Document.of({"status": 7})),
    ),
    ("POST", "/emulator/tasks", (Document.of({"count": 2, "name": "n", "status": 1, "duration": 1}),)),
    ("POST", "/emulator/rules", (Document.of({"name": "*", "status": 3, "result": [], "sample_count": 3}),)),
    *(("POST", "/emulator/faults", _FAULTS),) * 2,
    ("POST", "/emulator/faults/1/release", _NOTHING),
    ("POST", "/emulator/access-keys", (Document.of({"access_key": "A", "secret_key": "S", "projects": ["p"]}),)),
    ("POST", "/emulator/users", (Document.of({"name": "u", "password": "p"}),)),
    ("POST", "/emulator/agencies", (Document.of({"name": "a", "domain_name": "d", "projects": ["p"]}),)),
    ("POST", "/emulator/id-tokens", (Document.of({"audience": "a", "lifetime": 1}),)),
    ("POST", "/v3.0/OS-AUTH/id-token/tokens", (Document.of({"auth": {"id_token": {"id": "a.b.c"}}}),)),
    (
        "POST",
        "/v3.0/OS-CREDENTIAL/securitytokens",
        (
            Document.of({"auth": {"identity": {"methods": ["token"], "token": {"id": "t", "duration_seconds": 900}}}}),
            Document.of(
                {
                    "auth": {
                        "identity": {
                            "methods": ["assume_role"],
                            "assume_role": {"agency_name": "emulator-agency", "domain_name": "d"},
                        }
                    }
                }
            ),
        ),
    ),
    (
        "POST",
        "/v5/agencies/assume-with-oidc",
        (Document.of({"provider_urn": "p", "agency_urn": "a", "agency_session_name": "s", "id_token": "a.b.c"}),),
    ),
    ("POST", "/pod-identity/credentials", _NOTHING),
    ("GET", "/v3/projects", _NOTHING),
    ("POST", "/emulator/tokens", (Document.of({"project_id": accounts.PROJECT_ID, "lifetime": 1}),)),
    *(("GET", place, _NOTHING) for place in ("/", "/docs", "/openapi.json", "/elsewhere")),
)
_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "X")
_SEGMENTS = (
    *("", ".", "..", "items", "versions", "stop", "results", "%2F", "%2e%2e", "%00", "%ff", "%", "%zz", "a%20b", "é"),
    *("x" * 3000, "'", '"', "<script>", "%ED%A0%80", ";a=b", "{task_id}", "emulator", "docs", "%E6%BC%A2", "*"),
)
_NAMES = (*TaskQuery.model_fields, *ResultQuery.model_fields, "operation", "last")
_VALUES = (
    *("0", "1", "-1", "2", "100", "101", "1000", "2147483647", "2147483648", "1.0", "1e2", "NaN", "%31"),
    *("true", "false", "asc", "desc", "name", "create_time", "OBS", "%00", "%ff", "%ED%A0%80", "a,b,,", "+"),
    *("%", "é", "*", "image/resize,m_lfit", "%E6%BC%A2", "a&b", "a;b", "=", "#", "[]"),
    *("", "9" * 5000, "x" * 3000),
)
_HEADERS = ("authorization", "x-auth-token", "x-sdk-date", "x-project-id", "x-security-token", "x-sdk-content-sha256")
_HEADER_VALUES = (
    *(b"", b" ", b"x", b"\xff\xfe", b"\xed\xa0\x80", "漢".encode(), b"UNSIGNED-PAYLOAD", b"0" * 64, b"a" * 9000),
    *(b"20260131T120000Z", b"99999999T999999Z", b"00010101T000000Z", "\u0662\u0660260131T120000Z".encode()),
    b"SDK-HMAC-SHA256 Access=EMULATORACCESSKEY000, SignedHeaders=host;x-sdk-date, Signature=" + b"0" * 64,
    b"SDK-HMAC-SHA256 Access=EMULATORACCESSKEY000, SignedHeaders=;, Signature=" + b"0" * 64,
    b"SDK-HMAC-SHA256 Access=EMULATORTEMPORARY000, SignedHeaders=\xc3\xa9;host, Signature=" + b"0" * 64,
)
#: Parts of a traceback or of a default error page.
_TRACES = (b"Traceback", b'File "', b"Internal Server Error")
#: Seconds after which an answer counts as missing.
ANSWER_TIMEOUT = 20.0


@dataclass
class Sent:
    """A request and its answer; the status is 0 when a fault has closed the connection."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]] = field(repr=False)
    body: bytes = b""
    status: int = 0
    answer_headers: dict[bytes, bytes] = field(default_factory=dict)
    answer: bytes = b""
    fault: str | None = None

    @property
    def outcome(self) -> str:
        """The status, or the kind of the fault that answered."""
        return f"fault: {self.fault}" if self.fault else str(self.status)


class _Transport:
    """A fake of the connection's transport, which a fault closes."""

    def get_extra_info(self, name: str) -> Any:
        return self

    def setsockopt(self, *_: Any) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


class Emulated:
    """An emulator in this process, which gets one request after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.state = EmulatorState()
        self.app: Callable[..., Coroutine[Any, Any, None]] = create_app(self.state)
        self._add_tasks()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.close()

    def _add_tasks(self) -> None:
        self.task = self.state.add_task(template="sys_data_cleaning", status=2)
        self.state.add_tasks(2, status=2)
        self._token: bytes | None = None

    def some_requests(self, draws: Draws) -> list[Sent]:
        """Reset the emulator, send it arbitrary requests, and check each answer.

        :raises PropertyViolationError: an answer is wrong.
        """
        self.state.reset()
        self._add_tasks()
        case: list[Sent] = []
        for _ in range(REQUESTS_A_CASE):
            case.append(self._make(draws))
            try:
                self.send(case[-1])
                check(case[-1])
            except Exception as error:
                raise PropertyViolationError(f"{type(error).__name__}: {error}\nafter {case}") from error
        return case

    def send(self, sent: Sent) -> None:
        """Send a request as a server passes it to the application."""
        self._shorten_faults()
        self._loop.run_until_complete(asyncio.wait_for(self._serve(sent), ANSWER_TIMEOUT))
        logged = self.state.log.entries()
        sent.fault = logged[-1].fault if logged and not sent.target.startswith(("/emulator", "/docs")) else None

    def _shorten_faults(self) -> None:
        """Release holds and remove delays, so that no case waits."""
        for fault in self.state.faults.all():
            if isinstance(fault, Hold):
                fault.release()
            if isinstance(fault, Slow):
                fault.seconds, fault.bytes_per_second = 0.0, None

    async def _serve(self, sent: Sent) -> None:
        path, _, query = sent.target.partition("?")
        waiting = [{"type": "http.request", "body": sent.body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                sent.status, sent.answer_headers = message["status"], dict(message["headers"])
            else:
                sent.answer += message.get("body", b"")

        scope = {
            **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": ""},
            **{"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 5080), "method": sent.method},
            **{"raw_path": path.encode("utf-8"), "path": unquote(path), "query_string": query.encode("utf-8")},
            **{"headers": sent.headers, TRANSPORT: _Transport()},
        }
        await self.app(scope, receive, send)

    def _make(self, draws: Draws) -> Sent:
        method, path, documents = pick(draws, ROUTES)
        if one_in(draws, 16):
            method = pick(draws, _METHODS)
        target = self._target(draws, path)
        text = body(draws, pick(draws, documents), ODD_VALUES) if documents is not _NOTHING or one_in(draws, 8) else b""
        if b'"count"' in text and "/emulator/tasks" in target and b"00" in text:
            text = b""  # it would add up to a hundred thousand tasks, which takes long
        headers = self._headers(draws, method, target, text)
        return Sent(method, target, headers, text)

    def _target(self, draws: Draws, path: str) -> str:
        project = accounts.PROJECT_ID if draws.below(16) else pick(draws, ("x", accounts.OTHER_PROJECT_ID, *_SEGMENTS))
        versions = self.task.versions
        version = versions[-1].version_id if versions and draws.below(8) else pick(draws, _SEGMENTS)
        task = pick(draws, list(self.state.projects[accounts.PROJECT_ID].tasks) or ["x"]) if one_in(draws, 2) else None
        target = path.format(project=project, version=version, task=task or self.task.task_id)
        if one_in(draws, 12):
            parts = target.split("/")
            parts[draws.below(len(parts))] = pick(draws, _SEGMENTS)
            target = "/".join(parts) or "/"
        query = "&".join(f"{pick(draws, _NAMES)}={pick(draws, _VALUES)}" for _ in range(draws.below(4)))
        return f"{target}?{query}" if query else target

    def _headers(self, draws: Draws, method: str, target: str, text: bytes) -> list[tuple[bytes, bytes]]:
        given = {"Content-Type": "application/json", "X-Project-Id": accounts.PROJECT_ID}
        if draws.below(3):
            given |= {"Host": "127.0.0.1:5080", "X-Auth-Token": self._valid_token()}
        elif target.isascii():
            key = {"access_key": accounts.ACCESS_KEY, "secret_key": accounts.SECRET_KEY}
            url = f"http://127.0.0.1:5080{target}"
            given = signing.sign(**key, method=method, url=url, headers=given, body=text, now=time.time())
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()]
        while one_in(draws, 8):
            odd = (pick(draws, _HEADERS).encode(), pick(draws, _HEADER_VALUES))
            kept = headers if one_in(draws, 4) else [pair for pair in headers if pair[0] != odd[0]]
            headers = [*kept, odd]
        return headers

    def _valid_token(self) -> str:
        token = self._token and self.state.accounts.find_token(self._token.decode())
        if not token:
            token = self.state.accounts.issue_token(accounts.PROJECT_ID, now=time.time(), lifetime=1e6)
            self._token = token.value.encode()
        return token.value


def check(sent: Sent) -> None:
    """Check what holds for every answer.

    :raises PropertyViolationError: the answer is wrong.
    """
    if sent.fault:
        return  # the fault decides the answer
    if not 200 <= sent.status < 500:
        raise PropertyViolationError(f"status {sent.status}\n{sent}")
    if any(trace in sent.answer for trace in _TRACES):
        raise PropertyViolationError(f"a traceback\n{sent}")
    if sent.target == "/" or sent.target.startswith(("/?", "/docs")) or sent.method == "HEAD":
        return
    try:
        answer = json.loads(sent.answer) if sent.answer else {}
    except ValueError:
        raise PropertyViolationError(f"no JSON\n{sent}") from None
    if sent.target.startswith(("/emulator", "/openapi.json", "/docs")):
        return
    if b"x-request-id" not in sent.answer_headers:
        raise PropertyViolationError(f"no request id\n{sent}")
    if sent.status >= 400 and sent.answer and not answer.keys() & {"error_code", "error", "message"}:
        raise PropertyViolationError(f"an error of an unknown shape\n{sent}")
