"""What an Airflow connection says, once it is read and checked."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_modelarts.api.client import ClientConfig


@dataclass(frozen=True, slots=True)
class Settings:
    """
    A connection, read and checked.

    :param client: what calls need.
    :param verify: False, True, or a file of the certificate authorities to trust.
    :param connect_timeout: seconds.
    :param read_timeout: seconds without a byte.
    :param console_url: of the web console; None when the connection does not say.
    :param region: of the hook or of the connection's extras; None when neither says. The endpoint can be of another.
    """

    client: ClientConfig
    verify: bool | str
    connect_timeout: float
    read_timeout: float
    console_url: str | None
    region: str | None = None
