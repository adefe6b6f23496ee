"""A triggerer process, started as Airflow starts it: standard input is the channel to its supervisor.

It uses Airflow's own end of the channel, runs one of the functions below beside other triggers, and prints the result.
It is a separate process because a channel that mixes up answers hangs.
"""

import asyncio
import json
import os
import socket
import sys
from types import SimpleNamespace
from typing import Any

from airflow.jobs.triggerer_job_runner import TriggerCommsDecoder
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetVariable, PutVariable

from airflow_modelarts.hooks import ModelArtsAsyncHook
from airflow_modelarts.triggers import ProcessorTaskTrigger

MANY = 20


async def main(name: str) -> None:
    own_end = socket.socket(fileno=0)
    reader, writer = await asyncio.open_connection(sock=own_end)
    channel = TriggerCommsDecoder(socket=own_end, async_reader=reader, async_writer=writer)
    if hasattr(channel, "start_reader"):  # since Airflow 3.2
        await channel.start_reader()
    task_runner.SUPERVISOR_COMMS = channel
    others = [asyncio.create_task(read_variables(channel, pause)) for pause in (0.004, 0.02)]
    work = asyncio.create_task(globals()[name](channel))
    await asyncio.wait([work, *others], return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        if other.done():
            other.result()
    print(json.dumps(await work))
    sys.stdout.flush()
    # A call that still runs in a thread would keep the interpreter from exiting.
    os._exit(0)


async def read_variables(channel: Any, pause: float) -> None:
    """Do what other triggers do: send requests to the supervisor and expect the matching answers."""
    number = 0
    while True:
        answer = await channel.asend(GetVariable(key=f"number {number}"))
        assert answer.value == f"value of number {number}", f"got {answer} for number {number}"
        number += 1
        await asyncio.sleep(pause)


async def many_hooks(channel: Any) -> list[int]:
    """Read many connections and list tasks with each."""

    async def list_tasks(number: int) -> int:
        await asyncio.sleep(number // 2 * 0.01)  # some at once, some while the channel is idle
        async with ModelArtsAsyncHook(f"modelarts_{number}") as hook:
            return len([task async for task in hook.list_processor_tasks()])

    return await asyncio.gather(*map(list_tasks, range(MANY)))


async def many_triggers(channel: Any) -> list[Any]:
    """Push an XCom, read it and read the state of a task, many at once."""
    await asyncio.gather(*(trigger()._push("return_value", {"status": 2}) for _ in range(MANY)))
    xcoms = await asyncio.gather(*(trigger()._xcom("wait", "return_value", -1) for _ in range(MANY)))
    states = await asyncio.gather(*(trigger()._is_still_deferred() for _ in range(MANY)))
    return [xcoms, states]


async def cancelled(channel: Any) -> int:
    """Cancel requests while the supervisor answers; return how many ended at once."""
    ended = 0
    for ask in (
        lambda: ModelArtsAsyncHook("modelarts_slow").describe_processor_task("abc"),
        lambda: trigger()._push("return_value", {"status": 2}),
        lambda: trigger()._xcom("wait", "return_value", -1),
        lambda: trigger()._is_still_deferred(),
    ):
        for pause in (0.0, 0.002, 0.02):
            await channel.asend(PutVariable(key="pace", value="slow", description=None))
            asking = asyncio.ensure_future(ask())
            await asyncio.sleep(pause)
            asking.cancel()
            await asyncio.wait([asking])
            ended += asking.cancelled()
            await channel.asend(PutVariable(key="pace", value="usual", description=None))
    return ended


def trigger() -> ProcessorTaskTrigger:
    waiting = ProcessorTaskTrigger("abc")
    waiting.task_instance = SimpleNamespace(dag_id="dag", run_id="run", task_id="wait", map_index=-1, try_number=1)
    return waiting


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
