"""An object store on a loopback port: moto's, behind a check of keys and signatures, with IAM's temporary keys."""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Self
from urllib.parse import urlsplit

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.client import Config
from botocore.credentials import Credentials
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from airflow_modelarts.testing.emulator.service import accounts, iam
from airflow_modelarts.testing.emulator.service.accounts import Accounts, KeyPair, keystone_time
from airflow_modelarts.testing.emulator.service.errors import KeystoneError

BUCKET = "my-bucket"
Answer = tuple[int, str]
SetConnection = Callable[..., None]


class Clock:
    """The time, and how far it was moved."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


def connect(set_connection: SetConnection, store: ObjectStore, **given: Any) -> None:
    extra = {"obs_endpoint": store.url, "iam_endpoint": store.url, "project_id": accounts.PROJECT_ID}
    extra |= given.pop("extra", {})
    usual = {"login": accounts.ACCESS_KEY, "password": accounts.SECRET_KEY}
    set_connection(**{**usual, **given}, extra=extra)


class ObjectStore:
    """moto's S3 server with the accounts of the emulator.

    :param now: the clock of the store and of IAM, in seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.accounts = Accounts()
        #: Method and path with query of each request.
        self.requests: list[tuple[str, str]] = []
        #: Returns the status and the code with which a request is refused, by method and path; None for the usual.
        self.refuse: Callable[[str, str], Answer | None] = lambda method, path: None
        #: Seconds that IAM's temporary keys are valid.
        self.key_lifetime = 3600.0
        #: Seconds for which each temporary key was requested.
        self.durations: list[int] = []
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __enter__(self) -> Self:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reset(self) -> None:
        """Remove all objects, and create the bucket."""
        from moto.s3.models import s3_backends

        s3_backends.reset()
        self.accounts.reset()
        self.requests.clear()
        self.durations.clear()
        self.refuse, self.key_lifetime = lambda method, path: None, 3600.0
        self.client().create_bucket(Bucket=BUCKET)

    def client(self) -> Any:
        """Return a client of boto3."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=accounts.ACCESS_KEY,
            aws_secret_access_key=accounts.SECRET_KEY,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def objects(self) -> dict[str, bytes]:
        """Return the contents of the bucket by key."""
        client = self.client()
        keys = [found["Key"] for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", ())]
        return {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def uploads(self) -> list[str]:
        """Return the keys of multipart uploads that are not complete."""
        return [found["Key"] for found in self.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())]

    def operations(self, method: str) -> list[str]:
        """Return the paths of the requests with a method."""
        return [path for given, path in self.requests if given == method]

    def _serve(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["RAW_URI"]
        self.requests.append((method, path))
        if path.startswith("/v3"):
            return self._serve_iam(environ, start)
        refusal = self.refuse(method, path) or self._check_signature(environ)
        if refusal is None:
            return self._moto(environ, start)  # type: ignore[no-any-return]  # moto's application
        status, code = refusal
        body = f"<Error><Code>{code}</Code><Message>{code} of the test</Message></Error>".encode()
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start(f"{status} Refused", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [b"" if method == "HEAD" else body]

    def _check_signature(self, environ: dict[str, Any]) -> Answer | None:
        words = environ.get("HTTP_AUTHORIZATION", "").replace(",", " ").split()
        claim = dict(word.split("=", 1) for word in words[1:])
        if not claim:
            return 403, "AccessDenied"
        access_key, _, region, *_ = claim["Credential"].split("/")
        key = self.accounts.find_key(access_key)
        if key is None:
            return 403, "InvalidAccessKeyId"
        if key.expires_at is not None and key.expires_at <= self.now():
            return 400, "ExpiredToken"
        headers = {
            name: environ[name.upper().replace("-", "_") if name.startswith("content-t") else _variable(name)]
            for name in claim["SignedHeaders"].split(";")
        }
        if headers.get("x-amz-security-token") != key.security_token:
            return 400, "InvalidToken"
        request = AWSRequest(environ["REQUEST_METHOD"], f"http://{environ['HTTP_HOST']}{environ['RAW_URI']}", headers)
        request.context["timestamp"] = headers["x-amz-date"]
        signer = S3SigV4Auth(Credentials(key.access_key, key.secret_key, key.security_token), "s3", region)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        return None if signer.signature(text, request) == claim["Signature"] else (403, "SignatureDoesNotMatch")

    def _serve_iam(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        headers = [("Content-Type", "application/json")]
        try:
            if urlsplit(environ["RAW_URI"]).path == "/v3/auth/tokens":
                names = {accounts.PROJECT_ID: accounts.PROJECT_NAME}
                token, document = iam.create_token(body, self.accounts, names, now=self.now(), lifetime=86400)
                headers.append(("X-Subject-Token", token))
            else:
                document = self._issue_key(body["auth"]["identity"], environ.get("HTTP_X_AUTH_TOKEN", ""))
            status = 201
        except KeystoneError as error:
            status = error.status or 500
            document = {"error": {"code": status, "message": error.message, "title": "Refused"}}
        start(f"{status} Answered", headers)
        return [json.dumps(document).encode()]

    def _issue_key(self, identity: Any, token: str) -> dict[str, Any]:
        found = self.accounts.find_token(token)
        if found is None or found.expires_at <= self.now():
            raise KeystoneError(401, "The token is not valid or has expired.")
        if identity["methods"] != ["token"] or not 900 <= identity["token"]["duration_seconds"] <= 86400:
            raise KeystoneError(400, "The request is malformed.")
        self.durations.append(identity["token"]["duration_seconds"])
        expires_at = self.now() + self.key_lifetime
        key = KeyPair(
            f"TEMPORARY{secrets.token_hex(5)}", secrets.token_hex(20), secrets.token_hex(300), None, expires_at
        )
        self.accounts.add_key(key)
        parts = {"access": key.access_key, "secret": key.secret_key, "securitytoken": key.security_token}
        return {"credential": {**parts, "expires_at": keystone_time(expires_at)}}


def _variable(header: str) -> str:
    return f"HTTP_{header.upper().replace('-', '_')}"
