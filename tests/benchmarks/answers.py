"""As much of a service as the kinds of wait need that ask one by one, on a thread of its own.

It is so cheap that it is they who are measured. It speaks TLS where a client speaks nothing else.
"""

import asyncio
import json
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.certificates import write_certificate

EXAMPLE = Path(__file__).parents[1] / "data" / "contract" / "examples" / "describe-feature-analysis.json"
TASK = json.loads(EXAMPLE.read_text())
#: The request that created such a task, with a name as pipelines give it.
EXAMPLE_BODY = {
    **{name: TASK[name] for name in ("data_source", "template", "version_id")},
    "name": "street-signs-feature-analysis-20261126-1f0c4a7e",
}
#: By kind, the answer while the wait goes on, and the one that ends it: HTTP status and body.
BODIES: dict[str, tuple[tuple[int, dict[str, Any]], tuple[int, dict[str, Any]]]] = {
    "http": ((404, {"error_code": "ModelArts.4700", "error_msg": "Not found."}), (200, {**TASK, "status": 2})),
    "dbt Cloud": ((200, {"data": {"id": 1, "status": 3}}), (200, {"data": {"id": 1, "status": 10}})),
    "aiohttp": ((200, {**TASK, "status": 1}), (200, {**TASK, "status": 2})),
}


def _answer(status: int, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


@dataclass
class Answers:
    """A service that knows its tasks by the last part of the path.

    :param active: what it answers while a task goes on.
    :param over: what it answers once the task has ended.
    :param certificate: the file that vouches for it.
    """

    active: bytes
    over: bytes
    certificate: str
    port: int = 0
    requests: int = 0
    ended: set[str] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                path = request.split(b" ", 2)[1].partition(b"?")[0]
                task_id = path.rstrip(b"/").rpartition(b"/")[2].decode()
                writer.write(self.over if task_id in self.ended else self.active)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


@contextmanager
def answers(kind: str) -> Iterator[Answers]:
    """Serve a kind on a free port."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = write_certificate(Path(folder))
        context = None
        if kind == "dbt Cloud":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
        active, over = BODIES[kind]
        service = Answers(_answer(*active), _answer(*over), str(certificate))
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(service.serve, "127.0.0.1", 0, ssl=context, backlog=4096))
        service.port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        yield service
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
