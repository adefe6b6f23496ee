"""Procedures: each is driven by a scripted service, without sockets and sleeps."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_modelarts.api import operations, procedures
from airflow_modelarts.api.errors import (
    ModelArtsAlreadyExistsError,
    ModelArtsError,
    ModelArtsNotFoundError,
    ModelArtsRequestError,
    ModelArtsTransientError,
)
from airflow_modelarts.api.http import Flow, Request, Response
from airflow_modelarts.api.procedures import Submission
from airflow_modelarts.api.targets import Target
from tests.support.flows import BROKEN, ONCE, REFUSED_CONNECTION, Answer, FlowResult, answer, client, refuse, run_flow

NOT_FOUND = refuse(400, "ModelArts.4700")
INVALID = refuse(400, "ModelArts.0104")
QUOTA = refuse(400, "ModelArts.0118")
BUSY = refuse(400, "ModelArts.4409")
TAKEN = refuse(400, "ModelArts.4709")
CREATE_TASK = operations.create_processor_task(name="mine", template={"id": "t"}, data_source={"type": "OBS"})
CREATE_VERSION = operations.create_processor_task_version(
    "abc", name="mine", template={"id": "t"}, data_source={"type": "OBS"}
)


class Service:
    """Answers by path below ``processor-tasks``; of a list one answer a request, and the last one again and again."""

    def __init__(self, **routes: Any) -> None:
        self.routes = {name: list(found) if isinstance(found, list) else [found] for name, found in routes.items()}
        self.requests: list[str] = []

    def __call__(self, request: Request) -> Answer:
        path = urlsplit(request.url).path.partition("/processor-tasks")[2].strip("/")
        name = {"": "find" if request.method == "GET" else "create", "abc/versions": "versions"}.get(path, path)
        if request.method == "POST" and name == "versions":
            name = "create"
        self.requests.append(name)
        answers = self.routes[name]
        found: Any = answers.pop(0) if len(answers) > 1 else answers[0]
        reply: Answer = found(request) if callable(found) else found
        return reply


def run(procedure: Flow[Any], **routes: Any) -> tuple[FlowResult[Any], list[str]]:
    """Return how a procedure ended, and which requests it sent; its routes are named by path."""
    service = Service(**{name.replace("__", "/"): found for name, found in routes.items()})
    return run_flow(procedure, service, clients=client()), service.requests


def version(version_id: str, status: int = 1, **fields: Any) -> dict[str, Any]:
    return {"task_version_id": version_id, "task_id": "abc", "status": status, **fields}


def versions(*listed: dict[str, Any]) -> Response:
    return answer({"count": len(listed), "versions": list(listed)})


# Stopping


def test_every_active_version_is_stopped() -> None:
    listed = versions(version("v1", 1), version("v2", 2), version("v3", 0))
    stopped, sent = run(
        procedures.stop(Target("abc"), ONCE),
        versions=listed,
        abc__versions__v1__stop=answer(),
        abc__versions__v3__stop=answer(),
    )
    assert stopped.value.stopped == ["v1", "v3"]
    assert (stopped.value.ended, stopped.value.errors) == ({}, [])
    assert sent == ["versions", "abc/versions/v1/stop", "abc/versions/v3/stop"]


def test_one_version_is_stopped_without_listing_any() -> None:
    stopped, sent = run(procedures.stop(Target("abc", "v1"), ONCE), abc__versions__v1__stop=answer())
    assert stopped.value.stopped == ["v1"]
    assert sent == ["abc/versions/v1/stop"]


def test_a_task_without_versions_cannot_be_stopped() -> None:
    stopped, _ = run(procedures.stop(Target("abc"), ONCE), versions=versions())
    assert isinstance(stopped.error, ModelArtsRequestError)
    assert "it has no versions" in str(stopped.error)


@pytest.mark.parametrize("error", [BROKEN, NOT_FOUND, INVALID, BUSY, refuse(403, "ModelArts.0108"), refuse(503)])
@pytest.mark.parametrize(
    ("status", "stopped", "ended"),
    [(4, ["v1"], {}), (2, [], {"v1": 2}), (3, [], {"v1": 3}), (1, [], {}), (None, [], {})],
)
def test_the_status_tells_a_failed_stop(
    error: Answer, status: int | None, stopped: list[str], ended: dict[str, int]
) -> None:
    described = refuse(403) if status is None else answer(version("v1", status))
    stop = procedures.stop(Target("abc", "v1"), ONCE)
    ended_as, _ = run(stop, abc__versions__v1__stop=error, abc__versions__v1=described)
    assert (ended_as.value.stopped, ended_as.value.ended) == (stopped, ended)
    assert len(ended_as.value.errors) == (0 if stopped or ended else 1)


def test_a_version_that_cannot_be_stopped_does_not_keep_others_from_being_stopped() -> None:
    stopped, _ = run(
        procedures.stop(Target("abc"), ONCE),
        versions=versions(version("v1"), version("v2")),
        abc__versions__v1__stop=INVALID,
        abc__versions__v1=answer(version("v1")),
        abc__versions__v2__stop=answer(),
    )
    assert stopped.value.stopped == ["v2"]
    (error,) = stopped.value.errors
    assert isinstance(error, ModelArtsRequestError)
    assert "version 'v1'" in str(error)


def test_versions_that_cannot_be_listed_are_an_error() -> None:
    stopped, _ = run(procedures.stop(Target("abc"), ONCE), versions=NOT_FOUND)
    assert isinstance(stopped.error, ModelArtsNotFoundError)


@pytest.mark.parametrize(
    ("report", "lines"),
    [
        ({}, ["No version of processing task 'abc' is active: there is nothing to stop."]),
        ({"stopped": ["v1"]}, ["Stopped version 'v1' of processing task 'abc'."]),
        ({"ended": {"v1": 3}}, ["Version 'v1' of processing task 'abc' had ended already: it is failed."]),
        ({"errors": [ModelArtsError("no")]}, ["no"]),
    ],
)
def test_a_stop_is_logged(report: dict[str, Any], lines: list[str]) -> None:
    logged: list[str] = []
    log = SimpleNamespace(info=lambda text, *values: logged.append(text % values))
    log.warning = log.info
    procedures.StopReport("abc", **report).log(log)
    assert logged == lines


# Finding


@pytest.mark.parametrize(
    ("status", "expected"), [(0, None), (1, None), (2, 2), (3, 3), (4, 4), (99, None), (None, None)]
)
def test_only_a_terminal_status_is_an_end(status: int | None, expected: int | None) -> None:
    read, _ = run(procedures.terminal_status("abc", "v1", ONCE), abc__versions__v1=answer({"status": status}))
    assert read.value == expected


@pytest.mark.parametrize(("ignored", "newest"), [(set(), "known"), ({"known"}, "new")])
def test_the_newest_version_is_the_last_created_that_is_not_known(ignored: set[str], newest: str) -> None:
    times = {"old": 1, "known": 3, "new": 2, "no time": None}
    listed = versions(*(version(name, create_time=time) for name, time in times.items()))
    found, _ = run(procedures.newest_version("abc", ignored=ignored), versions=listed)
    assert found.value.task_version_id == newest


@pytest.mark.parametrize("listed", [versions(), versions(version("known"))])
def test_there_may_be_no_newest_version(listed: Response) -> None:
    found, _ = run(procedures.newest_version("abc", ignored={"known"}), versions=listed)
    assert found.value is None


def test_the_versions_of_all_pages_count() -> None:
    pages = [[version(f"v{number}", create_time=number) for number in range(first, first + 100)] for first in (0, 100)]
    answers = [answer({"count": 200, "versions": page}) for page in pages]
    found, sent = run(procedures.version_ids("abc"), versions=answers)
    assert found.value == {f"v{number}" for number in range(200)}
    assert sent == ["versions", "versions"]


def test_a_task_is_found_by_its_exact_name() -> None:
    tasks = [{"task_id": "other", "name": "mine-too"}, {"task_id": "abc", "name": "mine"}]
    listings: list[dict[str, list[str]]] = []

    def listing(request: Request) -> Response:
        listings.append(parse_qs(urlsplit(request.url).query))
        return answer({"count": 2, "tasks": tasks})

    found, _ = run(procedures.find_task("mine", "w"), find=listing)
    assert found.value.task_id == "abc"
    assert (listings[0]["task_name"], listings[0]["workspace_id"]) == (["mine"], ["w"])


def test_no_page_is_read_after_the_one_with_the_task() -> None:
    tasks = [{"task_id": f"t{number}", "name": f"mine{number}"} for number in range(99)]
    page = answer({"count": 300, "tasks": [*tasks, {"task_id": "abc", "name": "mine"}]})
    found, sent = run(procedures.find_task("mine", None), find=page)
    assert found.value is not None
    assert sent == ["find"]


def test_an_outage_of_some_minutes_does_not_end_a_lookup() -> None:
    found, _ = run(procedures.find_task("mine", None), find=[*[BROKEN] * 19, answer({"count": 0, "tasks": []})])
    assert found.value is None
    assert sum(found.sleeps) > 180


# Submitting


def created(task_id: str = "abc") -> Response:
    return answer({"task_id": task_id})


def listing(*names: str) -> Response:
    return answer({"count": len(names), "tasks": [{"task_id": "abc", "name": name} for name in names]})


THERE, NOWHERE = listing("mine"), listing()


def submit(*, may_exist: bool = False, errors: list[ModelArtsError] | None = None, **fields: Any) -> Flow[str]:
    on_lookup = [].append if errors is None else errors.append  # type: ignore[misc]  # a list of anything
    submission = Submission(may_exist=may_exist, on_lookup=on_lookup, retries=ONCE, **fields)
    return procedures.create_task(CREATE_TASK, "mine", None, submission)


def test_an_answered_submission_is_not_looked_up() -> None:
    submitted, sent = run(submit(), create=created())
    assert submitted.value == "abc"
    assert sent == ["create"]


@pytest.mark.parametrize("error", [INVALID, QUOTA, BUSY, TAKEN, REFUSED_CONNECTION])
def test_a_submission_that_was_certainly_refused_is_not_looked_up(error: Answer) -> None:
    submitted, sent = run(submit(), create=error)
    assert not submitted.error.outcome_unknown
    assert sent == ["create"]


def test_a_lost_answer_is_looked_up() -> None:
    errors: list[ModelArtsError] = []
    submitted, sent = run(submit(is_ours=True, errors=errors), create=BROKEN, find=THERE)
    assert submitted.value == "abc"
    assert sent == ["create", "find"]
    assert [type(error) for error in errors] == [ModelArtsTransientError]


def test_a_request_still_on_its_way_is_found_by_the_second_lookup() -> None:
    submitted, sent = run(submit(is_ours=True), create=BROKEN, find=[NOWHERE, THERE])
    assert submitted.value == "abc"
    assert sent == ["create", "find", "find"]
    assert submitted.sleeps == [1.0]


@pytest.mark.parametrize("task_id", ["", " ", ".", "..", "abc/versions"])
def test_an_answer_without_a_usable_id_is_a_lost_one(task_id: str) -> None:
    submitted, sent = run(submit(is_ours=True), create=created(task_id), find=THERE)
    assert submitted.value == "abc"
    assert sent == ["create", "find"]


def test_an_answer_without_a_version_id_is_a_lost_one() -> None:
    create = procedures.create_version(CREATE_VERSION, "abc", set(), Submission(may_exist=False, retries=ONCE))
    submitted, sent = run(create, create=answer({"version_id": ""}), versions=versions(version("v1")))
    assert submitted.value == "v1"
    assert sent == ["create", "versions"]


def test_the_next_attempt_comes_when_a_fault_asks_for_it() -> None:
    submitted, sent = run(submit(waits=True), create=refuse(503, retry_after="300"), find=NOWHERE)
    assert submitted.error.outcome_unknown
    assert submitted.error.retry_after == 300
    assert sent == ["create", "find", "find"]


def test_a_lost_request_is_sent_again() -> None:
    submitted, sent = run(submit(), create=[BROKEN, created("new")], find=NOWHERE)
    assert submitted.value == "new"
    assert sent == ["create", "find", "find", "create"]


def test_a_submission_that_stays_unanswered_may_still_appear() -> None:
    submitted, sent = run(submit(), create=BROKEN, find=NOWHERE)
    assert submitted.error.outcome_unknown
    assert sent.count("create") == 6
    assert submitted.sleeps == [1.0, 2.0, 4.0, 8.0, 16.0, 16.0]


def test_a_name_taken_by_a_lost_submission_is_found() -> None:
    submitted, _ = run(submit(is_ours=True), create=[BROKEN, TAKEN], find=[NOWHERE, NOWHERE, THERE])
    assert submitted.value == "abc"


def test_a_name_that_stays_taken_without_being_found_is_an_error() -> None:
    submitted, sent = run(submit(may_exist=True), create=TAKEN, find=NOWHERE)
    assert isinstance(submitted.error, ModelArtsAlreadyExistsError)
    assert submitted.error.outcome_unknown
    assert sent.count("create") == 6


@pytest.mark.parametrize("error", [INVALID, QUOTA])
def test_a_final_refusal_after_an_earlier_try_is_looked_up_for_longest(error: Answer) -> None:
    submitted, sent = run(submit(may_exist=True), create=error, find=NOWHERE)
    assert not submitted.error.outcome_unknown
    assert sent == ["create", "find", "find"]
    assert submitted.sleeps == [16.0]


def test_a_quota_used_up_by_the_earlier_submission_is_no_error() -> None:
    submitted, _ = run(submit(may_exist=True, is_ours=True), create=QUOTA, find=[NOWHERE, THERE])
    assert submitted.value == "abc"


def test_a_busy_service_may_have_accepted_it_earlier() -> None:
    submitted, _ = run(submit(may_exist=True), create=BUSY, find=NOWHERE)
    assert submitted.error.outcome_unknown


@pytest.mark.parametrize("may_exist", [False, True])
def test_a_killed_caller_submits_nothing(*, may_exist: bool) -> None:
    submitted, sent = run(submit(may_exist=may_exist, is_killed=lambda: True))
    assert submitted.error.outcome_unknown is may_exist
    assert sent == []


def test_a_caller_killed_during_a_lookup_submits_nothing_more() -> None:
    killed: Iterator[bool] = iter([False, True])
    submitted, sent = run(submit(is_killed=lambda: next(killed)), create=BROKEN, find=NOWHERE)
    assert "Task was killed; not submitting" in str(submitted.error)
    assert submitted.error.outcome_unknown
    assert sent == ["create", "find", "find"]


def submit_version(known: set[str], **fields: Any) -> Flow[str]:
    submission = Submission(**{"may_exist": False, "retries": ONCE, **fields})
    return procedures.create_version(CREATE_VERSION, "abc", known, submission)


def test_a_version_is_created() -> None:
    submitted, sent = run(submit_version(set()), create=answer({"version_id": "v2"}))
    assert submitted.value == "v2"
    assert sent == ["create"]


def test_a_version_whose_answer_is_lost_is_the_one_that_was_not_known() -> None:
    listed = versions(version("v1", create_time=2), version("v2", create_time=1))
    submitted, sent = run(submit_version({"v1"}), create=BROKEN, versions=listed)
    assert submitted.value == "v2"
    assert sent == ["create", "versions"]


def test_a_version_whose_request_may_be_on_its_way_is_not_sent_twice() -> None:
    submitted, sent = run(submit_version({"v1"}), create=BROKEN, versions=versions(version("v1")))
    assert submitted.error.outcome_unknown
    assert sent == ["create", "versions", "versions"]


def test_a_lookup_that_fails_ends_the_submission_with_its_own_error() -> None:
    submitted, _ = run(submit(), create=BROKEN, find=refuse(403, "ModelArts.0108"))
    assert "ListProcessorTasks" in str(submitted.error)
    assert submitted.error.outcome_unknown, "of the submission"


@pytest.mark.parametrize("refusal", [refuse(401, "APIGW.0301"), INVALID])
@pytest.mark.parametrize("is_first", [False, True])
def test_the_first_submission_leaves_no_doubt_if_it_and_its_lookup_are_refused(
    refusal: Answer, *, is_first: bool
) -> None:
    submission = submit(may_exist=True, is_ours=True, waits=True, is_first=is_first)
    submitted, _ = run(submission, create=refusal, find=refuse(401, "APIGW.0301"))
    assert submitted.error.outcome_unknown is not is_first
    assert ("CreateProcessorTask" in str(submitted.error)) is is_first


@pytest.mark.parametrize(("create", "find"), [(BROKEN, refuse(403)), (INVALID, BROKEN), (BUSY, refuse(403))])
def test_otherwise_a_lookup_that_fails_leaves_a_doubt(create: Answer, find: Answer) -> None:
    submission = submit(may_exist=True, is_ours=True, waits=True, is_first=True)
    submitted, _ = run(submission, create=create, find=find)
    assert submitted.error.outcome_unknown


# Steps


def test_faults_of_the_transport_reach_the_call_that_caused_them() -> None:
    found, _ = run(procedures.version_ids("abc"), versions=[BROKEN, versions(version("v1"))])
    assert found.value == {"v1"}


def test_a_procedure_that_is_closed_closes_the_call_in_progress() -> None:
    procedure = procedures.version_ids("abc")
    next(procedure)
    procedure.send(client())
    procedure.close()
    with pytest.raises(StopIteration):
        next(procedure)
