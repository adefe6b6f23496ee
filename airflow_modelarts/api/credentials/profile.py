"""The profile file of the vendor's SDK: an INI file, whose sections hold an access key or an identity provider."""

from __future__ import annotations

import configparser
import io
from dataclasses import dataclass

from airflow_modelarts.api.credentials.access_key import AccessKey
from airflow_modelarts.api.credentials.base import NotConfiguredError
from airflow_modelarts.api.errors import ModelArtsConfigurationError

DEFAULT_PROFILE = "basic"


@dataclass(frozen=True, slots=True)
class Profile:
    """One section of the file.

    :param key: its access key; None if it has an identity provider, which has precedence.
    :param idp_id: the identity provider's id; "" if it has none.
    :param id_token_file: the path of the identity provider's token.
    :param project_id: "" if it has none, as ``iam_endpoint``.
    """

    key: AccessKey | None
    idp_id: str = ""
    id_token_file: str = ""
    project_id: str = ""
    iam_endpoint: str = ""


def read_profile(text: str, section: str, path: str) -> Profile:
    """Read one section of a profile file, as the vendor's SDK does.

    :param text: the file's content.
    :param path: the file's path, for errors.
    :raises NotConfiguredError: the section is missing or incomplete.
    :raises ModelArtsConfigurationError: the file is malformed. The error quotes no line, since it may hold a key.
    """
    parser = configparser.ConfigParser()
    try:
        parser.read_file(io.StringIO(text, newline=None))  # a carriage return alone ends a line too, as in a file
        if not parser.has_section(section):
            raise NotConfiguredError(
                f"profile '{section}' is not in the credentials file '{path}': add a section [{section}], or name "
                "another one in profile_name in the connection's extras"
            )
        values = {name: value.strip() for name, value in parser.items(section)}
    except configparser.Error as error:
        number = getattr(error, "lineno", None)
        line = f" in line {number}" if isinstance(number, int) else ""
        raise ModelArtsConfigurationError(
            f"the credentials file '{path}' is malformed{line} ({type(error).__name__}): it must be an INI file with a "
            f"section [{section}] and lines such as ak = …; a percent sign is written twice"
        ) from None
    idp_id, id_token_file = values.get("idp_id", ""), values.get("id_token_file", "")
    access_key, secret_key = values.get("ak", ""), values.get("sk", "")
    has_idp = bool(idp_id and id_token_file)
    if not has_idp and not (access_key and secret_key):
        raise NotConfiguredError(
            f"profile '{section}' in the credentials file '{path}' is incomplete: it needs ak and sk, or idp_id and "
            "id_token_file"
        )
    origin = f"profile '{section}'"
    key = None if has_idp else AccessKey(access_key, secret_key, values.get("security_token") or None, origin)
    return Profile(
        key,
        idp_id if has_idp else "",
        id_token_file if has_idp else "",
        values.get("project_id", ""),
        values.get("iam_endpoint", ""),
    )
