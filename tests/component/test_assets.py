"""The URIs of places in OBS, and the asset events that carry them."""

from __future__ import annotations

import pydoc
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Asset, AssetAlias
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS
from hypothesis import given
from hypothesis import strategies as st

from airflow_modelarts.api.ends import Origin, dedupe_key, identify_end
from airflow_modelarts.api.models import ProcessorTask, ProcessorTaskVersion
from airflow_modelarts.api.places import obs_uri, output_uri
from airflow_modelarts.assets import emit
from airflow_modelarts.provider import get_provider_info
from tests.support.outlets import ON_AIRFLOW_2, alias_events, outlet_events


@pytest.mark.parametrize(
    "place",
    [
        *("obs://bucket/a/b.csv", "s3://bucket/a/b.csv", "s3a://bucket/a/b.csv", "s3n://bucket/a/b.csv"),
        *("/bucket/a/b.csv", "S3://bucket/a/b.csv", "S3A://bucket/a/b.csv", "Obs://bucket/a/b.csv"),
    ],
)
def test_all_spellings_of_a_place_have_one_uri(place: str) -> None:
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
        "s3b://bucket/key",
        "s3an://bucket/key",
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
def test_text_that_is_no_place_in_obs_has_no_uri(place: str | None) -> None:
    assert obs_uri(place) is None


@pytest.mark.parametrize("place", ["/bucket/out/", "/bucket/out", "obs://bucket/out//"])
def test_trailing_slashes_are_dropped(place: str) -> None:
    assert obs_uri(place) == "obs://bucket/out"


@pytest.mark.parametrize("place", ["/bucket", "/bucket/", "obs://bucket", "s3://bucket/"])
def test_a_bucket_is_a_place(place: str) -> None:
    assert obs_uri(place) == "obs://bucket"


@pytest.mark.parametrize(
    "place", ["/bucket/in/../secret", "obs://bucket/./a", "s3://bucket/in/%2e%2E/secret", "/bucket/.."]
)
def test_a_key_with_dot_segments_has_no_uri(place: str) -> None:
    assert obs_uri(place) is None


@pytest.mark.parametrize(
    "query", ["?AWSAccessKeyId=AK&Signature=abc", "?x-obs-security-token=tok", "?\n&Signature=abc"]
)
def test_a_query_that_signs_a_link_is_dropped(query: str) -> None:
    assert obs_uri(f"obs://bucket/key{query}") == "obs://bucket/key"
    assert obs_uri(f"/bucket/key{query}") == "obs://bucket/key"


@pytest.mark.parametrize("place", ["/bucket/key?a?b", "obs://bucket/key?a?b", "s3a://bucket/key%3Fa%3fb"])
def test_another_question_mark_is_part_of_the_key(place: str) -> None:
    assert obs_uri(place) == "obs://bucket/key%3Fa%3Fb"


@pytest.mark.parametrize("query", ["%3FX-Amz-Signature=abc", "%3fAccessKeyId=AK%26Signature%3Dabc", "#Signature=abc"])
def test_a_key_with_an_encoded_signature_has_no_uri(query: str) -> None:
    assert obs_uri(f"obs://bucket/key{query}") is None


def test_characters_that_a_uri_cannot_hold_are_percent_encoded() -> None:
    assert obs_uri("/bucket/图 片#1") == "obs://bucket/%E5%9B%BE%20%E7%89%87%231"


def test_a_percent_sign_is_literal_in_a_path_and_an_escape_in_a_uri() -> None:
    assert obs_uri("/bucket/100%25") == "obs://bucket/100%2525"
    assert obs_uri("s3://bucket/a%c3%bcb%41") == "obs://bucket/a%C3%BCbA"
    assert obs_uri("s3://bucket/100%") == "obs://bucket/100%25"


@given(st.text())
def test_the_uri_of_a_uri_is_itself(key: str) -> None:
    uri = obs_uri(f"/bucket/{key}")
    assert obs_uri(uri) == uri
    assert uri is None or (uri.isascii() and "?" not in uri and "#" not in uri)


@pytest.mark.parametrize(
    ("written", "uri"),
    [
        ("obs://bucket/out/", "obs://bucket/out"),
        ("OBS://bucket/out", "obs://bucket/out"),
        ("obs://bucket/a%c3%bc#part", "obs://bucket/a%C3%BC"),
        ("obs://bucket", "obs://bucket"),
        ("obs://bucket/", "obs://bucket"),
    ],
)
def test_airflow_normalizes_the_uri_of_an_asset(written: str, uri: str) -> None:
    assert Asset(uri=written).uri == uri


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("obs:///key", "bucket name"),
        ("obs://bucket/in/../secret", "between slashes"),
        ("obs://bucket:443/key", "without user and port"),
        ("obs://bucket/key?Signature=a-secret", "must not contain a query"),
    ],
)
def test_airflow_rejects_an_asset_that_is_no_place_in_obs(written: str, complaint: str) -> None:
    if ON_AIRFLOW_2:  # which only warns
        with pytest.warns(UserWarning, match=complaint):
            Asset(uri=written)
    else:
        with pytest.raises(ValueError, match=complaint) as caught:
            Asset(uri=written)
        assert "a-secret" not in str(caught.value)


def test_airflow_makes_an_asset_of_a_bucket_and_a_key() -> None:
    create_asset: Any = pydoc.locate(get_provider_info()["asset-uris"][0]["factory"])
    asset = create_asset(bucket="bucket", key="a b/数据+50%.csv", extra={"rows": 1})
    assert asset == Asset(uri="obs://bucket/a%20b/%E6%95%B0%E6%8D%AE+50%25.csv", extra={"rows": 1})
    # Airflow 2 warns.
    with pytest.raises((UserWarning, ValueError), match="must contain a bucket name"):
        create_asset(bucket="bucket", key="a/../b")


def task(**fields: Any) -> ProcessorTask:
    return ProcessorTask.model_validate({"task_id": "abc", "status": 2, **fields})


def obs(path: str) -> dict[str, Any]:
    return {"type": "OBS", "path": path}


@pytest.mark.parametrize(
    ("work_path", "uri"),
    [
        (obs("/bucket/out/"), "obs://bucket/out"),
        ({"path": "s3://bucket/out"}, "obs://bucket/out"),
        (obs("s3a://bucket/out/"), "obs://bucket/out"),
        (obs("bucket/out"), "obs://bucket/out"),
        ({"path": "bucket/out"}, None),  # without a type it can be anything
        ({"type": "DATASET", "path": "PYc9", "output_path": "s3a://bucket/dataset/"}, "obs://bucket/dataset"),
        ({"type": "DATASET", "path": "PYc9H2HGv5BJNwBGXyK"}, None),
        ({"type": "DATASET", "path": "PYc9H2HGv5BJNwBGXyK", "output_path": "/datasets/demo"}, None),
        ({"type": "DATASET", "path": "PYc9", "output_path": "obs://bucket/dataset/"}, "obs://bucket/dataset"),
        ({**obs("/bucket/out"), "output_path": "/datasets/demo"}, "obs://bucket/out"),
        ({**obs("/bucket/out"), "output_path": "ftp://host/out"}, "obs://bucket/out"),
        ({}, None),
        (None, None),
    ],
)
def test_the_output_uri_is_the_work_path_in_obs(work_path: Any, uri: str | None) -> None:
    assert output_uri(task(work_path=work_path)) == uri
    assert output_uri(ProcessorTaskVersion.model_validate({"work_path": work_path})) == uri


def emitted(*outlets: Any, version: ProcessorTaskVersion | None = None, **fields: Any) -> Any:
    events = outlet_events()
    end = identify_end(ORIGIN, task(**fields), AT, version, is_end_of_version=False)
    emit({"outlet_events": events}, outlets, end)  # type: ignore[typeddict-item]
    return events


ORIGIN = Origin("modelarts_default", "0123abcd", "modelarts.example.com", "cn-north-4")
AT = datetime(2026, 11, 26, 7, tzinfo=UTC)
EXTRA = {
    "modelarts_conn_id": "modelarts_default",
    "project_id": "0123abcd",
    "region": "cn-north-4",
    "host": "modelarts.example.com",
    "task_id": "abc",
    "task_version_id": None,
    "version_count": None,
    "dedupe_key": dedupe_key(ORIGIN, ProcessorTask(task_id="abc", status=2)),
    "observed_at": "2026-11-26T07:00:00.000+00:00",
    "status": 2,
    "status_name": "completed",
    "uri": "obs://bucket/out/images",
}


def test_an_alias_emits_an_event_of_an_asset_at_the_output() -> None:
    alias = AssetAlias("outputs")
    events = emitted(alias, work_path=obs("/bucket/out/images/"))
    assert alias_events(events, alias) == [("obs://bucket/out/images", EXTRA)]


@pytest.mark.parametrize(
    "uri",
    [
        "obs://bucket/out/images",
        "obs://bucket/out/images/",
        "obs://bucket/out",
        "obs://bucket",
        "obs://bucket/out/images/manifest.json",
        "s3a://bucket/out/images",
        "training-images",
        "x-images://of/training",
    ],
)
def test_an_asset_at_above_or_below_the_output_or_outside_obs_gets_the_extra(uri: str) -> None:
    asset = Asset(uri=uri)
    assert emitted(asset, work_path=obs("/bucket/out/images/"))[asset].extra == EXTRA


@pytest.mark.parametrize("uri", ["obs://other/out/images", "obs://bucket/out/image", "obs://bucket/out/images2"])
def test_an_asset_elsewhere_in_obs_gets_no_extra(uri: str) -> None:
    asset = Asset(uri=uri)
    assert emitted(asset, work_path=obs("/bucket/out/images/"))[asset].extra == {}


def test_an_output_in_a_dataset_emits_nothing_for_aliases_and_places() -> None:
    alias, dataset, place = AssetAlias("outputs"), Asset("training-images"), Asset(uri="obs://bucket/out")
    events = emitted(alias, dataset, place, work_path={"type": "DATASET", "path": "PYc9"})
    assert alias_events(events, alias) == []
    assert events[place].extra == {}
    assert events[dataset].extra == {**EXTRA, "uri": None}


def test_the_extra_has_the_status_and_place_of_the_version() -> None:
    version = ProcessorTaskVersion.model_validate(
        {"task_version_id": "v1", "status": 4, "work_path": obs("/bucket/v1")}
    )
    alias = AssetAlias("outputs")
    events = emitted(alias, version=version, work_path=obs("/bucket/out"))
    expected = {"task_version_id": "v1", "status": 4, "status_name": "stopped", "uri": "obs://bucket/v1"}
    assert alias_events(events, alias) == [("obs://bucket/v1", {**EXTRA, **expected})]


def test_the_extra_has_the_status_and_place_of_the_task_where_the_version_has_none() -> None:
    alias = AssetAlias("outputs")
    events = emitted(alias, version=ProcessorTaskVersion(), work_path=obs("/bucket/out/images"))
    assert alias_events(events, alias) == [("obs://bucket/out/images", EXTRA)]


def test_the_extra_that_a_user_set_is_kept() -> None:
    asset, events = Asset(uri="obs://bucket/out"), outlet_events()
    events[asset].extra["mine"] = 1
    end = identify_end(ORIGIN, task(work_path=obs("/bucket/out")), AT)
    emit({"outlet_events": events}, [asset], end)  # type: ignore[typeddict-item]
    assert events[asset].extra == {**EXTRA, "uri": "obs://bucket/out", "mine": 1}


def test_a_uri_too_long_for_airflow_is_logged_and_does_not_fail(caplog: pytest.LogCaptureFixture) -> None:
    alias = AssetAlias("outputs")
    events = emitted(alias, work_path=obs("/bucket/" + "图" * 1000))
    assert alias_events(events, alias) == []
    assert "There is no asset event for obs://bucket/%E5%9B%BE" in caplog.text


def test_outlets_of_another_type_get_no_event() -> None:
    assert len(emitted("a text", object(), work_path=obs("/bucket/out"))) == 0


def test_importing_it_loads_neither_airflow_nor_pydantic() -> None:
    code = "import airflow_modelarts.assets, sys; print([m for m in ('airflow.sdk', 'pydantic') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


@pytest.mark.skipif(ON_AIRFLOW_2, reason="Airflow 3 introduced references")
def test_a_reference_to_an_asset_by_uri_gets_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time.context import OutletEventAccessors

    asset = Asset(uri="obs://bucket/out")
    # Airflow resolves it through its API server, which is absent here.
    monkeypatch.setattr(OutletEventAccessors, "_resolve_asset_ref", lambda self, ref: resolved(asset))
    events = emitted(
        Asset.ref(uri="obs://bucket/out"),  # type: ignore[attr-defined]
        Asset.ref(uri="obs://elsewhere/out"),  # type: ignore[attr-defined]
        work_path=obs("/bucket/out"),
    )
    assert events[asset].extra == {**EXTRA, "uri": "obs://bucket/out"}


@pytest.mark.skipif(ON_AIRFLOW_2, reason="Airflow 2 identifies assets by URI alone")
def test_an_alias_emits_an_event_of_the_asset_declared_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time.context import OutletEventAccessor

    declared = Asset(name="images", uri="obs://bucket/out")  # type: ignore[call-arg]
    monkeypatch.setattr(OutletEventAccessor, "_resolve_asset_ref", lambda self, ref: resolved(declared))
    alias = AssetAlias("outputs")
    events = emitted(alias, work_path=obs("/bucket/out"))
    assert [event.dest_asset_key.name for event in events[alias].asset_alias_events] == ["images"]


@pytest.mark.skipif(ON_AIRFLOW_2, reason="Airflow 2 identifies assets by URI alone")
@pytest.mark.parametrize(("error", "warned"), [("ASSET_NOT_FOUND", False), ("API_SERVER_ERROR", True)])
def test_an_asset_that_cannot_be_looked_up_is_named_by_its_uri(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: str, warned: bool
) -> None:
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse
    from airflow.sdk.execution_time.context import OutletEventAccessor

    def fail(self: Any, ref: Any) -> None:
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType[error]))

    monkeypatch.setattr(OutletEventAccessor, "_resolve_asset_ref", fail)
    alias = AssetAlias("outputs")
    events = emitted(alias, work_path=obs("/bucket/out"))
    assert [event.dest_asset_key.name for event in events[alias].asset_alias_events] == ["obs://bucket/out"]
    assert ("Cannot look up the asset at obs://bucket/out" in caplog.text) == warned


def resolved(asset: Any) -> Any:
    """Return what Airflow gets when it resolves a reference; since 3.1 with the asset's own extra."""
    from airflow.sdk.definitions.asset import AssetUniqueKey

    key = AssetUniqueKey.from_asset(asset)
    return (key, {}) if AIRFLOW_V_3_1_PLUS else key
