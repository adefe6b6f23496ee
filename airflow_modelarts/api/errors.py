"""What went wrong, as exceptions a caller can tell apart, and how they are read off an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import ClassVar
from urllib.parse import quote

from airflow_modelarts.api.transport import Response, TransportError


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

#: The codes this family can meet. The code decides, since the HTTP status alone does not tell.
CODES: dict[str, tuple[type[ModelArtsError], str]] = {
    "APIGW.0301": (_AUTH, "the gateway refused the credentials: wrong key, wrong signature, or an expired token"),
    "APIG.0301": (_AUTH, "the gateway refused the credentials: wrong key, wrong signature, or an expired token"),
    "APIGW.0303": (_AUTH, "the credentials were refused, which a clock more than 15 minutes off can cause too"),
    "APIGW.0101": (_CONFIGURATION, "there is no such API at this address"),
    "APIGW.0201": (_TRANSIENT, "the backend did not answer the gateway in time"),
    "APIGW.0308": (_THROTTLED, "the gateway throttles this caller"),
    "APIG.0308": (_THROTTLED, "the gateway throttles this caller"),
    "ModelArts.0204": (_AUTH, "the token is not scoped to a project"),
    "ModelArts.0210": (_CONFIGURATION, "the project id is not valid"),
    "ModelArts.0102": (_REQUEST, "the workspace does not exist"),
    "ModelArts.0101": (_REQUEST, "an argument is not valid"),
    "ModelArts.0104": (_REQUEST, "a parameter is wrong"),
    "ModelArts.0107": (_REQUEST, "values of request parameters are not valid"),
    "ModelArts.0118": (_REQUEST, "a quota is used up"),
    "ModelArts.4353": (_REQUEST, "the dataset version does not exist"),
    "ModelArts.4352": (_REQUEST, "the dataset does not exist"),
    "ModelArts.4311": (_REQUEST, "the OBS bucket does not exist"),
    "ModelArts.4312": (_REQUEST, "the OBS path does not exist"),
    "ModelArts.4350": (_REQUEST, "the work_path is too long"),
    "ModelArts.4409": (_BUSY, "the limit of running tasks is reached"),
    "ModelArts.4612": (_NOT_FOUND, "no task with this id"),
    "ModelArts.4614": (_REQUEST, "the task failed"),
    "ModelArts.4616": (_BUSY, "too many unfinished tasks"),
    "ModelArts.4631": (_NOT_FOUND, "no task with this id"),
    "ModelArts.4636": (_NOT_FOUND, "no task with this id"),
    "ModelArts.4700": (_NOT_FOUND, "no task with this id"),
    "ModelArts.4701": (_REQUEST, "feature analysis needs an image classification or object detection dataset version"),
    "ModelArts.4702": (_REQUEST, "feature analysis needs a dataset version in the Default format"),
    "ModelArts.4703": (_REQUEST, "feature analysis needs labeled samples in the dataset version"),
    "ModelArts.4704": (_BUSY, "a dataset version is being published"),
    "ModelArts.4706": (_REQUEST, "the dataset version is not in the normal state"),
    "ModelArts.4709": (_EXISTS, "a processing task of this name exists already"),
    "ModelArts.4715": (_REQUEST, "the stored analysis result is incorrect"),
    "ModelArts.4850": (_BUSY, "the task is initializing, and the operation is forbidden until it is not"),
}

#: How much of the service's own words an error quotes, in characters.
QUOTED_LENGTH = 500
#: What follows a link's scheme, up to where it must end. No part can match in two ways, so it takes linear time.
LINK = re.compile(r"://[^\s\"'<>]*")
# A signature, or a hash that is as long; a gateway can quote the header that it refused.
_HEXADECIMAL_SIGNATURE = re.compile(r"[0-9A-Fa-f]{64,}")
# What moves a terminal's cursor or begins another line of a log, and halves of characters, which no log can encode.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")

#: What a user changes, by the kind of error.
ADVICE: dict[type[ModelArtsError], str] = {
    _AUTH: "Check the credentials of the connection (login, password, and the auth extra), that they are valid for "
    "this project, and that this machine's clock is right",
    _CONFIGURATION: "Check the connection: host must be the ModelArts endpoint of your region, and project_id the "
    "32-digit project ID of that region",
    _NOT_FOUND: "Check the id, and that it belongs to the connection's project_id and host",
    _EXISTS: "Choose another name, or wait for the task that has it",
    _BUSY: "Try again later",
    _THROTTLED: "Make fewer calls, for example with a longer poke_interval",
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
    code, said, request_id = (text and redact(text, secrets) for text in _read_error(response))
    kind, meaning = CODES.get(code or "", (None, None))
    kind = kind or _kind_by_status(response)
    facts = ", ".join(filter(None, [code, f"HTTP {response.status}", request_id and f"request {request_id}"]))
    what = meaning or f"the service answered {_describe_status(response.status)}"
    quoted = f' The service said: "{said}".' if said else ""
    message = f"{operation} of {target} failed: {what} ({facts}).{quoted} {_advice(kind, response, now)}."
    return kind(
        message,
        error_code=code,
        http_status=response.status,
        request_id=request_id,
        operation=operation,
        retry_after=retry_after(response, now),
        outcome_unknown=kind is ModelArtsTransientError,
    )


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
    return kind(about + text, operation=operation, outcome_unknown=error.sent)


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


def unreadable(
    response: Response, *, operation: str, target: str, secrets: Sequence[str] = ()
) -> ModelArtsTransientError:
    """Say that an answer was not what it claimed to be; its text is not quoted, since nobody knows what it holds."""
    content_type = redact(response.headers.get("content-type") or "no content type", secrets)
    return ModelArtsTransientError(
        f"{operation} of {target} got an answer that is not the JSON of this operation "
        f"(HTTP {response.status}, {content_type}, "
        f"{len(response.body)} bytes). {ADVICE[ModelArtsTransientError]}; if it lasts, check the connection's host.",
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


def redact(text: str, secrets: Sequence[str]) -> str:
    """Take secrets, signatures, the queries of links and what no log can hold out of a service's text; shorten it."""
    spellings = {spelling for secret in filter(None, secrets) for spelling in _spellings(secret)}
    for spelling in sorted(spellings, key=len, reverse=True):  # one can hold another
        text = text.replace(spelling, "***")
    text = LINK.sub(_without_query, _HEXADECIMAL_SIGNATURE.sub("***", text))
    text = _UNPRINTABLE.sub(" ", text)
    return text if len(text) <= QUOTED_LENGTH else text[:QUOTED_LENGTH] + "…"


def _spellings(secret: str) -> Iterator[str]:
    """Return a secret as a service may quote it: as it is, and as JSON, JSON within JSON, and URLs write it."""
    yield from (secret, quote(secret, safe="", errors="replace"), quote(secret, errors="replace"))
    for ensure_ascii in (True, False):
        once = json.dumps(secret, ensure_ascii=ensure_ascii)[1:-1]
        yield from (once, json.dumps(once, ensure_ascii=ensure_ascii)[1:-1])


def _without_query(link: re.Match[str]) -> str:
    address, *query = re.split("[?&;]", link.group(), maxsplit=1)  # some write a query without its mark
    return f"{address}?…" if any(query) else link.group()


def _read_error(response: Response) -> tuple[str | None, str, str | None]:
    """Return the code, the text and the request id of any of the shapes an error comes in."""
    headers = response.headers
    request_id = headers.get("x-request-id") or None
    try:
        body = json.loads(response.body)
    except (ValueError, RecursionError):
        return None, "", request_id
    if not isinstance(body, dict):
        return None, "", request_id
    keystone = body.get("error")
    if isinstance(keystone, dict):
        return None, _text(keystone.get("message")) or _text(keystone.get("title")), request_id
    return (
        _text(body.get("error_code")) or None,
        _text(body.get("error_msg")),
        _text(body.get("request_id")) or request_id,
    )


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


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
    if status in by_status:
        return by_status[status]
    if 300 <= status < 400:
        return ModelArtsConfigurationError
    return ModelArtsRequestError if 400 <= status < 500 else ModelArtsTransientError


def _describe_status(status: int) -> str:
    if 300 <= status < 400:
        return "with a redirect, which a signed request must not follow"
    return {401: "'unauthorized'", 403: "'forbidden'", 404: "'not found'", 429: "'too many requests'"}.get(
        status, "with an error"
    )


def _advice(kind: type[ModelArtsError], response: Response, now: float) -> str:
    if kind is ModelArtsAuthenticationError:
        offset = _clock_offset(response, now)
        if abs(offset) > 15 * 60:
            return (
                f"This machine's clock is {abs(offset) / 60:.0f} minutes {'behind' if offset > 0 else 'ahead'}: set it"
            )
    if kind is ModelArtsNotFoundError and _is_html(response):
        return f"This was a web page, not the API. {ADVICE[ModelArtsConfigurationError]}"
    return ADVICE[kind]


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
