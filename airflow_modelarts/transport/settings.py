"""The settings of an Airflow connection, read and checked."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_modelarts.api.client import ClientConfig


@dataclass(frozen=True, slots=True)
class Settings:
    """
    The settings of an Airflow connection.

    :param client: the settings of calls.
    :param verify: False, True, or a file or folder of certificate authorities to trust.
    :param connect_timeout: seconds.
    :param read_timeout: seconds without a byte.
    :param console_url: URL of the web console; None if the connection has none.
    :param region: the region of the hook or the connection's extras; None if neither has one. The endpoint may be in
        another region.
    """

    client: ClientConfig
    verify: bool | str
    connect_timeout: float
    read_timeout: float
    console_url: str | None
    region: str | None = None
