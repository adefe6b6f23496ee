"""The exceptions of a failed call: one class for each kind of cause that a caller can handle in its own way."""

from __future__ import annotations

from typing import ClassVar

#: Error codes with which a token or temporary key is refused, whatever the HTTP status; a new one may be accepted.
CODES_OF_REFUSED_CREDENTIALS = frozenset(
    {
        *("APIGW.0301", "APIG.0301", "APIGW.0307", "APIG.0307"),
        *("ModelArts.0201", "ModelArts.0202", "ModelArts.0203", "ModelArts.0206", "ModelArts.4127"),
    }
)


class ModelArtsError(Exception):
    """A call to ModelArts or IAM failed.

    :param message: what happened and what to change, without secrets.
    :param error_code: for example ``ModelArts.4700`` or ``APIGW.0301``; None if the answer had none.
    :param http_status: None if there was no answer.
    :param request_id: what the service's support asks for; None if the answer had none.
    :param operation: the API operation, for example ``DescribeProcessorTask``.
    :param retry_after: seconds after which the service asks for a retry; None if it names none.
    :param outcome_unknown: whether the request may have taken effect nevertheless.
    """

    #: Whether the same call may succeed later: the cause is not the task, the credentials or the request.
    temporary: ClassVar[bool] = False
    #: What to change, unless the error code has more exact advice.
    default_advice: ClassVar[str] = ""
    #: IAM can decode it into the missing permission; None if the answer had none.
    encoded_authorization_message: str | None = None

    def __init__(
        self,
        message: str,
        *,
        error_code: str | None = None,
        http_status: int | None = None,
        request_id: str | None = None,
        operation: str | None = None,
        retry_after: float | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.http_status = http_status
        self.request_id = request_id
        self.operation = operation
        self.retry_after = retry_after
        self.outcome_unknown = outcome_unknown


class ModelArtsAuthenticationError(ModelArtsError):
    """The service refused the credentials, or they lack a permission."""

    default_advice = (
        "Check the credentials of the connection (login, password, and the auth extra), that they are valid for this "
        "project, and that this machine's clock is right"
    )

    @property
    def asks_for_new_credentials(self) -> bool:
        """Whether a new token or temporary key may help; otherwise a permission is missing."""
        return self.http_status == 401 or self.error_code in CODES_OF_REFUSED_CREDENTIALS


class ModelArtsConfigurationError(ModelArtsError):
    """A setting of the connection is missing or wrong: endpoint, project, region, certificate."""

    default_advice = (
        "Check the connection: host must be the ModelArts endpoint of your region, and project_id the 32-digit project "
        "ID of that region"
    )


class ModelArtsNotFoundError(ModelArtsError):
    """The task or version does not exist in this project."""

    default_advice = "Check the id, and that it belongs to the connection's project_id and host"


class ModelArtsAlreadyExistsError(ModelArtsError):
    """A processing task of this name exists already."""

    default_advice = "Choose another name, or wait for the task that has it"


class ModelArtsRequestError(ModelArtsError):
    """The service cannot carry out the request as it is."""

    default_advice = "Change the request"


class ModelArtsThrottledError(ModelArtsError):
    """The service limits the rate of requests."""

    temporary = True
    default_advice = "Make fewer calls at a time"


class ModelArtsBusyError(ModelArtsError):
    """The service cannot do it now, for example because too many tasks are running."""

    temporary = True
    default_advice = "Try again later"


class ModelArtsTransientError(ModelArtsError):
    """The service or the network has a fault."""

    temporary = True
    default_advice = "Try again later"


class OtherObjectError(ValueError):
    """A successful answer is about another task or version than the one that was requested."""
