"""Makes triggers of deferred waits, and runs them."""

from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_modelarts.triggers import ProcessorTaskTrigger


def trigger(processor_task_id: str = "", **arguments: Any) -> ProcessorTaskTrigger:
    return ProcessorTaskTrigger(processor_task_id, **{"poll_interval": 5, **arguments})


async def events(waiting: ProcessorTaskTrigger) -> list[TriggerEvent]:
    return [event async for event in waiting.run()]
