"""Places in OBS as asset URIs, and the events that carry them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_modelarts.assets import obs_uri


@pytest.mark.parametrize(
    "place", ["obs://bucket/a/b.csv", "s3://bucket/a/b.csv", "/bucket/a/b.csv", "S3://bucket/a/b.csv"]
)
def test_the_three_ways_to_write_a_place_have_one_uri(place: str) -> None:
    assert obs_uri(place) == "obs://bucket/a/b.csv"


@pytest.mark.parametrize(
    "place",
    [
        None,
        "",
        "PYc9H2HGv5BJNwBGXyK",
        "bucket/key",
        "https://bucket.obs.eu-de.otc.t-systems.com/key",
        "gs://bucket/key",
        "obs://",
        "obs:///key",
        "//bucket/key",
        "/",
        "obs:/bucket/key",
        "obs://user:secret@bucket/key",
        "obs://bucket:443/key",
        "obs://-bucket/key",
        "obs://buck et/key",
        " obs://bucket/key",
        "/bucket/\ud800",
    ],
)
def test_what_is_no_place_in_obs_has_none(place: str | None) -> None:
    assert obs_uri(place) is None


@pytest.mark.parametrize("place", ["/bucket/out/", "/bucket/out", "obs://bucket/out//"])
def test_a_folder_and_its_name_are_one_place(place: str) -> None:
    assert obs_uri(place) == "obs://bucket/out"


@pytest.mark.parametrize("place", ["/bucket", "/bucket/", "obs://bucket", "s3://bucket/"])
def test_a_bucket_is_a_place(place: str) -> None:
    assert obs_uri(place) == "obs://bucket"


@pytest.mark.parametrize(
    "place", ["/bucket/in/../secret", "obs://bucket/./a", "s3://bucket/in/%2e%2E/secret", "/bucket/.."]
)
def test_a_key_that_points_elsewhere_has_none(place: str) -> None:
    assert obs_uri(place) is None


@pytest.mark.parametrize(
    "query", ["?AWSAccessKeyId=AK&Signature=abc", "?x-obs-security-token=tok", "?a?b", "?\n&Signature=abc"]
)
def test_a_query_never_survives(query: str) -> None:
    assert obs_uri(f"obs://bucket/key{query}") == "obs://bucket/key"
    assert obs_uri(f"/bucket/key{query}") == "obs://bucket/key"


@pytest.mark.parametrize("query", ["%3FX-Amz-Signature=abc", "%3fAccessKeyId=AK%26Signature%3Dabc", "#Signature=abc"])
def test_a_signature_in_disguise_makes_it_no_place(query: str) -> None:
    assert obs_uri(f"obs://bucket/key{query}") is None


def test_what_a_uri_cannot_hold_is_percent_encoded() -> None:
    assert obs_uri("/bucket/图 片#1") == "obs://bucket/%E5%9B%BE%20%E7%89%87%231"


def test_a_percent_sign_is_itself_in_a_path_and_an_escape_in_a_uri() -> None:
    assert obs_uri("/bucket/100%25") == "obs://bucket/100%2525"
    assert obs_uri("s3://bucket/a%c3%bcb%41") == "obs://bucket/a%C3%BCbA"
    assert obs_uri("s3://bucket/100%") == "obs://bucket/100%25"


@given(st.text())
def test_a_uri_is_its_own_uri(key: str) -> None:
    uri = obs_uri(f"/bucket/{key}")
    assert obs_uri(uri) == uri
    assert uri is None or (uri.isascii() and "?" not in uri and "#" not in uri)
