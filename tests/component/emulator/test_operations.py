"""The twelve operations over HTTP: their answers and errors, and the OpenAPI document."""

import json
from typing import Any

import pytest

from airflow_modelarts.api.models import ProcessorTaskPage, ProcessorTaskVersionPage, parse, parse_sample_results
from airflow_modelarts.testing.emulator import EmulatorState
from airflow_modelarts.testing.emulator.http.responses import HTTP_STATUS
from airflow_modelarts.testing.emulator.service import accounts
from tests.support.calling import CONTRACT, DATA_VALIDATION, FEATURE_ANALYSIS, Caller, contract_example, error_of

NAMES = """
    CreateProcessorTask ListProcessorTasks ListProcessorTaskItems DescribeProcessorTask UpdateProcessorTask
    DeleteProcessorTask CreateProcessorTaskVersion ListProcessorTaskVersions DescribeProcessorTaskVersion
    DeleteProcessorTaskVersion StopProcessorTaskVersion ListProcessorTaskVersionResults"""
OPERATIONS = set(NAMES.split())
CODES = json.loads((CONTRACT / "errors.json").read_text(encoding="utf-8"))["codes"]


def create(call: Caller, body: dict[str, Any]) -> str:
    response = call("POST", body=body)
    assert response.status_code == 200, response.text
    return str(response.json()["task_id"])


def test_the_contracts_examples_are_accepted_and_described_unchanged(call: Caller) -> None:
    for body in (FEATURE_ANALYSIS, DATA_VALIDATION):
        described = call("GET", f"/{create(call, body)}").json()
        assert {name: described[name] for name in body if name != "create_version"} == {
            name: value for name, value in body.items() if name != "create_version"
        }


def test_a_task_is_described_with_the_fields_of_the_contracts_example(call: Caller, state: EmulatorState) -> None:
    example = contract_example("describe-feature-analysis")
    body = {name: example[name] for name in ("name", "data_source", "template", "version_id")}
    task = state.add_task(body=body, status=2, result=example["result"])
    described = call("GET", f"/{task.task_id}").json()
    own = {"task_id", "create_time", "duration_seconds"}
    assert {name: described[name] for name in example.keys() - own} == {
        name: example[name] for name in example.keys() - own
    }
    assert own <= described.keys()


def test_every_operation_works_over_http(call: Caller, state: EmulatorState) -> None:
    task_id = create(call, DATA_VALIDATION)
    state.clock.advance(5)
    (version_id,) = (version.version_id for version in state.find_task(task_id).versions)
    assert call("PUT", f"/{task_id}", {"description": "checked"}).json() == {}
    assert call("GET", f"/{task_id}").json()["description"] == "checked"
    assert call("POST", f"/{task_id}/versions/{version_id}/stop").json() == {}
    again = {name: value for name, value in DATA_VALIDATION.items() if name != "create_version"}
    second_id = call("POST", f"/{task_id}/versions", again).json()["version_id"]
    state.clock.advance(10)
    versions = parse(ProcessorTaskVersionPage, call("GET", f"/{task_id}/versions?order=asc").content).versions or []
    assert [(version.task_version_id, version.status) for version in versions] == [(version_id, 4), (second_id, 2)]
    assert call("GET", f"/{task_id}/versions/{second_id}").json()["origin_sample_count"] == 16
    page = parse_sample_results(
        call("GET", f"/{task_id}/versions/{second_id}/results?result_property=1").content, signed_links=True
    )
    assert (page.count, page.has_more, len(page.results or [])) == (4, False, 4)
    assert call("DELETE", f"/{task_id}/versions/{version_id}").json() == {}
    listed = parse(ProcessorTaskPage, call("GET", "?status=2&limit=100&return_result=false").content)
    assert [task.task_id for task in listed.tasks or []] == [task_id]
    assert call("GET", "/items?limit=2").json()["items"][0]["template_id"] == "sys_data_analyse"
    assert call("DELETE", f"/{task_id}").json() == {}
    assert error_of(call("GET", f"/{task_id}")) == (400, "ModelArts.4700")
    assert set(state.log.counts()) == OPERATIONS


def test_a_list_is_filtered_by_comma_separated_version_ids(call: Caller, state: EmulatorState) -> None:
    for number in range(3):
        state.add_task(f"t{number}", body={"version_id": f"v{number}"})
    listed = call("GET", "?version_id=v0%2Cv2&order=asc").json()
    assert [task["name"] for task in listed["tasks"]] == ["t0", "t2"]
    assert call("GET", "?version_id=").json()["count"] == 3


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=101", "limit=ten", "limit=", "offset=-1", "offset=99999999999999999999999999", "order=up"),
        *("sort_by=status", "status=5", "status=-1", "source_type=FTP", "query_current=perhaps", "return_result=2"),
    ],
)
def test_the_error_for_an_invalid_parameter_names_it(call: Caller, query: str) -> None:
    response = call("GET", f"?{query}")
    assert error_of(response) == (400, "ModelArts.0107")
    assert query.partition("=")[0] in response.json()["error_msg"]


def test_each_list_has_its_own_limits(call: Caller, state: EmulatorState) -> None:
    task = state.add_task(template="sys_data_cleaning", status=2)
    versions = f"/{task.task_id}/versions"
    results = f"{versions}/{task.versions[0].version_id}/results"
    assert call("GET", "/items?limit=1000").status_code == 200
    for path in ("/items?limit=1001", f"{versions}?limit=101", f"{versions}?sort_by=name", f"{results}?limit=101"):
        assert error_of(call("GET", path)) == (400, "ModelArts.0107")
    for wanted in (-2, 4):
        assert error_of(call("GET", f"{results}?result_property={wanted}")) == (400, "ModelArts.0107")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"\xff\xfe", b'{"name": NaN}', b'{"name": 1e999}', b'{"name": ' + b"9" * 5000 + b"}"),
        *(b"[" * 100_000, b'{"a": ' * 70 + b"1" + b"}" * 70, b"null", b'"text"'),
        b'{"name": "\\ud800", "template": {"id": "sys_data_analyse"}, "data_source": {}}',
    ],
)
def test_an_unreadable_body_is_refused_as_a_wrong_parameter(call: Caller, body: bytes) -> None:
    assert error_of(call("POST", body=body)) == (400, "ModelArts.0104")


def test_unchecked_fields_are_stored_and_described_unchanged(call: Caller, state: EmulatorState) -> None:
    odd = {"version_id": [1], "weight": 1e308, "text": "\ud800 \x00 ü", "deep": {"er": [None, True, 10**400]}}
    body = {**FEATURE_ANALYSIS, "data_source": {"type": "DATASET", "source": "x", **odd}}
    task_id = create(call, body)
    assert call("GET", f"/{task_id}").json()["data_source"] == body["data_source"]
    assert call("GET", "?query_current=true").json()["count"] == 1


def test_a_body_that_is_too_large_is_refused(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_modelarts.testing.emulator.http.middleware.MAX_BODY", 1000)
    assert error_of(call("POST", body=b"x" * 100_000)) == (413, "ModelArts.0104")


@pytest.mark.parametrize("path", ["/%00", "/%FF%FE", "/..%00", "/%F0%9F%92%A9", "/~a b", "/%25"])
def test_an_unusual_id_is_not_found(call: Caller, path: str) -> None:
    assert error_of(call("GET", path)) == (400, "ModelArts.4700")


@pytest.mark.parametrize(
    ("shape", "expected"), [("modelarts", "ModelArts.4"), ("http404", "Not Found"), ("http404_empty", "")]
)
def test_settings_change_the_answer_for_no_task(call: Caller, state: EmulatorState, shape: Any, expected: str) -> None:
    state.settings.not_found = shape
    answers = [call("GET", "/gone"), call("DELETE", "/gone"), call("GET", "/gone/versions")]
    answers.append(call("GET", f"/{state.add_task(template='sys_data_cleaning').task_id}/versions/gone"))
    for answer in answers:
        assert answer.status_code == (400 if shape == "modelarts" else 404)
        assert expected in answer.text
        assert "X-Request-Id" in answer.headers


def test_a_result_of_twenty_megabytes_is_sent(call: Caller, state: EmulatorState) -> None:
    task = state.add_task(status=2, result={"rows": ["x" * 1000] * 20_000})
    assert len(call("GET", f"/{task.task_id}").content) > 20_000_000


@pytest.mark.parametrize("row", CODES, ids=[row["code"] for row in CODES])
def test_a_fault_can_answer_every_code_of_the_contract(call: Caller, state: EmulatorState, row: dict[str, Any]) -> None:
    state.faults.refuse(row["code"])
    response = call("GET")
    assert error_of(response) == (row["http"], row["code"])
    assert ("request_id" in response.json()) == row["code"].startswith("APIG")


def test_each_code_has_the_contracts_http_status() -> None:
    assert {row["code"]: row["http"] for row in CODES if row["http"] != 400} == {
        code: status for code, status in HTTP_STATUS.items() if code != "APIGW.0302"
    }


# The OpenAPI page


def test_the_openapi_document_has_the_twelve_operations_and_iam(call: Caller) -> None:
    document = call.send("GET", f"{call.server.url}/openapi.json").json()
    operations = {
        operation["operationId"]: operation
        for path, item in document["paths"].items()
        if not path.startswith("/emulator")
        for operation in item.values()
    }
    of_iam = {name for name, operation in operations.items() if operation["tags"] == ["IAM"]}
    assert operations.keys() - of_iam == OPERATIONS
    assert {"KeystoneCreateUserTokenByPassword", "CreateTemporaryAccessKey", "AssumeAgencyWithOIDC"} <= of_iam
    for name in OPERATIONS:
        assert operations[name]["security"] == [{"token": []}, {"signature": []}]
        assert "422" not in operations[name]["responses"]
        assert operations[name]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    body = operations["CreateProcessorTask"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["$ref"].rsplit("/", 1)[1] in document["components"]["schemas"]
    assert {"token", "signature"} <= document["components"]["securitySchemes"].keys()


def test_every_reference_in_the_openapi_document_resolves(call: Caller) -> None:
    text = call.send("GET", f"{call.server.url}/openapi.json").text
    schemas = json.loads(text)["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert references
    assert references <= schemas.keys()


def test_the_examples_in_the_openapi_document_work(call: Caller) -> None:
    document = call.send("GET", f"{call.server.url}/openapi.json").json()

    def example(path: str, method: str) -> Any:
        return document["paths"][path][method]["requestBody"]["content"]["application/json"]["example"]

    tasks = "/v2/{project_id}/processor-tasks"
    assert call.create_token(example("/v3/auth/tokens", "post")).status_code == 201
    task_id = create(call, example(tasks, "post"))
    assert call("PUT", f"/{task_id}", example(tasks + "/{task_id}", "put")).status_code == 200
    version = example(tasks + "/{task_id}/versions", "post")
    task_id = create(call, version)
    assert call("POST", f"/{task_id}/versions", version).status_code == 200


def test_the_overview_and_the_openapi_page_are_served(call: Caller) -> None:
    call("GET")
    assert "swagger" in call.send("GET", f"{call.server.url}/docs").text
    assert "ListProcessorTasks: 1" in call.send("GET", call.server.url).text
    assert accounts.SECRET_KEY not in call.send("GET", call.server.url).text
