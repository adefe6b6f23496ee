"""Temporary keys that expire while fifty deferred waits share a watcher: no wait fails, and one request renews each."""

from __future__ import annotations

import asyncio

import pytest

from airflow_modelarts.testing.emulator.service import trust
from tests.support.triggers import events, trigger
from tests.support.virtual import run
from tests.support.worker_credentials import AGENCY, OTHER, SDK, Worker, set_up

#: By kind of credentials, the operation that issues its keys.
ISSUERS = {
    "agency": "GetSecurityKey",
    "oidc": "AssumeAgencyWithOIDC",
    "older oidc": "CreateTemporaryAccessKey",
    "pod_identity": "GetPodIdentityCredentials",
    "assume_agency": "CreateTemporaryAccessKey",
    "default": "GetPodIdentityCredentials",
}
WAITS = 50
#: Requests for the third key that are answered with HTTP 503.
OUTAGE = 3
#: Seconds; the gateway's clock advances by more than that, and by less than its tolerance for signatures.
LIFETIME, ADVANCE = 420.0, 440.0


def prepare(worker: Worker, kind: str) -> str:
    """Connect with a kind of credentials, and return the project of the connection."""
    set_up(worker, "pod_identity" if kind == "default" else kind)
    extra = {}
    if kind == "default":
        (worker.home / ".huaweicloud/credentials").unlink()
        worker.emulator.state.settings.has_server_agency = False
    elif kind == "older oidc":
        worker.setenv(**{f"{SDK}IDP_ID": trust.IDP_ID, f"{SDK}ID_TOKEN_FILE": "{home}/id-token"})
    elif kind == "assume_agency":
        extra = {**AGENCY, **OTHER}
    worker.connect(kind.removeprefix("older "), extra)
    worker.emulator.state.settings.temporary_key_lifetime = LIFETIME
    return extra.get("project_id", "")


@pytest.mark.parametrize("kind", ISSUERS)
def test_a_renewal_in_the_middle_of_fifty_waits_fails_none(worker: Worker, kind: str) -> None:
    project_id, state = prepare(worker, kind), worker.emulator.state
    own = {"project_id": project_id} if project_id else {}
    tasks = [state.add_task(status=1, **own) for _ in range(WAITS)]

    async def wait_for_all() -> list[object]:
        waits = [asyncio.create_task(events(trigger(task.task_id))) for task in tasks]
        await asyncio.sleep(12)
        state.settings.clock_offset = ADVANCE
        await asyncio.sleep(12)
        state.faults.answer(503, operation=ISSUERS[kind], times=OUTAGE)
        state.settings.clock_offset = 2 * ADVANCE
        await asyncio.sleep(60)
        for task in tasks:
            state.finish(task.task_id)
        return [event.payload for (event,) in await asyncio.gather(*waits)]

    assert run(wait_for_all()) == [{"task_id": task.task_id, "status": 2} for task in tasks]
    assert state.log.counts()[ISSUERS[kind]] == 3 + OUTAGE, "each expired key is renewed once"
