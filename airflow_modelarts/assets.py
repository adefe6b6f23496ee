"""Places in OBS as URIs: for Airflow's assets, and for whoever compares places that the API writes in three ways."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

#: The scheme of a place in OBS; the API also writes ``s3://bucket/key`` and ``/bucket/key``.
SCHEME = "obs"

# A bucket is written in lower-case letters, digits, hyphens and periods, so this also refuses user info and ports.
_PLACE = re.compile(
    r"(?i:(?P<scheme>obs|s3):/)?/(?P<bucket>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?:/(?P<key>.*))?", re.DOTALL
)
# Whoever has what follows has the object.
_SIGNATURE = re.compile(r"(?i)[?&;#](?:x-[a-z]{1,9}-)?(?:signature|security-token)=")
# What RFC 3986 allows in a path as it is, beside letters and digits.
_SAFE_IN_KEYS = "/!$&'()*+,;=:@~"


def obs_uri(place: str | None) -> str | None:
    """
    Return ``obs://bucket/key`` for a place in OBS, however the API wrote it; None for anything else.

    A place has one URI: percent-encoded, without a query (that of a signed link is a credential) and, as Airflow writes
    its assets, without slashes at the end. A key with ``.`` or ``..`` between slashes has none, since programs disagree
    about where it is.

    :param place: ``obs://bucket/key``, ``s3://bucket/key`` (both may be percent-encoded) or ``/bucket/key`` (as it is).
    """
    found = _PLACE.fullmatch(place or "")
    if not found:
        return None
    key = (found["key"] or "").partition("?")[0]
    if found["scheme"]:
        key = unquote(key, errors="surrogateescape")
    key = key.rstrip("/")
    if _SIGNATURE.search(key) or not {".", ".."}.isdisjoint(key.split("/")):
        return None
    try:
        path = quote(key, safe=_SAFE_IN_KEYS, errors="surrogateescape")
    except UnicodeEncodeError:  # half a character
        return None
    return f"{SCHEME}://{found['bucket']}/{path}".rstrip("/")
