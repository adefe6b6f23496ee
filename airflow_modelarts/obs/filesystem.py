"""s3fs on the object store of an Airflow connection."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
from contextlib import suppress
from glob import has_magic
from io import TextIOWrapper
from typing import Any, ClassVar
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from s3fs import S3FileSystem
from s3fs.core import S3File

from airflow_modelarts.airflow_calls import call_airflow
from airflow_modelarts.api.places import SCHEME
from airflow_modelarts.connection.reading import ObjectStore
from airflow_modelarts.hooks import ModelArtsHook
from airflow_modelarts.obs.errors import explain, is_missing_object, refuses_key
from airflow_modelarts.obs.keys import Keys, session

#: The region in signatures if the connection names none; stores that speak S3 and have no regions expect it.
DEFAULT_SIGNING_REGION = "us-east-1"


class ObsFileSystem(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """The file system of OBS. Its state is the id of the connection, so a pickle or a log of it holds no secret.

    The connection is read when the file system is first used, and again after a failed request: Airflow keeps
    the file system of an ``ObjectStoragePath`` for the life of a process, and a connection can change.

    :param conn_id: an Airflow connection of type ``modelarts``; default ``modelarts_default``.
    :param options: arguments of ``s3fs.S3FileSystem``; by default listings are not cached, since others write too.
    """

    protocol = (SCHEME,)
    cachable = False  # fsspec keeps instances for the life of a process, and a connection can change
    #: The arguments that the connection gives.
    _FROM_CONNECTION: ClassVar = {
        *("endpoint_url", "key", "secret", "token", "username", "password", "session", "use_ssl"),
        *("client_kwargs", "config_kwargs", "cache_regions"),
    }

    def __init__(self, conn_id: str | None = None, **options: Any) -> None:
        conn_id = conn_id or ModelArtsHook.default_conn_name
        # pandas sets it to repeat a request that was refused, and its error would hide the refusal.
        options.pop("anon", None)
        if given := sorted(self._FROM_CONNECTION & options.keys()):
            raise TypeError(
                f"storage option {given[0]} is not accepted for {SCHEME}://: set it in the connection '{conn_id}'"
            )
        super().__init__(**{"use_listings_cache": False, **options})
        self.conn_id = conn_id
        self._store: ObjectStore | None = None
        self._keys: Keys | None = None

    @property
    def fsid(self) -> str:
        """The identity of the store."""
        return f"{SCHEME}-{self.conn_id}"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the requests. Each blocking method asks for it first, on the thread of its caller.

        Airflow can be asked for the connection on that thread only, so this reads it and obtains the key.
        """
        loop: asyncio.AbstractEventLoop = super().loop
        if loop is not _running_loop():
            if self._store is None:
                self._use(self._read_store())
            if self._keys is not None:
                self._keys.prepare()
        return loop

    async def set_session(self, refresh: bool = False, kwargs: Any = None) -> Any:
        """Connect, as s3fs does it."""
        if self._store is None:  # it is used asynchronously, on an event loop of the caller
            self._use(await call_airflow(self._read_store))
        client = await super().set_session(refresh=refresh)
        if "_make_api_call" not in vars(client) and self._store is not None and self._keys is not None:
            # All requests go through it, also those of paginators.
            client._make_api_call = _Calls(self, self._store, self._keys, client._make_api_call)
        return client

    _connect = set_session

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """Return ``bucket/key``; universal_pathlib before 0.3 gives ``/bucket/key``.

        The text of an ``ObjectStoragePath`` begins with ``conn_id@``. That is dropped, as other file systems of fsspec
        drop a user: a file system has one connection.
        """
        stripped = super()._strip_protocol(path)
        return _bucket_and_key(stripped) if isinstance(stripped, str) else [_bucket_and_key(one) for one in stripped]

    def split_path(self, path: str) -> tuple[str, str, str | None]:
        """Return bucket, key and version. Without versions ``?versionId=`` is part of the key; s3fs would drop it."""
        bucket, key, version = super().split_path(path)
        if not self.version_aware and "?versionId=" in path:
            key = self._strip_protocol(path).partition("/")[2]
        return bucket, key, version

    @staticmethod
    def _get_kwargs_from_urls(urlpath: str) -> dict[str, Any]:
        """Return the connection that a URL names; fsspec asks for it to open ``obs://conn_id@bucket/key``."""
        options: dict[str, Any] = S3FileSystem._get_kwargs_from_urls(urlpath)
        conn_id = urlpath.partition("://")[2].partition("/")[0].rpartition("@")[0]
        return {**options, "conn_id": conn_id} if conn_id else options

    async def _rm(self, path: Any, recursive: bool = False, **kwargs: Any) -> Any:
        """Delete objects. A folder without ``recursive`` is refused; s3fs would do nothing."""
        if isinstance(path, str) and not recursive:
            await self._refuse_folder(path)
        return await super()._rm(path, recursive=recursive, **kwargs)

    async def _copy(self, path1: Any, path2: Any, recursive: bool = False, **kwargs: Any) -> Any:
        """Copy an object, or with ``recursive`` a folder: into the target if that is a folder, else to its name.

        s3fs would do nothing for a folder without ``recursive``, and could not move one, which is no object.
        """
        if not (isinstance(path1, str) and isinstance(path2, str)) or not await self._exists(path1):
            return await super()._copy(path1, path2, recursive=recursive, **kwargs)  # lists, patterns
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if not recursive:
            await self._refuse_folder(source)
        elif f"{target}/".startswith(f"{source}/") and not await self._isfile(source):
            raise OSError(errno.EINVAL, f"{SCHEME}://{source} cannot be copied or moved into itself, to {target}")
        is_into = path2.endswith("/") or await self._isdir(target)
        base = self._parent(source) if is_into and not path1.endswith("/") else source
        depth = kwargs.pop("maxdepth", None)
        found = [source] if await self._isfile(source) else await self._find(source, maxdepth=depth)
        found = [one for one in found if not one.endswith("/")]  # an empty object that marks a folder
        targets = [target + one[len(base) :] for one in found]
        return await super()._copy(found, targets, **kwargs)

    async def _expand_path(self, path: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> Any:
        """Return the objects that a path stands for. One that exists is literal, even with ``*``, ``?`` or ``[``."""
        if isinstance(path, str) and has_magic(path) and await self._exists(path):
            below = await self._find(path, maxdepth=maxdepth, withdirs=True) if recursive else ()
            return sorted({self._strip_protocol(path), *below})
        return await super()._expand_path(path, recursive, maxdepth, **kwargs)

    async def _refuse_folder(self, path: str) -> None:
        if self.split_path(path)[1] and not await self._isfile(path) and await self._isdir(path):
            raise IsADirectoryError(
                f"{SCHEME}://{self._strip_protocol(path)} is a folder: pass recursive=True for all that is below it, "
                "or delete it with rmdir"
            )

    def open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        """Open a file. It is written when it is closed, and not at all if its ``with`` block raises."""
        if "b" in mode:
            return super().open(path, mode, *args, **kwargs)
        text = {name: kwargs.pop(name) for name in ("encoding", "errors", "newline") if name in kwargs}
        return _TextFile(super().open(path, mode.replace("t", "") + "b", *args, **kwargs), **text)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> S3File:
        if "x" in mode and self.exists(path):
            raise FileExistsError(f"{SCHEME}://{path} exists already")
        file = super()._open(path, mode=mode, **kwargs)
        if mode == "rb" and file.details["type"] == "directory":
            raise IsADirectoryError(f"{SCHEME}://{path} is a folder: open a file below it")
        file.__class__ = _File  # s3fs has no way to say so
        return file

    async def _bulk_delete(self, pathlist: list[str], **kwargs: Any) -> list[str]:
        """Delete objects one by one: OBS expects an MD5 sum in a request for several, which botocore has given up."""
        for path in pathlist:
            await self._rm_file(path)
        return pathlist

    def _read_store(self) -> ObjectStore:
        with ModelArtsHook(self.conn_id) as hook:
            return hook.get_object_store()

    def _use(self, store: ObjectStore) -> None:
        settings = store.settings
        self._store, self._keys, self._s3 = store, Keys(store), None
        self.endpoint_url = store.endpoint.url
        self.session, self._session_is_owned = session(self._keys), False
        self.client_kwargs = {"verify": settings.verify}
        if store.region is not None:  # s3fs creates buckets there
            self.client_kwargs["region_name"] = store.region
        self.config_kwargs = {
            "region_name": store.region or DEFAULT_SIGNING_REGION,
            "connect_timeout": settings.connect_timeout,
            "read_timeout": settings.read_timeout,
            "signature_version": "s3v4",
            "s3": {"addressing_style": _addressing_style(store.endpoint.url)},
            # OBS does not know the checksums that botocore adds by default since 1.36.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }


class _File(S3File):  # type: ignore[misc]  # s3fs has no types
    """A file that is not written if its ``with`` block raises."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None and self.mode != "rb":
            with suppress(Exception):  # the error of the block says more
                self.discard()
            self.closed = True
        self.close()


class _TextFile(TextIOWrapper):
    """The same in text."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None and isinstance(self.buffer, _File):
            self.buffer.__exit__(kind, error, trace)
        self.close()


class _Calls:
    """Makes the requests of a client: renews a refused key, and explains errors with the connection's fields."""

    def __init__(self, fs: ObsFileSystem, store: ObjectStore, keys: Keys, call: Any) -> None:
        self._fs, self._store, self._keys = fs, store, keys
        self._call = call

    async def __call__(self, operation: str, parameters: dict[str, Any]) -> Any:
        fs, store, keys = self._fs, self._store, self._keys
        used = keys.key
        # botocore replaces the body in the parameters by a stream, which is empty after the first request.
        is_repeatable = isinstance(parameters.get("Body", b""), bytes | bytearray | memoryview)
        try:
            try:
                return await self._call(operation, dict(parameters))
            except ClientError as error:
                if not (is_repeatable and refuses_key(error) and await keys.renew(used)):
                    raise
            return await self._call(operation, dict(parameters))
        except Exception as error:
            explained = explain(error, parameters, store)
            if explained is None:
                raise
            if not is_missing_object(error):
                fs._store = None  # the next use reads the connection again
            # The original error holds what was signed.
            raise explained from None


def _bucket_and_key(path: str) -> str:
    netloc, slash, key = path.lstrip("/").partition("/")
    return netloc.rpartition("@")[2] + slash + key


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _addressing_style(endpoint: str) -> str:
    """Return ``virtual`` for ``bucket.obs.….com``, ``path`` for a host that has no subdomains."""
    host = urlsplit(endpoint).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "virtual" if "." in host else "path"
    return "path"
