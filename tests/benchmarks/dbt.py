"""As much of dbt Cloud as its trigger asks for: a run that goes on for ever, over TLS on this machine."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import write_certificate

BODY = b'{"data": {"id": 1, "status": 3}}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


@dataclass
class DbtCloud:
    """Where it listens, the file that vouches for it, and how many requests it has answered."""

    port: int
    certificate: str
    requests: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


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
