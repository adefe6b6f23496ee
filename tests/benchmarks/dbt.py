"""As much of dbt Cloud as its trigger asks for: the status of a run, over TLS on this machine."""

from __future__ import annotations

import asyncio
import re
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.certificates import write_certificate

RUNNING, SUCCESS = 3, 10
RUN = re.compile(rb"/runs/(\d+)")


@dataclass
class DbtCloud:
    """Where it listens, the file that vouches for it, how many requests it has answered, and which runs are over."""

    port: int
    certificate: str
    requests: int = 0
    ended: set[int] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                writer.write(self._answer(request))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    def _answer(self, request: bytes) -> bytes:
        found = RUN.search(request)
        number = int(found.group(1)) if found else 0
        body = b'{"data": {"id": %d, "status": %d}}' % (number, SUCCESS if number in self.ended else RUNNING)
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@contextmanager
def dbt_cloud() -> Iterator[DbtCloud]:
    """Serve on a thread of its own, on a free port."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = write_certificate(Path(folder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        service = DbtCloud(0, str(certificate))
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(service.serve, "127.0.0.1", 0, ssl=context, backlog=4096))
        service.port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        yield service
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
