"""The settings of the emulated service and its gateway, and the types of fields that the control API reads.

It checks their limits; Python code may exceed them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

#: Seconds in ten years: longer than any test, and every date stays in the range of ``datetime``.
MAX_SECONDS = 10.0 * 365 * 24 * 3600

Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10_000_000)]
Name = Annotated[str, Field(min_length=1, max_length=1024)]

#: The form of a feature analysis's result: the reference declares an object and shows a string.
ResultForm = Literal["object", "array", "json_string", "plain_string", "absent"]
HasMoreMeaning = Literal["more_follow", "all_returned", "absent"]
#: The answer for a missing task: HTTP 400 with a code (the reference's error table), HTTP 404 with another body, or
#: HTTP 404 without a body (the reference's operation page gives only the status).
NotFoundShape = Literal["modelarts", "http404", "http404_empty"]
#: Codes for an invalid or expired token or access key; the reference has several.
TokenErrorCode = Literal["APIGW.0301", "APIGW.0307", "ModelArts.0202", "ModelArts.0203", "ModelArts.4127"]
AccessKeyErrorCode = Literal["APIGW.0301", "ModelArts.0206"]
#: The order of a task list: as it was asked for, by the order in which the tasks were added, or at random.
ListOrder = Literal["sorted", "as_added", "shuffled"]


class StrictFields:
    """Base of the dataclasses that the control API reads: it refuses an unknown field."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass
class Settings(StrictFields):
    """Settings of the service and its gateway.

    :param task_duration: seconds a run takes; it is initialized for the first tenth.
    :param sample_count: samples that a version processes.
    :param result_form: form of a feature analysis's result.
    :param not_found: shape of the answer for a missing task or version.
    :param has_more: meaning of ``has_more`` in sample results: ``more_follow``, ``all_returned`` (the reference's
        definition), or ``absent`` to omit it.
    :param refused_token: code for an invalid or expired token; it sets the HTTP status, 401 or 403.
    :param refused_key: code for an unknown or expired access key.
    :param token_lifetime: seconds that a token of IAM is valid.
    :param running_limit: active tasks in a project; at the limit, creating a task or version fails with ModelArts.4409.
    :param unfinished_limit: the same limit with ModelArts.4616; unreachable by default.
    :param task_quota: tasks in a project; at the quota, creating a task fails with ModelArts.0118.
    :param list_order: order of task lists: ``sorted`` as the caller asks, ``as_added`` in the order in which the tasks
        were added (reversed for ``desc``), or ``shuffled``: the same random order for each page, whatever is asked.
    :param check_inputs: whether an input in OBS is refused when the object store has nothing there: with ModelArts.4311
        if the bucket does not exist, with ModelArts.4312 otherwise. By default every place is taken to exist.
    :param clock_offset: seconds by which the service's clock is ahead: it affects tokens, signatures, ``Date`` and the
        times in answers.
    """

    task_duration: Seconds = 10.0
    sample_count: Count = 20
    result_form: ResultForm = "object"
    not_found: NotFoundShape = "modelarts"
    has_more: HasMoreMeaning = "more_follow"
    refused_token: TokenErrorCode = "APIGW.0301"  # noqa: S105  # nosec B105 - a code
    refused_key: AccessKeyErrorCode = "APIGW.0301"
    token_lifetime: Seconds = 24 * 3600.0
    running_limit: Count = 1_000_000
    unfinished_limit: Count = 1_000_000
    task_quota: Count = 1_000_000
    list_order: ListOrder = "sorted"
    check_inputs: bool = False
    clock_offset: Annotated[float, Field(ge=-MAX_SECONDS, le=MAX_SECONDS, allow_inf_nan=False)] = 0.0
