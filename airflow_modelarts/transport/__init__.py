"""The two drivers that carry out flows: requests and ``time.sleep`` on a worker, aiohttp and asyncio in a triggerer.

A driver sends bytes and sleeps. What both decide alike is in modules of its own: ``exchange`` (settings, what goes back
into a flow, headers, limits and the proxy) and ``faults`` (what an exception of a library means).
"""

from airflow_modelarts.transport.aiohttp_driver import AsyncDriver
from airflow_modelarts.transport.exchange import Settings
from airflow_modelarts.transport.requests_driver import Driver

__all__ = ["AsyncDriver", "Driver", "Settings"]
