"""Any text where a place in OBS belongs becomes a URI without a signature, or is rejected."""

from contextlib import suppress
from urllib.parse import SplitResult, unquote, urlsplit

from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_modelarts.api.places import obs_uri
from airflow_modelarts.assets import sanitize_uri

SIGNED = "Signature=MARK"
PIECES = st.sampled_from(
    [
        *"abZ09.-_~/:@?#&;=%+[]\\ \t\r\n\x00é漢\ud800",
        "obs://",
        "s3://",
        "https://",
        "OBS://",
        "..",
        "%2F",
        "%3F",
        "%2e",
        "%ff",
    ]
)
SIGNATURES = st.sampled_from(
    [f"?{SIGNED}", f"?AccessKeyId=A&Expires=1&{SIGNED}", f"?X-Amz-{SIGNED}", f"#&{SIGNED}", ""]
)
PLACES = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["obs://bucket/", "s3://bucket/", "/bucket/", "", "obs://", "obs://user:pass@bucket/"]),
    st.lists(PIECES, max_size=8).map("".join),
    SIGNATURES,
    st.lists(PIECES, max_size=2).map("".join),
)


@settings(deadline=None, max_examples=1000)
@given(PLACES)
@example(f"obs://bucket/key%3F{SIGNED}")
def test_a_place_has_a_uri_without_a_signature_or_no_uri(place: str) -> None:
    uri = obs_uri(place)
    if uri is None:
        return
    assert uri.isascii()
    assert uri.startswith("obs://")
    assert "MARK" not in unquote(uri)
    assert obs_uri(uri) == uri  # a place has one URI
    parts = urlsplit(uri)
    assert (parts.query, parts.fragment, parts.username) == ("", "", None)


@settings(deadline=None, max_examples=1000)
@given(PLACES)
@example("obs://bucket/key?Signature=MARK")
def test_an_assets_uri_is_sanitized_or_rejected_with_a_value_error(text: str) -> None:
    try:
        parts = urlsplit(text)
    except ValueError:
        return
    sanitized: SplitResult | None = None
    with suppress(ValueError):
        sanitized = sanitize_uri(parts)
    if sanitized is not None:
        assert "MARK" not in unquote(sanitized.geturl())
