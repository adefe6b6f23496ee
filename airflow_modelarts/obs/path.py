"""The class of ``obs://`` paths for universal_pathlib, which refuses a scheme that it does not know."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from upath.implementations.cloud import CloudPath

from airflow_modelarts.api.places import SCHEME
from airflow_modelarts.filesystem import DEFAULT_CONN_ID

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
    """A path in OBS. ``ObjectStoragePath`` uses it.

    Alone, it opens files with the connection of ``obs://conn_id@bucket/key`` or ``conn_id=``, by default with
    ``modelarts_default``.
    """

    __slots__ = ()

    @classmethod
    def _transform_init_args(
        cls, args: tuple[Any, ...], protocol: str, storage_options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], str, dict[str, Any]]:
        """Move the connection from the URL to the storage options."""
        if args and isinstance(args[0], str):
            scheme, mark, rest = args[0].partition("://")
            conn_id, at, _ = rest.partition("/")[0].rpartition("@")
            if mark and at:
                url = f"{scheme}{mark}{rest.removeprefix(conn_id + at)}"
                args, storage_options = (url, *args[1:]), {"conn_id": conn_id or None, **storage_options}
        return super()._transform_init_args(args, protocol, storage_options)

    def rename(self, target: Any, **kwargs: Any) -> Any:
        """Move a file. The object store of another connection is refused: it would be taken for that of this path."""
        other = target if isinstance(target, ObsPath) else None
        if isinstance(target, str) and "://" in target:
            other = type(self)(target)
        if other is not None and (conn_id := other._named_connection()) not in (None, self.fs.conn_id):
            raise OSError(
                errno.EXDEV, f"{self} cannot be renamed to {target}, which has the connection '{conn_id}': use move"
            )
        return super().rename(target, **kwargs)

    def __reduce__(self) -> Any:
        """Return how it is pickled. That of an ObjectStoragePath has this path only, and would lose its connection."""
        conn_id = self._named_connection()
        if conn_id in (None, DEFAULT_CONN_ID, self.storage_options.get("conn_id")) or self._relative_base is not None:
            return super().__reduce__()  # type: ignore[no-untyped-call]  # universal_pathlib has no type for it
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        return ObjectStoragePath, (f"{SCHEME}://{conn_id}@{self.path}",)

    def _named_connection(self) -> str | None:
        """Return the connection of the path; None if it names none, or its file system has not been used."""
        return self.storage_options.get("conn_id") or getattr(getattr(self, "_fs_cached", None), "conn_id", None)

    @classmethod
    def _fs_factory(cls, urlpath: str, protocol: str, storage_options: Mapping[str, Any]) -> AbstractFileSystem:
        """Return the file system of the connection in the storage options."""
        try:
            from airflow.sdk.io import attach
        except ImportError:  # Airflow 2
            from airflow.io.store import attach  # type: ignore[no-redef]  # the same function
        return attach(protocol, storage_options.get("conn_id")).fs
