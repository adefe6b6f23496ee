"""The object store beside the emulator: moto's S3 server, behind a check of signatures, with the tasks' files in it.

moto starts with the first request. The files of a completed task are written when a request could see them.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess  # nosec B404 - to run moto
import sys
import tempfile
from collections.abc import Iterable
from html import escape
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import aiohttp
from starlette.types import Receive, Scope, Send
from yarl import URL

from airflow_modelarts.testing.emulator.control.state import EmulatorState
from airflow_modelarts.testing.emulator.http.s3_signature import StoreError, StoreRequest, verify
from airflow_modelarts.testing.emulator.service import accounts
from airflow_modelarts.testing.emulator.service.errors import ServiceError
from airflow_modelarts.testing.emulator.service.outputs import completed_outputs, split_place

_MODULE = "airflow_modelarts.testing.emulator.http.moto_process"
#: Seconds that a stopped process has to end.
STOP_TIMEOUT = 5.0
#: Bytes of the largest body that is accepted, more than the largest part that clients upload by default.
MAX_BODY = 256 * 1024 * 1024
#: Headers about one connection, which is not the other's. ``expect`` was answered by the server already.
_HOP_BY_HOP = frozenset({"connection", "content-length", "expect", "keep-alive", "transfer-encoding"})
#: moto finds the service by these, and accepts any signature.
_UNCHECKED = "AWS4-HMAC-SHA256 Credential=ANY/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"

Headers = list[tuple[str, str]]


class ObjectStore:
    """An ASGI application that speaks the S3 protocol; it uses the state's access keys and clock."""

    def __init__(self, state: EmulatorState) -> None:
        self._state = state
        self._moto: subprocess.Popen[bytes] | None = None
        self._address = ""
        self._resets = -1
        self._written: set[str] = set()
        self._lock: asyncio.Lock | None = None  # of the event loop that serves

    def stop(self) -> None:
        """End moto, and with it what is stored."""
        moto, self._moto, self._lock = self._moto, None, None
        if moto is None:
            return
        moto.kill()  # it has nothing to save
        moto.wait(STOP_TIMEOUT)
        for pipe in (moto.stdin, moto.stdout):
            if pipe:
                pipe.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        # A call is cancelled when the emulator stops; its connection is closed by then.
        with contextlib.suppress(asyncio.CancelledError):
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = await _read(scope, receive)
            verify(request, self._state.accounts, self._state.gateway_time)
            await self._prepare(*_place_of(request))
            status, headers, body = await self._forward(request)
        except StoreError as error:
            status, headers, body = _error_response(error, scope["method"])
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        if scope["method"] != "HEAD":  # whose answer has the length of the object, and no body
            encoded.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    async def check_inputs(self, body: Any) -> None:
        """Refuse a create body that names an empty place in OBS as an input, as the service does.

        :raises ServiceError: ModelArts.4311 if there is no such bucket, ModelArts.4312 if nothing is in the place.
        """
        fields = body if isinstance(body, dict) else {}
        inputs = fields.get("inputs")
        for source in [fields.get("data_source"), *(inputs if isinstance(inputs, list) else [])]:
            place = split_place(source.get("type"), source.get("source")) if isinstance(source, dict) else None
            if place is not None:
                await self._check_place(*place)

    async def _check_place(self, bucket: str, key: str) -> None:
        await self._prepare(bucket, key)
        if key and (await self._call("HEAD", f"/{bucket}/{_quote(key)}"))[0] == 200:
            return
        folder = quote(f"{key}/" if key else "", safe="", errors="surrogateescape")
        status, _, listing = await self._call("GET", f"/{bucket}?list-type=2&max-keys=1&prefix={folder}")
        if status == 404:
            raise ServiceError("ModelArts.4311", f"the OBS bucket {bucket} does not exist")
        if b"<Key>" not in listing:
            raise ServiceError("ModelArts.4312", f"the OBS path obs://{bucket}/{key} does not exist")

    async def _prepare(self, bucket: str, prefix: str) -> None:
        """Start moto if it does not run, and write the files of completed tasks that a request can see."""
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            if self._moto is None or self._moto.poll() is not None:
                await asyncio.to_thread(self._start)
                self._resets = self._state.resets - 1
            if self._resets != self._state.resets:
                self._resets = self._state.resets
                self._written.clear()
                await self._call("POST", "/moto-api/reset")
                await self._call("PUT", f"/{accounts.BUCKET}")
            now = self._state.clock.now()
            for output in completed_outputs(self._state.all_tasks(), now):
                if output.run_id in self._written or not output.touches(bucket, prefix):
                    continue
                self._written.add(output.run_id)
                await self._call("PUT", f"/{output.bucket}")
                for key, content in output.files(now, self._state.settings.result_form).items():
                    await self._call("PUT", f"/{output.bucket}/{_quote(key)}", content)

    def _start(self) -> None:
        command = [sys.executable, "-m", _MODULE]
        environment = {**os.environ, "S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true"}
        pipe = subprocess.PIPE
        with tempfile.TemporaryFile() as errors:
            moto = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=environment)  # noqa: S603  # nosec B603 - fixed arguments
            port = moto.stdout.readline().strip() if moto.stdout else b""
            self._moto = moto
            if not port:
                self.stop()
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise StoreError(503, "ServiceUnavailable", f"moto, the object store's server, did not start: {last}")
        self._address = f"http://127.0.0.1:{int(port)}"

    async def _forward(self, request: StoreRequest) -> tuple[int, Headers, bytes]:
        headers = [(name, value) for name, value in request.headers.items() if name not in _HOP_BY_HOP]
        query = request.query
        if "authorization" not in request.headers:  # the signature of a presigned link has been checked
            query = "&".join(part for part in query.split("&") if not part.lower().startswith("x-amz-"))
            headers.append(("authorization", _UNCHECKED))
        return await self._call(request.method, f"{request.path}?{query}", request.body, headers)

    async def _call(
        self, method: str, target: str, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()
    ) -> tuple[int, Headers, bytes]:
        """Send a request to moto."""
        sent = list(headers) or [("authorization", _UNCHECKED)]
        url = URL(self._address + target, encoded=True)
        skipped = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
        async with (
            aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=skipped, trust_env=False) as session,
            session.request(
                method, url, data=io.BytesIO(body) if body else None, headers=sent, allow_redirects=False
            ) as response,
        ):
            raw = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers)
            dropped = _HOP_BY_HOP - ({"content-length"} if method == "HEAD" else set())
            return response.status, [pair for pair in raw if pair[0].lower() not in dropped], await response.read()


def _quote(key: str) -> str:
    return quote(key, safe="/-_.~", errors="surrogateescape")


async def _read(scope: Scope, receive: Receive) -> StoreRequest:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MAX_BODY:
            raise StoreError(400, "EntityTooLarge", f"the body is longer than {MAX_BODY} bytes")
    headers: dict[str, str] = {}
    for name, value in ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]):
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    return StoreRequest(scope["method"], path, query, headers, b"".join(parts))


def _place_of(request: StoreRequest) -> tuple[str, str]:
    """Return the bucket and the key, or the prefix of the keys, that a request is about."""
    bucket, _, key = request.path[1:].partition("/")
    decoded = unquote_to_bytes(key).decode("utf-8", "surrogateescape")
    return bucket, decoded or dict(request.parameters()).get("prefix", "")


def _error_response(error: StoreError, method: str) -> tuple[int, Headers, bytes]:
    text = f"<Error><Code>{error.code}</Code><Message>{escape(error.message, quote=False)}</Message></Error>"
    body = b"" if method == "HEAD" else f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
    return error.status, [("Content-Type", "application/xml")], body
