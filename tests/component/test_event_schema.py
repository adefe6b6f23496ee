"""The events are what docs/react.md says."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_modelarts.api.ends import Origin, identify_end
from airflow_modelarts.api.models import ProcessorTask
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.triggers import ProcessorTaskEventTrigger
from tests.support.documents import PAGES, code, table
from tests.support.virtual import run

#: What a type in the table means in Python.
TYPES = {
    "text": str,
    "number": int,
    "object": dict,
    "list": list,
    "true": bool,
    "false": bool,
    "null": type(None),
}


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="asset watchers need Airflow 3")
def test_every_event_has_the_documented_fields_with_the_documented_types(emulator: EmulatorServer) -> None:
    rows = table("docs/react.md", "field")
    types = {code(row[0]): tuple(TYPES[name] for name in row[1].split(" or ")) for row in rows}
    body = {"work_path": {"type": "OBS", "path": "obs://b/out/"}, "description": "d", "version_id": "v"}
    tasks = [
        emulator.state.add_task("analysis", status=1),
        emulator.state.add_task("cleaning", template="sys_data_cleaning", status=1, body=body),
        emulator.state.add_task("failing", template="sys_data_cleaning", status=1),
    ]

    async def read() -> list[Any]:
        async with aclosing(ProcessorTaskEventTrigger(poll_interval=5).run()) as events:  # type: ignore[type-var]
            first = asyncio.ensure_future(anext(events))
            await asyncio.sleep(7)
            for task in tasks[:2]:
                emulator.state.finish(task.task_id)
            emulator.state.fail(tasks[2].task_id, "no luck")
            return [(await first).payload, *[(await anext(events)).payload for _ in tasks[1:]]]

    for payload in run(read()):
        assert payload.keys() == types.keys()
        assert json.loads(json.dumps(payload)) == payload
        wrong = {name: payload[name] for name, kinds in types.items() if type(payload[name]) not in kinds}
        assert wrong == {}


def test_the_extra_of_an_outlet_has_the_documented_fields() -> None:
    (paragraph,) = [text for text in PAGES["docs/react.md"].split("\n\n") if "extra holds" in text]
    end = identify_end(Origin("c", "p", "h"), ProcessorTask(task_id="abc", status=2), datetime.now(UTC))
    assert set(re.findall("`([a-z_]+)`", paragraph)) == set(end)
