"""Credentials, answers of IAM and of the metadata service, and the state that the calls of a process share."""

from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_modelarts.api.credentials import (
    AuthContext,
    Authorizer,
    Credentials,
    InstanceAgency,
    PasswordToken,
    TokenCache,
)
from airflow_modelarts.api.http import Response
from airflow_modelarts.api.retry import RetryPolicy
from tests.support.flows import NOON, ONCE, PROJECT_ID, Answer, Clock, FlowResult, answer, no_jitter, run_flow

DAY = 24 * 3600.0
USER = PasswordToken("https://iam.example", "user", "the-password", "domain")
AGENCY = InstanceAgency()


def at(moment: float) -> str:
    """Return a time in the form of IAM."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def token(name: str = "T1", *, expires_at: float = NOON + DAY) -> Response:
    return answer({"token": {"expires_at": at(expires_at), "user": {"name": "user"}}}, 201, x_subject_token=name)


def security_key(name: str = "AK1", *, expires_at: float = NOON + DAY) -> Response:
    return answer(
        {"credential": {"access": name, "secret": "S3CRET", "securitytoken": "T0KEN", "expires_at": at(expires_at)}}
    )


def session_token(text: str = "M3TA") -> Response:
    return Response(200, {"content-type": "text/plain"}, text.encode())


class Process:
    """The token cache and the clock that the calls of a process share."""

    def __init__(self, retries: RetryPolicy = ONCE) -> None:
        self.clock = Clock()
        self.cache = TokenCache()
        self.retries = retries

    def context(self, project_id: str = PROJECT_ID) -> AuthContext:
        return AuthContext(project_id, self.cache, self.retries, self.clock, no_jitter)

    def flow(
        self, credentials: Credentials, refused: Authorizer | None = None, project_id: str = PROJECT_ID
    ) -> Generator[Any, Any, Authorizer]:
        return credentials.obtain(self.context(project_id), refused=refused)

    def obtain(
        self,
        credentials: Credentials,
        *answers: Answer,
        refused: Authorizer | None = None,
        project_id: str = PROJECT_ID,
        files: Mapping[str, str] = {},
    ) -> FlowResult[Authorizer]:
        return run_flow(self.flow(credentials, refused, project_id), answers, clock=self.clock, files=files)
