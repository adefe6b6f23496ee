"""Maps failed answers, unreadable answers and transport errors to the exceptions of ``api/errors.py``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow_modelarts.api import errors
from airflow_modelarts.api.error_bodies import ErrorBody, read_error
from airflow_modelarts.api.error_codes import find_code
from airflow_modelarts.api.http import Response, TransportError, read_http_date
from airflow_modelarts.api.redaction import printable, redact

#: Characters of an encoded_authorization_message; IAM decodes it only as a whole.
MAX_ENCODED_MESSAGE = 8192
#: Bytes of a successful answer up to which it may be an error instead.
MAX_ERROR_BYTES = 20_000
#: Seconds by which this machine's clock may differ before the gateway refuses signatures.
MAX_CLOCK_OFFSET = 15 * 60
#: What to check if an outage of ModelArts lasts.
CONNECTION_HOST = "the connection's host"

_KIND_BY_STATUS: dict[int, type[errors.ModelArtsError]] = {
    401: errors.ModelArtsAuthenticationError,
    403: errors.ModelArtsAuthenticationError,
    404: errors.ModelArtsNotFoundError,
    408: errors.ModelArtsTransientError,
    425: errors.ModelArtsTransientError,
    429: errors.ModelArtsThrottledError,
}
_STATUS_NAMES = {401: "'unauthorized'", 403: "'forbidden'", 404: "'not found'", 429: "'too many requests'"}


def from_response(
    response: Response, *, operation: str, target: str, secrets: Sequence[str], now: float
) -> errors.ModelArtsError:
    """Return the error of a failed answer, by its error code or else by its HTTP status.

    :param operation: the API operation's name.
    :param target: the object of the operation, for the message; for example ``processing task 'abc'``.
    :param secrets: texts that must not appear in the message.
    :param now: seconds since the epoch, to detect a wrong clock and to read a ``Retry-After`` date.
    """
    body = read_error(response)
    known = find_code(body.code, response.status)
    kind = known.kind if known else _kind_by_status(response)
    code, text, request_id = (value and redact(value, secrets) for value in (body.code, body.text, body.request_id))
    facts = ", ".join(filter(None, [code, f"HTTP {response.status}", request_id and f"request {request_id}"]))
    what = known.meaning if known else f"the service answered {_describe_status(response.status)}"
    quoted = f' The service said: "{text}".' if text else ""
    advice = _advice(kind, known and known.advice, response, operation, now)
    message = f"{operation} of {target} failed: {what} ({facts}).{quoted} {advice}."
    encoded = None
    if body.encoded_authorization_message:
        encoded = redact(body.encoded_authorization_message, secrets, longest=MAX_ENCODED_MESSAGE)
        message += f" IAM can decode this encoded_authorization_message into what is missing: {encoded}"
    error = kind(
        printable(message),
        error_code=code,
        http_status=response.status,
        request_id=request_id,
        operation=operation,
        retry_after=retry_after(response, now),
        outcome_unknown=kind is errors.ModelArtsTransientError,
    )
    error.encoded_authorization_message = encoded
    return error


def from_transport(
    error: TransportError,
    *,
    operation: str,
    target: str,
    address: str,
    unresolved: str = "",
    suspect: str = CONNECTION_HOST,
) -> errors.ModelArtsError:
    """Map a TransportError to the ModelArtsError that callers see.

    :param address: the URL's scheme and host.
    :param suspect: what to check if an outage lasts.
    :param unresolved: begins the message if the host name does not exist: what the user wrote, and what to change.
    """
    prefix = f"{operation} of {target} failed: "
    kind: type[errors.ModelArtsError] = errors.ModelArtsConfigurationError
    match error.kind:
        case "name":
            text = f"{address} cannot be reached, because its host name does not exist ({error.reason})."
            if unresolved:
                prefix = f"{unresolved}. {prefix}"
            else:
                text = f"{text} {kind.default_advice}."
        case "proxy":
            text = (
                f"the host name of the proxy that HTTPS_PROXY or ALL_PROXY in the environment name for {address} does "
                f"not exist ({error.reason}). Check that variable, or exempt the host by NO_PROXY."
            )
        case "tls" if address.startswith("https:"):
            text = (
                f"{address} does not speak TLS ({error.reason}): if that port is one for plain http, give the port for "
                "https. Or write http:// before the host, which is allowed for this machine alone."
            )
        case "tls":
            text = f"{address} speaks TLS, not plain http ({error.reason}): write https:// before the host."
        case "certificate":
            text = f"the certificate of {address} could not be verified ({error.reason}). "
            text += f"{_certificate_advice(error.reason)}."
        case "too_large":
            kind = errors.ModelArtsRequestError
            text = f"{address} sent more than this client takes ({error.reason}). Request less at once if possible."
        case _:
            kind = errors.ModelArtsTransientError
            text = f"no answer from {address} ({error.reason}). {_advice_for_outage(suspect)}"
            if error.kind == "broken" and address.startswith("http:"):
                text += ", and whether its port requires https://"
            text += "."
    return kind(printable(prefix + text), operation=operation, outcome_unknown=error.sent)


def unreadable(
    response: Response,
    *,
    operation: str,
    target: str,
    secrets: Sequence[str] = (),
    reason: Exception | None = None,
    suspect: str = CONNECTION_HOST,
) -> errors.ModelArtsTransientError:
    """Return the error of a successful answer that cannot be read, without quoting the answer, which may hold secrets.

    It does quote an error of the service that came with the status of a success.

    :param reason: why the answer could not be read.
    """
    body = read_error(response) if len(response.body) < MAX_ERROR_BYTES else ErrorBody()
    code = body.code if body.code and re.fullmatch(r"[A-Za-z]{2,20}\.[0-9]{4}", body.code) else None
    contained = f' It contains the error {code}: "{redact(body.text, secrets)}".' if code else ""
    content_type = redact(response.headers.get("content-type") or "no content type", secrets)
    what = (
        "returned another object than the requested one"
        if isinstance(reason, errors.OtherObjectError)
        else "returned an unexpected body (not this operation's JSON)"
    )
    return errors.ModelArtsTransientError(
        f"{printable(f'{operation} of {target}')} {what}: HTTP {response.status}, {content_type}, "
        f"{len(response.body)} bytes.{contained} {_advice_for_outage(suspect)}.",
        error_code=code,
        http_status=response.status,
        operation=operation,
        outcome_unknown=True,
    )


def wants_tls(response: Response) -> bool:
    """Whether a server reports a plain http request to its https port, as nginx, Apache and Go's servers do."""
    text = response.body[:2000].lower()
    return (b"http request" in text and b"https" in text) or b"plain http to an ssl" in text


def retry_after(response: Response, now: float) -> float | None:
    """Read ``Retry-After``, in seconds or as a date; None if it is absent or not valid."""
    value = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    moment = read_http_date(value)
    return None if moment is None else max(0.0, moment - now)


def project_id_hint(project_id: str) -> str:
    """Return a sentence about a project id of unusual form, to follow an error; "" for a usual or no id."""
    if not project_id or re.fullmatch(r"[0-9a-fA-F]{32}", project_id):
        return ""
    looks_like = "looks like a project's name" if re.search(r"[-_]", project_id) else "does not look like one"
    return (
        f" project_id '{project_id}' {looks_like}: the ID of a project has 32 hex digits, see 'My Credentials' in the "
        "console."
    )


def _kind_by_status(response: Response) -> type[errors.ModelArtsError]:
    status = response.status
    if status == 404 and _is_html(response):
        return errors.ModelArtsConfigurationError  # another server than the API answered, so the task may exist
    if status == 413 and ("retry-after" in response.headers or b'"overLimit"' in response.body[:200]):
        return errors.ModelArtsThrottledError  # OpenStack's form of throttling
    if _is_head_too_large(response) or 300 <= status < 400:
        return errors.ModelArtsConfigurationError
    if status in _KIND_BY_STATUS:
        return _KIND_BY_STATUS[status]
    # 1xx and above 599 too
    return errors.ModelArtsRequestError if 400 <= status < 500 else errors.ModelArtsTransientError


def _describe_status(status: int) -> str:
    if 300 <= status < 400:
        return "with a redirect, which a signed request must not follow"
    return _STATUS_NAMES.get(status, "with an error")


def _advice(
    kind: type[errors.ModelArtsError], advice_of_code: str | None, response: Response, operation: str, now: float
) -> str:
    sent_at = response.served_at
    if kind is errors.ModelArtsAuthenticationError and sent_at is not None:
        offset = sent_at - now
        if abs(offset) > MAX_CLOCK_OFFSET:
            direction = "behind" if offset > 0 else "ahead"
            return f"This machine's clock is {abs(offset) / 60:.0f} minutes {direction}: set it"
    if advice_of_code:
        return advice_of_code
    if _is_head_too_large(response):
        return "An IAM token can be too large for a gateway: give this user fewer roles, or choose auth 'access_key'"
    if kind is errors.ModelArtsConfigurationError and _is_html(response):
        return f"This was a web page, not the API. {kind.default_advice}"
    if kind is errors.ModelArtsThrottledError:
        return f"{kind.default_advice}: {_throttling_advice(operation)}"
    return kind.default_advice


def _throttling_advice(operation: str) -> str:
    if operation.startswith("Create"):
        return "an Airflow pool limits how many tasks create at once, and retries repeat this one later"
    if operation.startswith(("Describe", "List")):
        return "a longer poke_interval or deferrable=True makes waits poll less often"
    return "an Airflow pool limits how many tasks call at once"


def _advice_for_outage(suspect: str) -> str:
    return f"{errors.ModelArtsTransientError.default_advice}; if it lasts, check {suspect}"


def _certificate_advice(reason: str) -> str:
    text = reason.lower()
    if "expired" in text or "not yet valid" in text:
        return "Have the server's certificate renewed, or set this machine's clock if that is wrong"
    if "mismatch" in text or "not valid for" in text or "doesn't match" in text:
        return "Check the host of the connection: the certificate is of another one"
    return "Set the verify extra of the connection to the CA file that signed it"


def _is_head_too_large(response: Response) -> bool:
    """Whether a gateway refused the size of the request's headers; nginx answers HTTP 400 and a web page."""
    return response.status == 431 or (
        response.status == 400 and b"request header or cookie too large" in response.body[:2000].lower()
    )


def _is_html(response: Response) -> bool:
    return "html" in response.headers.get("content-type", "").lower()
