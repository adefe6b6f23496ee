"""Compares random signatures with the vendor's, and checks that the emulator's gateway accepts only signed requests."""

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from airflow_modelarts.api import signing
from airflow_modelarts.testing.emulator.http.gateway import RawRequest, verify_signature
from airflow_modelarts.testing.emulator.service.accounts import ACCESS_KEY, SECRET_KEY, Accounts
from airflow_modelarts.testing.emulator.service.errors import ServiceError
from tests.security.draws import Draws, one_in, pick
from tests.security.flows import PropertyViolationError
from tests.support.flows import NOON

HOST = "modelarts.example:8443"
_METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH")
_TEXTS = (*"aBz0 ~%+/?#&=;:@!$'()*,[]._-éß漢😀\t\n\x7f", "", "..", "%2F", "%zz", "%25")
_HEADERS = ("X-Project-Id", "Accept", "X-A", "x-b", "ZZ")
_HEADER_VALUES = ("v", " v ", "a  b", "", "a,b;c", "\tv", "0")
_ACCOUNTS = Accounts()


@dataclass(frozen=True)
class Signed:
    """A request with our signature.

    :param path: percent-encoded.
    :param query: names and values, decoded.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    body: bytes

    @property
    def raw_query(self) -> str:
        """The query as it is sent."""
        return "&".join(f"{signing.encode(name)}={signing.encode(value)}" for name, value in self.query)


def vendors_signature(request: Signed) -> str:
    """Return the signature of the vendor's SDK for the same request."""
    from huaweicloudsdkcore.auth.credentials import BasicCredentials  # type: ignore[import-untyped]  # it has no stubs
    from huaweicloudsdkcore.sdk_request import SdkRequest  # type: ignore[import-untyped]  # it has no stubs
    from huaweicloudsdkcore.signer.signer import Signer  # type: ignore[import-untyped]  # it has no stubs

    to_sign = SdkRequest(
        method=request.method,
        schema="https",
        host=HOST,
        resource_path=request.path,
        query_params=list(request.query),
        header_params={name: value for name, value in request.headers.items() if name != "Authorization"},
        body=request.body,
    )
    signed: Any = Signer(BasicCredentials(ACCESS_KEY, SECRET_KEY)).sign(to_sign)
    authorization: str = signed.header_params["Authorization"]
    return authorization


def make(draws: Draws) -> Signed:
    """Return a random signed request."""
    # The path may have any encoding; the signature covers the canonical one.
    spell = pick(draws, (lambda text: quote(text, safe=""), lambda text: quote(text, safe="~!$'()*,;:@")))
    path = "".join("/" + spell(_text(draws)) for _ in range(draws.below(5))) + ("/" if one_in(draws, 4) else "")
    path = path or "/"  # the vendor's SDK has no empty path
    query = tuple((_text(draws), _text(draws)) for _ in range(draws.below(5)))
    body = draws.raw(draws.below(64))
    headers = {pick(draws, _HEADERS): pick(draws, _HEADER_VALUES) for _ in range(draws.below(4))}
    if one_in(draws, 2):
        headers["Content-Type"] = "application/json"  # with another type the vendor's SDK does not sign the body
    unsigned = Signed(pick(draws, _METHODS), path, query, headers, body)
    url = f"https://{HOST}{path}?{unsigned.raw_query}"
    signed = signing.sign(ACCESS_KEY, SECRET_KEY, method=unsigned.method, url=url, headers=headers, body=body, now=NOON)
    return replace(unsigned, headers=signed)


def one_signature(draws: Draws) -> str:
    """Check the signature of one request, and that a changed request is refused."""
    request = make(draws)
    if (theirs := vendors_signature(request)) != request.headers["Authorization"]:
        raise PropertyViolationError(f"the vendor signs {theirs}\n{request}")
    if (error := verify(request)) is not None:
        raise PropertyViolationError(f"{error}\n{request}")
    changed = _changed(draws, request)
    if verify(changed) is None:
        raise PropertyViolationError(f"accepted although it was changed\n{request}\n{changed}")
    return "agreed"


def verify(request: Signed) -> ServiceError | None:
    """Return the error of the emulator's gateway for a request; None if it accepts the signature."""
    headers = {name.lower(): [value] for name, value in request.headers.items()}
    raw_request = RawRequest(request.method, request.path, request.raw_query, headers, request.body)
    try:
        verify_signature(raw_request, _ACCOUNTS, NOON)
    except ServiceError as error:
        return error
    return None


def _changed(draws: Draws, request: Signed) -> Signed:
    match draws.below(6):
        case 0:
            return replace(request, method="OPTIONS")
        case 1:
            return replace(request, path=f"{request.path.rstrip('/')}/more")
        case 2:
            return replace(request, query=(*request.query, ("more", "")))
        case 3:
            return replace(request, body=request.body + b"\x00")
        case 4:
            name = pick(draws, [name for name in request.headers if name != "Authorization"])
            return replace(request, headers={**request.headers, name: request.headers[name] + "x"})
    return replace(request, headers={**request.headers, "Authorization": request.headers["Authorization"][:-1] + "g"})


def _text(draws: Draws) -> str:
    return "".join(pick(draws, _TEXTS) for _ in range(draws.below(6)))
