"""Our signatures against the vendor's, and against the emulator's gateway, which must refuse a changed request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from airflow_modelarts.api import signing
from airflow_modelarts.testing.emulator.http.gateway import RawRequest, verify_signature
from airflow_modelarts.testing.emulator.service.accounts import ACCESS_KEY, SECRET_KEY, Accounts
from airflow_modelarts.testing.emulator.service.errors import ServiceError
from tests.security.draws import Draws, one_in, pick
from tests.security.flows import NOON, BrokenPromiseError

HOST = "modelarts.example:8443"
_METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH")
_TEXTS = (*"aBz0 ~%+/?#&=;:@!$'()*,[]._-éß漢😀\t\n\x7f", "", "..", "%2F", "%zz", "%25")
_HEADERS = ("X-Project-Id", "Accept", "X-A", "x-b", "ZZ")
_HEADER_VALUES = ("v", " v ", "a  b", "", "a,b;c", "\tv", "0")
_ACCOUNTS = Accounts()


@dataclass(frozen=True)
class Signed:
    """
    A request with our signature.

    :param path: raw.
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


def vendors(request: Signed) -> str:
    """Return the vendor's signature of a request that we have signed."""
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
    """Sign an arbitrary request."""
    # A path can have any encoding: the canonical path is encoded again.
    spell = pick(draws, (lambda text: quote(text, safe=""), lambda text: quote(text, safe="~!$'()*,;:@")))
    path = "".join("/" + spell(_text(draws)) for _ in range(draws.below(5))) + ("/" if one_in(draws, 4) else "")
    path = path or "/"  # the vendor does not support an empty path
    query = tuple((_text(draws), _text(draws)) for _ in range(draws.below(5)))
    body = draws.raw(draws.below(64))
    headers = {pick(draws, _HEADERS): pick(draws, _HEADER_VALUES) for _ in range(draws.below(4))}
    if one_in(draws, 2):
        headers["Content-Type"] = "application/json"  # for other types the vendor does not sign the body
    unsigned = Signed(pick(draws, _METHODS), path, query, headers, body)
    url = f"https://{HOST}{path}?{unsigned.raw_query}"
    signed = signing.sign(ACCESS_KEY, SECRET_KEY, method=unsigned.method, url=url, headers=headers, body=body, now=NOON)
    return replace(unsigned, headers=signed)


def one_signature(draws: Draws) -> str:
    """Sign a request and check that it is accepted; then change it and check that it is refused."""
    request = make(draws)
    if (theirs := vendors(request)) != request.headers["Authorization"]:
        raise BrokenPromiseError(f"the vendor signs {theirs}\n{request}")
    if (error := verify(request)) is not None:
        raise BrokenPromiseError(f"{error}\n{request}")
    changed = _changed(draws, request)
    if verify(changed) is None:
        raise BrokenPromiseError(f"accepted after a change\n{request}\n{changed}")
    return "agreed"


def verify(request: Signed) -> ServiceError | None:
    """Return the error of the emulator's gateway, None when it accepts the signature."""
    headers = {name.lower(): [value] for name, value in request.headers.items()}
    try:
        verify_signature(
            RawRequest(request.method, request.path, request.raw_query, headers, request.body), _ACCOUNTS, NOON
        )
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
