"""The errors that the emulated service answers with; ``http.responses`` renders them."""

from __future__ import annotations

from airflow_modelarts.api.error_codes import CODES


class ServiceError(Exception):
    """The service refuses a request.

    :param code: for example ``ModelArts.4700``.
    :param message: by default the contract's meaning of the code.
    :param status: HTTP status; by default the contract's status for the code.
    """

    def __init__(self, code: str, message: str | None = None, *, status: int | None = None) -> None:
        # Exception.__init__ is not called: copies and pickles need args to stay those of the subclass's constructor.
        self.code = code
        self.message = message or (CODES[code].meaning if code in CODES else code)
        self.status = status

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class NotFoundError(ServiceError):
    """The task or version does not exist; ``Settings.not_found`` sets the shape of the answer."""


class KeystoneError(ServiceError):
    """IAM refuses a request, in Keystone's shape."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__("Keystone", message, status=status)
