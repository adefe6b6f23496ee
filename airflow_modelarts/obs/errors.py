"""Errors of the object store in words: which bucket, what happened, and which field of the connection to change."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from botocore import exceptions as botocore_errors
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from s3fs.errors import translate_boto_error

from airflow_modelarts.api.redaction import printable
from airflow_modelarts.connection.reading import ObjectStore

#: Codes with which a key is refused; another temporary key may be accepted.
_REFUSED_KEYS = {"InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidSecurity"}
_OTHER_REGION = {
    *("PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed"),
    *("IllegalLocationConstraintException", "301", "307"),
}
#: What s3fs handles: the answer to a HEAD request for a missing object, and requests that it repeats.
_OF_S3FS = {"404", "XAmzContentSHA256Mismatch", "SlowDown"}
#: By kind of credentials: the fields of the connection that hold the key, and the secret.
_FIELDS = {
    "access_key": ("login (the access key)", "password (the secret key)"),
    "password": ("login (the IAM user)", "password"),
    "token": ("password (the IAM token)", "password (the IAM token)"),
}


def refuses_key(error: ClientError) -> bool:
    """Return whether the object store refused the access key or its security token."""
    return _code(error) in _REFUSED_KEYS


def is_missing_object(error: Exception) -> bool:
    """Return whether an object does not exist, which says nothing about the connection."""
    return isinstance(error, ClientError) and _code(error) == "NoSuchKey"


def explain(error: Exception, parameters: Mapping[str, Any], store: ObjectStore) -> Exception | None:
    """Return the error for users of the connection; None for one that s3fs handles, such as a request to repeat.

    It has the type that s3fs gives it: ``FileNotFoundError``, ``PermissionError``, or another ``OSError``.

    :param parameters: of the request; its bucket and its key are named.
    """
    bucket = parameters.get("Bucket")
    if isinstance(error, ClientError):
        if is_missing_object(error):
            source = parameters.get("CopySource")
            missing = source if isinstance(source, Mapping) else parameters
            place = printable(f"{missing.get('Bucket')}/{missing.get('Key')}")
            return FileNotFoundError(f"Object '{place}' does not exist (HTTP 404, NoSuchKey, at {store.endpoint.url}).")
        return _explain_answer(error, f"Bucket '{bucket}'" if bucket else "The list of buckets", store)
    where = f"The object store at {store.endpoint.url}"
    if isinstance(error, botocore_errors.EndpointConnectionError):
        if "getaddrinfo" in str(error) or "Name or service" in str(error) or "nodename" in str(error):
            return ConnectionError(f"{store.endpoint.unresolved}.")
        return ConnectionError(
            f"{where} cannot be reached: check obs_endpoint of {store.name}, and the network of this machine. "
            f"({printable(str(error.kwargs.get('error')))})"
        )
    if isinstance(error, botocore_errors.SSLError):
        return ConnectionError(
            f"{where} has a certificate that cannot be verified: set verify of {store.name} to a file with its "
            f"authority, or correct obs_endpoint. ({printable(str(error))})"
        )
    if isinstance(error, ResponseParserError):
        return OSError(
            errno.EPROTO,
            f"{where} does not answer as an object store: set obs_endpoint of {store.name} to the endpoint of OBS",
        )
    return None


def _explain_answer(error: ClientError, subject: str, store: ObjectStore) -> Exception | None:
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    answered = f"(HTTP {status}, {code}, at {store.endpoint.url})"
    key_field, secret_field = _FIELDS.get(store.auth, (f"auth '{store.auth}'", f"auth '{store.auth}'"))
    login = f"{key_field} of {store.name}"
    if code == "NoSuchBucket":
        return FileNotFoundError(
            f"{subject} does not exist {answered}: check its name, and region or obs_endpoint of {store.name}."
        )
    if code in _OTHER_REGION:
        found = error.response.get("Error", {})
        named = found.get("Endpoint") or found.get("Region") or _header(error, "x-amz-bucket-region")
        hint = f", such as {printable(str(named))}" if named else ""
        return OSError(
            getattr(errno, "EREMCHG", errno.ENOENT),
            f"{subject} is in another region {answered}: set obs_endpoint of {store.name} to the endpoint of the "
            f"bucket's region{hint}",
        )
    if code == "RequestTimeTooSkewed":
        return PermissionError(
            f"{subject} refuses the request {answered}, since this machine's clock is wrong by more than 15 minutes: "
            f"correct the clock. Nothing is wrong with {store.name}."
        )
    if code == "SignatureDoesNotMatch":
        return PermissionError(f"{subject} refuses the signature {answered}: correct {secret_field} of {store.name}.")
    if code == "InvalidAccessKeyId":
        return PermissionError(f"{subject} does not know the access key {answered}: correct {login}.")
    if refuses_key(error):
        field = "security_token, " if store.auth == "access_key" else ""
        return PermissionError(
            f"{subject} refuses the temporary key {answered}, since it has expired or is not complete: renew {field}"
            f"{login}."
        )
    if status == 403:
        return PermissionError(
            f"{subject} refuses access {answered}: permit it to the owner of {login}, in the bucket's policy or in "
            "IAM, or name another connection."
        )
    if code == "400":  # a HEAD request has no body that could say more
        return OSError(
            errno.EINVAL,
            f"{subject} refuses the request {answered}: check region and obs_endpoint of {store.name}, and {login}",
        )
    reason = printable(str(error.response.get("Error", {}).get("Message")))
    if code in _OF_S3FS or "reduce your request rate" in reason or status is None:
        return None
    happened = "cannot be used now" if status >= 500 else "refuses the request"
    message = f"{subject} {happened} with {store.name} {answered}: {reason}"
    return translate_boto_error(error, message, set_cause=False)  # type: ignore[no-any-return]  # s3fs has no types


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _header(error: ClientError, name: str) -> Any:
    return error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get(name)
