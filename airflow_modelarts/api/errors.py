"""What went wrong, as exceptions a caller can tell apart, and how they are read off an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import ClassVar, NamedTuple

from airflow_modelarts.api.error_bodies import ErrorBody, read_error
from airflow_modelarts.api.http import Response, TransportError
from airflow_modelarts.api.redaction import printable, redact


class ModelArtsError(Exception):
    """
    A call to ModelArts or IAM did not do what it was asked to.

    :param message: what happened and what to change, without secrets.
    :param error_code: for example ``ModelArts.4700`` or ``APIGW.0301``; None when the answer had none.
    :param http_status: None when there was no answer.
    :param request_id: what the service's support asks for; None when the answer had none.
    :param operation: the API operation, for example ``DescribeProcessorTask``.
    :param retry_after: seconds after which the service wants to be asked again; None when it did not say.
    :param outcome_unknown: whether the request may have taken effect all the same.
    """

    #: Whether the same call may well succeed later: it says nothing about the task, the credentials or the request.
    temporary: ClassVar[bool] = False
    #: What IAM can decode into the permission that is missing; None when the answer had none.
    encoded_authorization_message: str | None = None

    def __init__(
        self,
        message: str,
        *,
        error_code: str | None = None,
        http_status: int | None = None,
        request_id: str | None = None,
        operation: str | None = None,
        retry_after: float | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.http_status = http_status
        self.request_id = request_id
        self.operation = operation
        self.retry_after = retry_after
        self.outcome_unknown = outcome_unknown


class ModelArtsAuthenticationError(ModelArtsError):
    """The credentials were refused, or do not permit this."""

    @property
    def asks_for_new_credentials(self) -> bool:
        """Whether the token or temporary key was refused, so that a new one may help; otherwise a right is missing."""
        return self.http_status == 401 or self.error_code in CODES_OF_REFUSED_CREDENTIALS


class ModelArtsConfigurationError(ModelArtsError):
    """A setting of the connection is missing or wrong: endpoint, project, region, certificate."""


class ModelArtsNotFoundError(ModelArtsError):
    """What was asked for does not exist in this project."""


class ModelArtsAlreadyExistsError(ModelArtsError):
    """A processing task of this name exists already."""


class ModelArtsRequestError(ModelArtsError):
    """The request is not one that the service can carry out."""


class ModelArtsThrottledError(ModelArtsError):
    """The service asks for fewer calls."""

    temporary = True


class ModelArtsBusyError(ModelArtsError):
    """The service asks for a later try, for example because too many tasks are running."""

    temporary = True


class ModelArtsTransientError(ModelArtsError):
    """The service, or the way to it, is out of order."""

    temporary = True


#: What follows the value of a setting or an id that still is a template.
NOT_RENDERED = (
    "it is a template that nobody has rendered. Airflow renders the templated fields of operators and sensors, once, "
    "and nothing in connections, in hooks and in the values that a template brings"
)


def is_template(value: object) -> bool:
    """Whether a text is a template of Jinja's, so that it cannot be what was meant."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


_AUTH, _CONFIGURATION, _REQUEST = ModelArtsAuthenticationError, ModelArtsConfigurationError, ModelArtsRequestError
_NOT_FOUND, _EXISTS, _BUSY = ModelArtsNotFoundError, ModelArtsAlreadyExistsError, ModelArtsBusyError
_THROTTLED, _TRANSIENT = ModelArtsThrottledError, ModelArtsTransientError


class Code(NamedTuple):
    """
    What a code of the service means.

    :param kind: the error that it becomes.
    :param advice: what to change, where the advice of the kind does not fit.
    """

    kind: type[ModelArtsError]
    meaning: str
    advice: str | None = None


_RENEW = (
    "Check that the credentials of the connection are still valid; tokens end early when a password or a right changes"
)
_ACCOUNT = "Check the balance and the state of the Huawei Cloud account"
_AGENCY = (
    "Check in the ModelArts console, under permission management, that this user has an agency, and that it may use OBS"
)
_PERMISSION = "Give the user of the connection the permission for this in IAM"
_PROJECT = "Check that project_id, host and region of the connection belong together, and to these credentials"
_OBS = "Check the path, that the bucket is in the region of the project, and that ModelArts may read and write it"
_DATASET = "Check the dataset and its version in the ModelArts console"
_QUOTA = "Delete what is no longer needed, or have the quota raised; waiting does not help"
_STILL_BUSY = "Try again when that has ended"
_ADDRESS = "Check the host of the connection: it must be the ModelArts endpoint of your region"
_TASK_RESULT = "Read the error_msg of the task"

#: The codes this family can meet, by the reference's table of errors. The code decides, since the HTTP status alone
#: does not tell; but an answer with a status of 500 or more is no verdict, whatever its code.
CODES: dict[str, Code] = {
    "APIGW.0101": Code(_CONFIGURATION, "there is no such API at this address"),
    "APIGW.0201": Code(_TRANSIENT, "the backend did not answer the gateway in time"),
    "APIGW.0301": Code(_AUTH, "the gateway refused the credentials: wrong key, wrong signature, or an expired token"),
    "APIG.0301": Code(_AUTH, "the gateway refused the credentials: wrong key, wrong signature, or an expired token"),
    "APIGW.0303": Code(_AUTH, "the credentials were refused, which a clock more than 15 minutes off can cause too"),
    "APIGW.0307": Code(_AUTH, "the token must be renewed", _RENEW),
    "APIGW.0308": Code(_THROTTLED, "the gateway throttles this caller"),
    "APIG.0308": Code(_THROTTLED, "the gateway throttles this caller"),
    "ModelArts.0101": Code(_REQUEST, "an argument is not valid"),
    "ModelArts.0102": Code(_REQUEST, "the workspace does not exist", "Check workspace_id"),
    "ModelArts.0104": Code(_REQUEST, "a parameter is wrong"),
    "ModelArts.0107": Code(_REQUEST, "values of request parameters are not valid"),
    "ModelArts.0108": Code(_AUTH, "this user may not do that", _PERMISSION),
    "ModelArts.0112": Code(_AUTH, "a policy forbids it", _PERMISSION),
    "ModelArts.0116": Code(_REQUEST, "a quota would be exceeded", _QUOTA),
    "ModelArts.0118": Code(_REQUEST, "a quota is used up", _QUOTA),
    "ModelArts.0201": Code(_AUTH, "the token does not exist", _RENEW),
    "ModelArts.0202": Code(_AUTH, "the token has expired", _RENEW),
    "ModelArts.0203": Code(_AUTH, "the token is not valid", _RENEW),
    "ModelArts.0204": Code(_AUTH, "the token is not scoped to a project", _PROJECT),
    "ModelArts.0205": Code(_AUTH, "the request had no Authorization header, which a proxy may have removed"),
    "ModelArts.0206": Code(_AUTH, "the access key is not valid", _RENEW),
    "ModelArts.0207": Code(_AUTH, "the token is not for a project of this region", _PROJECT),
    "ModelArts.0208": Code(_AUTH, "the Authorization header could not be checked"),
    "ModelArts.0210": Code(_CONFIGURATION, "the project id is not valid"),
    "ModelArts.0212": Code(_AUTH, "the token is not scoped to a project", _PROJECT),
    "ModelArts.0420": Code(_AUTH, "the agency cannot be read", _AGENCY),
    "ModelArts.0421": Code(_AUTH, "the agency cannot be created", _AGENCY),
    "ModelArts.0423": Code(_AUTH, "the service statement is not agreed to", "Agree to it in the ModelArts console"),
    "ModelArts.0427": Code(_AUTH, "the authorization of this user cannot be read", _AGENCY),
    "ModelArts.0428": Code(_AUTH, "the agency or the authorization of this user is missing", _AGENCY),
    "ModelArts.0429": Code(_AUTH, "this user has no authorization", _AGENCY),
    "ModelArts.0430": Code(_AUTH, "the rights of the agency cannot be read", _AGENCY),
    "ModelArts.4102": Code(_AUTH, "the service's own agency te_agency is missing", _AGENCY),
    "ModelArts.4104": Code(_REQUEST, "the request body is too large"),
    "ModelArts.4105": Code(_REQUEST, "the request is not the JSON that the service expects"),
    "ModelArts.4106": Code(_AUTH, "the account is restricted", _ACCOUNT),
    "ModelArts.4111": Code(_CONFIGURATION, "the region is not valid"),
    "ModelArts.4116": Code(_AUTH, "the account is in arrears", _ACCOUNT),
    "ModelArts.4117": Code(_AUTH, "the account is not verified", _ACCOUNT),
    "ModelArts.4118": Code(_AUTH, "the account is suspended", _ACCOUNT),
    "ModelArts.4119": Code(_AUTH, "the role of this user is not valid", _PERMISSION),
    "ModelArts.4126": Code(_AUTH, "the account is locked", _ACCOUNT),
    "ModelArts.4127": Code(_AUTH, "the token has expired", _RENEW),
    "ModelArts.4129": Code(_TRANSIENT, "the service has a fault of its own"),
    "ModelArts.4201": Code(_CONFIGURATION, "the address names no service", _ADDRESS),
    "ModelArts.4204": Code(_REQUEST, "the service could not carry out the request"),
    "ModelArts.4205": Code(_REQUEST, "the input or output path must be a folder of the bucket", _OBS),
    "ModelArts.4206": Code(_THROTTLED, "the service gets too many requests"),
    "ModelArts.4310": Code(_AUTH, "OBS refuses ModelArts", _AGENCY),
    "ModelArts.4311": Code(_REQUEST, "the OBS bucket does not exist", _OBS),
    "ModelArts.4312": Code(_REQUEST, "the OBS path does not exist", _OBS),
    "ModelArts.4313": Code(_REQUEST, "the OBS path is not valid", _OBS),
    "ModelArts.4314": Code(_REQUEST, "OBS answered with an error", _OBS),
    "ModelArts.4315": Code(_REQUEST, "the OBS path is not valid", _OBS),
    "ModelArts.4316": Code(_REQUEST, "a bucket alone is not supported as a path", _OBS),
    "ModelArts.4335": Code(_AUTH, "the agency is not valid", _AGENCY),
    "ModelArts.4336": Code(_AUTH, "this user lacks a permission", _PERMISSION),
    "ModelArts.4338": Code(_REQUEST, "a resource that the request names does not exist"),
    "ModelArts.4340": Code(_REQUEST, "the path holds no valid file", _OBS),
    "ModelArts.4343": Code(_BUSY, "a version of the dataset is being published", _STILL_BUSY),
    "ModelArts.4344": Code(_REQUEST, "the dataset is being deleted", _DATASET),
    "ModelArts.4345": Code(_REQUEST, "a file does not exist", _OBS),
    "ModelArts.4347": Code(_REQUEST, "the files could not be listed", _OBS),
    "ModelArts.4349": Code(_BUSY, "the dataset is switching its version", _STILL_BUSY),
    "ModelArts.4350": Code(_REQUEST, "the work_path is too long", "Choose a shorter folder for work_path"),
    "ModelArts.4352": Code(_REQUEST, "the dataset does not exist", _DATASET),
    "ModelArts.4353": Code(_REQUEST, "the dataset version does not exist", _DATASET),
    "ModelArts.4355": Code(_BUSY, "the dataset is being synchronized", _STILL_BUSY),
    "ModelArts.4356": Code(_BUSY, "the dataset has a running import", _STILL_BUSY),
    "ModelArts.4364": Code(_REQUEST, "the folder in work_path exists already", "Choose another folder for work_path"),
    "ModelArts.4365": Code(_REQUEST, "the dataset has no labels", _DATASET),
    "ModelArts.4370": Code(_BUSY, "a dataset can have one new version a minute", "Try again after a minute"),
    "ModelArts.4371": Code(_REQUEST, "the dataset version exists already", "Choose another version_name in work_path"),
    "ModelArts.4372": Code(_REQUEST, "the input has no valid image", _OBS),
    "ModelArts.4374": Code(_REQUEST, "a path is not valid", _OBS),
    "ModelArts.4381": Code(_BUSY, "a version of the dataset is being published", _STILL_BUSY),
    "ModelArts.4391": Code(_REQUEST, "the name of the task is not valid", "Choose another name"),
    "ModelArts.4392": Code(_REQUEST, "the task failed", _TASK_RESULT),
    "ModelArts.4393": Code(_REQUEST, "the task was stopped", _TASK_RESULT),
    "ModelArts.4395": Code(_THROTTLED, "the service gets too many requests for datasets"),
    "ModelArts.4396": Code(_REQUEST, "a parameter is not valid"),
    "ModelArts.4409": Code(_BUSY, "the limit of running tasks is reached", "Try again when some of them have ended"),
    "ModelArts.4419": Code(_REQUEST, "a file of the input is too large", _OBS),
    "ModelArts.4420": Code(_REQUEST, "a sample does not exist", _DATASET),
    "ModelArts.4500": Code(_AUTH, "the account has as many agencies as it may have", _AGENCY),
    "ModelArts.4501": Code(_AUTH, "this user may not create an agency", _AGENCY),
    "ModelArts.4502": Code(_AUTH, "an agency of this name exists already", _AGENCY),
    "ModelArts.4552": Code(_REQUEST, "the workspace cannot be used", "Check workspace_id"),
    "ModelArts.4612": Code(_NOT_FOUND, "no task with this id"),
    "ModelArts.4613": Code(_BUSY, "the task has not finished", "Wait for the task first"),
    "ModelArts.4614": Code(_REQUEST, "the task failed", _TASK_RESULT),
    "ModelArts.4616": Code(_BUSY, "too many unfinished tasks", "Try again when some of them have ended"),
    "ModelArts.4631": Code(_NOT_FOUND, "no task with this id"),
    "ModelArts.4636": Code(_NOT_FOUND, "no task with this id"),
    "ModelArts.4700": Code(_NOT_FOUND, "no task with this id"),
    "ModelArts.4701": Code(
        _REQUEST, "feature analysis needs an image classification or object detection dataset version", _DATASET
    ),
    "ModelArts.4702": Code(_REQUEST, "feature analysis needs a dataset version in the Default format", _DATASET),
    "ModelArts.4703": Code(_REQUEST, "feature analysis needs labeled samples in the dataset version", _DATASET),
    "ModelArts.4704": Code(_BUSY, "a dataset version is being published", _STILL_BUSY),
    "ModelArts.4705": Code(_REQUEST, "a file of the input is too large", _OBS),
    "ModelArts.4706": Code(_REQUEST, "the dataset version is not in the normal state", _DATASET),
    "ModelArts.4707": Code(_REQUEST, "a file cannot be read from OBS", _OBS),
    "ModelArts.4709": Code(_EXISTS, "a processing task of this name exists already"),
    "ModelArts.4714": Code(_REQUEST, "the dataset has as many versions as it may have", _QUOTA),
    "ModelArts.4715": Code(_REQUEST, "the stored analysis result is incorrect", "Run the feature analysis again"),
    "ModelArts.4750": Code(_REQUEST, "a file cannot be read from OBS", _OBS),
    "ModelArts.4803": Code(_REQUEST, "the dataset has unfinished label tasks", "Finish or delete its label tasks"),
    "ModelArts.4821": Code(_BUSY, "the task is being published", _STILL_BUSY),
    "ModelArts.4824": Code(_REQUEST, "the dataset version is not in the normal state", _DATASET),
    "ModelArts.4825": Code(_REQUEST, "the dataset version is empty", _DATASET),
    "ModelArts.4826": Code(
        _REQUEST, "the bucket is encrypted with KMS, which is not supported", "Choose a bucket without KMS encryption"
    ),
    "ModelArts.4827": Code(_REQUEST, "the dataset version could not be deleted", _DATASET),
    "ModelArts.4828": Code(_REQUEST, "the version could not be deleted"),
    "ModelArts.4850": Code(
        _BUSY, "the task is initializing, and the operation is forbidden until it is not", "Try again when it runs"
    ),
    "ModelArts.4851": Code(_NOT_FOUND, "no version with this id", "Check the id of the version, and that of its task"),
    "ModelArts.4853": Code(_REQUEST, "the quota of data processing tasks is used up", _QUOTA),
    "ModelArts.4854": Code(_REQUEST, "the quota of versions of data processing tasks is used up", _QUOTA),
    "ModelArts.4870": Code(_TRANSIENT, "the database of the service has a fault"),
    "ModelArts.4905": Code(_AUTH, "the Authorization header could not be checked"),
    "ModelArts.4992": Code(_BUSY, "the computing resources are sold out", "Try again when some are free"),
    "ModelArts.4999": Code(_TRANSIENT, "the service has a fault of its own"),
}

#: Codes that mean something else with another HTTP status.
_WITH_STATUS: dict[tuple[str, int], Code] = {
    ("ModelArts.0204", 401): Code(_AUTH, "the token cannot be read", _RENEW),
    ("ModelArts.0206", 401): Code(_AUTH, "the Authorization header is malformed, which a proxy may have changed"),
    ("ModelArts.0210", 403): Code(_CONFIGURATION, "the credentials are for another project than project_id", _PROJECT),
    ("ModelArts.0428", 400): Code(_AUTH, "the agency cannot be changed", _AGENCY),
    ("ModelArts.4201", 401): Code(_AUTH, "the token is not valid", _RENEW),
    ("ModelArts.4204", 404): Code(_CONFIGURATION, "there is no such API at this address", _ADDRESS),
    ("ModelArts.4205", 408): Code(_TRANSIENT, "the service did not answer in time"),
    ("ModelArts.4901", 404): Code(_CONFIGURATION, "there is no such API at this address", _ADDRESS),
}

#: A token or temporary key was refused with one of these, whatever the HTTP status says: a new one may be accepted.
CODES_OF_REFUSED_CREDENTIALS = frozenset(
    {
        *("APIGW.0301", "APIG.0301", "APIGW.0307"),
        *("ModelArts.0201", "ModelArts.0202", "ModelArts.0203", "ModelArts.0206", "ModelArts.4127"),
    }
)

# Characters of an encoded_authorization_message; IAM decodes it whole or not at all.
_LONGEST_ENCODED_MESSAGE = 8192
# Bytes of a body in which an error is looked for though the answer was a success.
_LONGEST_ERROR = 20_000

#: What a user changes, by the kind of error.
ADVICE: dict[type[ModelArtsError], str] = {
    _AUTH: "Check the credentials of the connection (login, password, and the auth extra), that they are valid for "
    "this project, and that this machine's clock is right",
    _CONFIGURATION: "Check the connection: host must be the ModelArts endpoint of your region, and project_id the "
    "32-digit project ID of that region",
    _NOT_FOUND: "Check the id, and that it belongs to the connection's project_id and host",
    _EXISTS: "Choose another name, or wait for the task that has it",
    _BUSY: "Try again later",
    _THROTTLED: "Make fewer calls at a time",
    _TRANSIENT: "Try again later",
    _REQUEST: "Change the request",
}


def from_response(
    response: Response, *, operation: str, target: str, secrets: Sequence[str], now: float
) -> ModelArtsError:
    """
    Read the error off a failed answer: by its code first, by its HTTP status second.

    :param operation: the API operation's name.
    :param target: what the operation was about, for example ``processing task 'abc'``; for the message.
    :param secrets: texts that must not appear in the message.
    :param now: seconds since the epoch, to notice a clock that is off and to read a ``Retry-After`` date.
    """
    body = read_error(response)
    known = _meaning(body.code, response.status)
    kind = known.kind if known else _kind_by_status(response)
    code, said, request_id = (text and redact(text, secrets) for text in (body.code, body.text, body.request_id))
    facts = ", ".join(filter(None, [code, f"HTTP {response.status}", request_id and f"request {request_id}"]))
    what = known.meaning if known else f"the service answered {_describe_status(response.status)}"
    quoted = f' The service said: "{said}".' if said else ""
    advice = _advice(kind, known and known.advice, response, operation, now)
    message = f"{operation} of {target} failed: {what} ({facts}).{quoted} {advice}."
    encoded = None
    if body.encoded_authorization_message:
        encoded = redact(body.encoded_authorization_message, secrets, longest=_LONGEST_ENCODED_MESSAGE)
        message += f" IAM can decode this encoded_authorization_message into what is missing: {encoded}"
    error = kind(
        printable(message),
        error_code=code,
        http_status=response.status,
        request_id=request_id,
        operation=operation,
        retry_after=retry_after(response, now),
        outcome_unknown=kind is ModelArtsTransientError,
    )
    if encoded:
        error.encoded_authorization_message = encoded
    return error


def _meaning(code: str | None, status: int) -> Code | None:
    """Return what a code means; nothing in an answer with a status of 500 or more, where the status alone decides."""
    if code is None or status >= 500:
        return None
    return _WITH_STATUS.get((code, status)) or CODES.get(code)


def from_transport(
    error: TransportError, *, operation: str, target: str, address: str, unresolved: str = ""
) -> ModelArtsError:
    """
    Say what it means that no answer came from ``address``, a URL's scheme and host.

    :param unresolved: said first where the host name does not exist: what the user wrote, and the way out.
    """
    about = f"{operation} of {target} failed: "
    if error.kind == "name":
        kind: type[ModelArtsError] = ModelArtsConfigurationError
        about = f"{unresolved}. {about}" if unresolved else about
        text = f"{address} cannot be reached, because its host name does not exist ({error.reason})."
        text = text if unresolved else f"{text} {ADVICE[kind]}."
    elif error.kind == "proxy":
        kind = ModelArtsConfigurationError
        text = (
            f"the host name of the proxy that HTTPS_PROXY or ALL_PROXY in the environment name for {address} does not "
            f"exist ({error.reason}). Check that variable, or exempt the host by NO_PROXY."
        )
    elif error.kind == "tls":
        kind = ModelArtsConfigurationError
        if address.startswith("https:"):
            text = (
                f"{address} does not speak TLS ({error.reason}): if that port is one for plain http, give the port for "
                "https, or write http:// before the host, which is allowed to this machine alone."
            )
        else:
            text = f"{address} speaks TLS, not plain http ({error.reason}): write https:// before the host."
    elif error.kind == "certificate":
        kind = ModelArtsConfigurationError
        advice = _about_certificate(error.reason)
        text = f"the certificate of {address} could not be verified ({error.reason}). {advice}."
    elif error.kind == "too_large":
        kind = ModelArtsRequestError
        text = f"{address} sent more than this client takes ({error.reason}). Ask for less at once, if it can be."
    else:
        kind = ModelArtsTransientError
        text = f"no answer from {address} ({error.reason}). {ADVICE[kind]}; if it lasts, check the connection's host."
        if error.kind == "broken" and address.startswith("http:"):
            text = text.removesuffix(".") + ", and whether its port wants https://."
    return kind(printable(about + text), operation=operation, outcome_unknown=error.sent)


def wants_tls(response: Response) -> bool:
    """Whether a server says that it was spoken to in plain http, as nginx, Apache and those written in Go do."""
    said = response.body[:2000].lower()
    return (b"http request" in said and b"https" in said) or b"plain http to an ssl" in said


def _about_certificate(reason: str) -> str:
    said = reason.lower()
    if "expired" in said or "not yet valid" in said:
        return "Have the server's certificate renewed, or set this machine's clock if that is wrong"
    if "mismatch" in said or "not valid for" in said or "doesn't match" in said:
        return "Check the host of the connection: the certificate is of another one"
    return "Set the verify extra of the connection to the CA file that signed it"


class OtherObjectError(ValueError):
    """A successful answer is about another task or version than was asked for."""


def unreadable(
    response: Response, *, operation: str, target: str, secrets: Sequence[str] = (), reason: Exception | None = None
) -> ModelArtsTransientError:
    """
    Say that an answer was not what it claimed to be; its text is not quoted, since nobody knows what it holds.

    An error that came as a success is told all the same.

    :param reason: why it could not be read.
    """
    body = read_error(response) if len(response.body) < _LONGEST_ERROR else ErrorBody()
    code = body.code if body.code and re.fullmatch(r"[A-Za-z]{2,20}\.[0-9]{4}", body.code) else None
    told = f' It holds the error {code}: "{redact(body.text, secrets)}".' if code else ""
    content_type = redact(response.headers.get("content-type") or "no content type", secrets)
    what = "is about another one" if isinstance(reason, OtherObjectError) else "is not the JSON of this operation"
    return ModelArtsTransientError(
        f"{printable(f'{operation} of {target}')} got an answer that {what} "
        f"(HTTP {response.status}, {content_type}, "
        f"{len(response.body)} bytes).{told} {ADVICE[ModelArtsTransientError]}; if it lasts, check the connection's "
        "host.",
        error_code=code,
        http_status=response.status,
        operation=operation,
        outcome_unknown=True,
    )


def retry_after(response: Response, now: float) -> float | None:
    """Read ``Retry-After``, in seconds or as a date; None when it is absent or says nothing sensible."""
    value = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        return max(0.0, _timestamp(value) - now)
    except ValueError:
        return None


def _kind_by_status(response: Response) -> type[ModelArtsError]:
    status = response.status
    by_status: dict[int, type[ModelArtsError]] = {
        401: ModelArtsAuthenticationError,
        403: ModelArtsAuthenticationError,
        404: ModelArtsNotFoundError,
        408: ModelArtsTransientError,
        425: ModelArtsTransientError,
        429: ModelArtsThrottledError,
    }
    if status == 404 and _is_html(response):
        return ModelArtsConfigurationError  # that was not the API, so nothing is known of the task
    if status == 413 and ("retry-after" in response.headers or b'"overLimit"' in response.body[:200]):
        return ModelArtsThrottledError  # as OpenStack says it
    if _is_head_too_large(response):
        return ModelArtsConfigurationError
    if status in by_status:
        return by_status[status]
    if 300 <= status < 400:
        return ModelArtsConfigurationError
    return ModelArtsRequestError if 400 <= status < 500 else ModelArtsTransientError  # 1xx and above 599 too


def _describe_status(status: int) -> str:
    if 300 <= status < 400:
        return "with a redirect, which a signed request must not follow"
    return {401: "'unauthorized'", 403: "'forbidden'", 404: "'not found'", 429: "'too many requests'"}.get(
        status, "with an error"
    )


def _advice(kind: type[ModelArtsError], of_code: str | None, response: Response, operation: str, now: float) -> str:
    if kind is ModelArtsAuthenticationError:
        offset = _clock_offset(response, now)
        if abs(offset) > 15 * 60:
            return (
                f"This machine's clock is {abs(offset) / 60:.0f} minutes {'behind' if offset > 0 else 'ahead'}: set it"
            )
    if of_code:
        return of_code
    if _is_head_too_large(response):
        return "An IAM token can be too large for a gateway: give this user fewer roles, or choose auth 'access_key'"
    if kind is ModelArtsConfigurationError and _is_html(response):
        return f"This was a web page, not the API. {ADVICE[kind]}"
    if kind is ModelArtsThrottledError:
        return f"{ADVICE[kind]}: {_fewer_calls(operation)}"
    return ADVICE[kind]


def _fewer_calls(operation: str) -> str:
    if operation.startswith("Create"):
        return "an Airflow pool limits how many tasks create at once, and retries let this one try again"
    if operation.startswith(("Describe", "List")):
        return "a longer poke_interval or deferrable=True makes waits ask less often"
    return "an Airflow pool limits how many tasks call at once"


def _is_head_too_large(response: Response) -> bool:
    """Whether a gateway takes no head as large as the request's; nginx says so with HTTP 400 and a web page."""
    return response.status == 431 or (
        response.status == 400 and b"request header or cookie too large" in response.body[:2000].lower()
    )


def _is_html(response: Response) -> bool:
    return "html" in response.headers.get("content-type", "").lower()


def _clock_offset(response: Response, now: float) -> float:
    """Return by how many seconds the service's clock is ahead of ours; 0 when it does not tell."""
    try:
        return _timestamp(response.headers.get("date", "")) - now
    except ValueError:
        return 0.0


def _timestamp(http_date: str) -> float:
    """
    Read an HTTP date.

    :raises ValueError: it is none.
    """
    try:
        parsed = parsedate_to_datetime(http_date)
    except (TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"not a date: {http_date!r}") from error
    return parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp()
