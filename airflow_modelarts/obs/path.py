"""The class of ``obs://`` paths for universal_pathlib, which refuses a scheme that it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from upath.implementations.cloud import CloudPath

from airflow_modelarts.api.places import SCHEME

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def _split_like_s3() -> None:
    """Make universal_pathlib split ``obs://bucket/key`` as it splits the same with ``s3``.

    It has no public way to say so. Without it paths work too, but their text is ``obs:///bucket/key``, and ``//`` in
    keys becomes ``/``.
    """
    from upath._flavour import WrappedFileSystemFlavour
    from upath._flavour_sources import S3FileSystemFlavour, flavour_registry

    flavour_registry[SCHEME] = type("ObsFileSystemFlavour", (S3FileSystemFlavour,), {"protocol": (SCHEME,)})
    for setting in ("netloc_is_anchor", "supports_empty_parts"):
        WrappedFileSystemFlavour.protocol_config[setting].add(SCHEME)
    WrappedFileSystemFlavour.from_protocol.cache_clear()


with suppress(ImportError, AttributeError, KeyError):  # another version of universal_pathlib
    _split_like_s3()


class ObsPath(CloudPath):
    """A path in OBS. ``ObjectStoragePath`` uses it; alone, it opens files with ``modelarts_default``."""

    __slots__ = ()

    @classmethod
    def _fs_factory(cls, urlpath: str, protocol: str, storage_options: Mapping[str, Any]) -> AbstractFileSystem:
        """Return the file system of the connection in the storage options."""
        try:
            from airflow.sdk.io import attach
        except ImportError:  # Airflow 2
            from airflow.io.store import attach  # type: ignore[no-redef]  # the same function
        return attach(protocol, storage_options.get("conn_id")).fs
