"""Tests of the error codes against the table of the reference: kind, advice, and codes left to the status."""

import pytest

from airflow_modelarts.api import error_mapping
from airflow_modelarts.api.error_codes import CODES
from airflow_modelarts.api.errors import (
    ModelArtsAlreadyExistsError,
    ModelArtsAuthenticationError,
    ModelArtsBusyError,
    ModelArtsConfigurationError,
    ModelArtsError,
    ModelArtsNotFoundError,
    ModelArtsRequestError,
    ModelArtsThrottledError,
    ModelArtsTransientError,
)
from tests.support.flows import CONTRACT, NOON, refuse

TABLE = [
    (int(status), code, meaning)
    for status, code, meaning in (
        line.split("\t") for line in (CONTRACT / "error-table.tsv").read_text(encoding="utf-8").splitlines()
    )
]
#: Rows with HTTP 200 are events of other services, not errors.
FAILURES = [row for row in TABLE if row[0] != 200]

#: The last four digits of ModelArts codes by the kind of error, with any status below 500.
BY_MEANING: dict[type[ModelArtsError], str] = {
    ModelArtsAuthenticationError: """
        0108 0112 0201 0202 0203 0204 0205 0206 0207 0208 0212 0420 0421 0423 0427 0428 0429 0430 4102 4106 4116 4117
        4118 4119 4126 4127 4310 4335 4336 4500 4501 4502 4905""",
    ModelArtsConfigurationError: "0210 4111",
    ModelArtsRequestError: """
        0101 0102 0104 0107 0116 0118 4104 4105 4311 4312 4313 4314 4315 4316 4338 4340 4344 4345 4347 4350 4352 4353
        4364 4365 4371 4372 4374 4391 4392 4393 4396 4419 4420 4552 4701 4702 4703 4705 4706 4707 4714 4715 4750 4803
        4824 4825 4826 4827 4828 4853 4854""",
    ModelArtsNotFoundError: "4612 4631 4636 4700 4851",
    ModelArtsAlreadyExistsError: "4709",
    ModelArtsBusyError: "4343 4349 4355 4356 4370 4381 4409 4613 4616 4704 4821 4850 4992",
    ModelArtsThrottledError: "4206 4395",
    ModelArtsTransientError: "4129 4870 4999",
}
#: Codes with two meanings, by status.
BY_STATUS: dict[tuple[str, int], type[ModelArtsError]] = {
    ("4201", 400): ModelArtsConfigurationError,
    ("4201", 401): ModelArtsAuthenticationError,
    ("4204", 400): ModelArtsRequestError,
    ("4204", 404): ModelArtsConfigurationError,
    ("4205", 400): ModelArtsRequestError,
    ("4205", 408): ModelArtsTransientError,
    ("4901", 404): ModelArtsConfigurationError,
}
#: Left to the HTTP status, since no operation here returns them: notebooks, authorizations and users, datasets
#: that are published, imported or exported, point clouds, labels and label tasks, workforces, DLI, AI Gallery,
#: app authentication, training and other jobs; and codes that mean no more than the status.
LEFT = """
    0113 0209 0422 0424 0425 0426 0431 4122 4128 4200 4202 4203 4301 4337 4342 4346 4348 4351 4357 4358 4359 4361 4362
    4368 4369 4375 4376 4377 4378 4379 4380 4382 4384 4398 4399 4400 4401 4404 4405 4406 4407 4408 4410 4411 4412 4413
    4414 4415 4416 4417 4418 4421 4422 4423 4425 4426 4427 4428 4429 4430 4503 4504 4505 4506 4507 4550 4551 4600 4601
    4602 4603 4604 4605 4607 4609 4615 4617 4618 4619 4620 4621 4622 4623 4624 4625 4626 4627 4628 4629 4630 4632 4633
    4634 4635 4637 4650 4651 4654 4656 4710 4711 4712 4713 4716 4717 4760 4800 4801 4804 4820 4822 4823 4852 4860 4861
    4901 4902 4903 4904 4907 4909 4911 4913 4915 4917 4921 4927 4929 4934 4935 4951 4953 4961 4963 4991"""
LEFT_TO_THE_STATUS = frozenset(LEFT.split())
EXPECTED = {f"ModelArts.{number}": kind for kind, numbers in BY_MEANING.items() for number in numbers.split()}


def read(status: int, code: str) -> ModelArtsError:
    return error_mapping.from_response(
        refuse(status, code, "a reason"), operation="CreateProcessorTask", target="it", secrets=(), now=NOON
    )


def row_id(row: tuple[int, str, str]) -> str:
    return f"{row[1]}-{row[0]}"


@pytest.mark.parametrize("row", FAILURES, ids=row_id)
def test_each_code_of_the_reference_has_the_right_kind(row: tuple[int, str, str]) -> None:
    status, code, meaning = row
    number = code.removeprefix("ModelArts.")
    by_status = {401: ModelArtsAuthenticationError, 403: ModelArtsAuthenticationError}
    if status >= 500:
        expected: type[ModelArtsError] = ModelArtsTransientError
    elif (number, status) in BY_STATUS:
        expected = BY_STATUS[number, status]
    elif code in EXPECTED:
        expected = EXPECTED[code]
    else:
        assert number in LEFT_TO_THE_STATUS, f"{code} is in no list: {meaning}"
        expected = by_status.get(status, ModelArtsRequestError)
    assert type(read(status, code)) is expected, meaning


def test_every_known_code_is_in_the_reference() -> None:
    known = {code for code in CODES if code.startswith("ModelArts.")}
    assert known <= {code for _, code, _ in TABLE}
    only_with_500 = {"ModelArts.4614"}
    in_lists = {*EXPECTED, *(f"ModelArts.{number}" for number, _ in BY_STATUS)}
    assert known == in_lists - {"ModelArts.4901"} | only_with_500
    assert not known & {f"ModelArts.{number}" for number in LEFT_TO_THE_STATUS}


@pytest.mark.parametrize(
    ("status", "code", "advice", "not_that"),
    [
        (400, "ModelArts.4851", "id of the version", "poke_interval"),
        (401, "ModelArts.4826", "without KMS encryption", "credentials"),
        (401, "ModelArts.4750", "may read and write it", "Check the credentials"),
        (403, "ModelArts.4613", "Wait for the task", "credentials"),
        (400, "ModelArts.4370", "after a minute", "Change the request"),
        (400, "ModelArts.0118", "waiting does not help", "Try again"),
        (400, "ModelArts.4853", "waiting does not help", "Try again"),
        (403, "ModelArts.0203", "still valid", "permission"),
        (403, "ModelArts.4310", "agency", "login, password"),
        (403, "ModelArts.4116", "balance", "login, password"),
        (403, "ModelArts.0108", "permission", "login, password"),
        (403, "ModelArts.0210", "belong together", "login, password"),
        (404, "ModelArts.4204", "host of the connection", "Check the id"),
        (400, "ModelArts.0102", "workspace_id", "Change the request"),
        (403, "ModelArts.4419", "path", "credentials"),
    ],
)
def test_a_code_has_its_own_advice(status: int, code: str, advice: str, not_that: str) -> None:
    message = str(read(status, code))
    assert advice in message
    assert not_that not in message


def test_an_exceeded_quota_is_not_temporary() -> None:
    quotas = [code for code, known in CODES.items() if "quota" in known.meaning or "as it may have" in known.meaning]
    assert len(quotas) >= 5
    assert not any(CODES[code].kind.temporary for code in quotas)
