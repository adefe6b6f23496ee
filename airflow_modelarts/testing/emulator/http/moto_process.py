"""The process of moto's S3 server, as the object store starts it: prints its port, and ends when its input is closed.

It is a process of its own, since moto keeps its buckets in module globals, which emulators in one process would share.
"""

from __future__ import annotations

import logging
import sys


def main() -> None:
    """Serve on a free loopback port until the standard input ends: with the emulator, whatever ends that."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
