"""The fields of a connection, declared once.

From here come the defaults of the reading and the forms in Airflow's UI; a test holds the table in the documentation
against it. Airflow loads this module in every process, so it imports nothing but the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of the connection.

    :param label: its name in the form.
    :param description: Markdown; forms show it as plain text.
    :param choices: the allowed values; None allows any text.
    :param default: the value of an empty field, if that is simple.
    :param is_secret: forms hide the value, and no message shows it.
    :param may_hold_braces: braces in the value do not mean that a template was not rendered.
    :param placeholder: an example that the form shows while the field is empty.
    """

    label: str
    description: str
    choices: tuple[str, ...] | None = None
    default: str | float | None = None
    is_secret: bool = False
    may_hold_braces: bool = False
    placeholder: str | None = None

    @property
    def help(self) -> str:
        """The description and the default, as Markdown."""
        return self.description if self.default is None else f"{self.description} Default `{self.default}`."


#: The values of the extra ``auth``, and what each is. ``credentials.BUILDERS`` has the same keys.
AUTH_KINDS = {
    "access_key": "an access key and its secret key",
    "password": "an IAM user and its password",  # nosec B105 - a description
    "token": "an IAM token alone",  # nosec B105 - a description
    "agency": "the agency of the Elastic Cloud Server",
    "environment": "`HUAWEICLOUD_SDK_AK` and `HUAWEICLOUD_SDK_SK` in the environment of workers and triggerers",
}
DEFAULT_AUTH = "access_key"

#: The fields of Airflow's own that are used.
STANDARD_FIELDS = {
    "host": Field(
        label="Endpoint",
        description="The ModelArts endpoint: a host name or a URL. Plain http is allowed to a loopback address only. "
        "May be empty if `region` is a public region.",
        placeholder="modelarts.eu-de.otc.t-systems.com",
    ),
    "login": Field(label="Access key or user", description="By Authentication: the access key or the IAM user."),
    "password": Field(
        label="Secret key, password or token",  # nosec B105 - a label
        description="By Authentication: the secret key, the password or the token.",
        is_secret=True,
    ),
}
#: The fields of Airflow's own that the form hides.
HIDDEN_FIELDS = ("schema", "port", "extra")

EXTRAS = {
    "auth": Field(
        label="Authentication",
        description=". ".join(f"`{kind}`: {meaning}" for kind, meaning in AUTH_KINDS.items()) + ".",
        choices=tuple(AUTH_KINDS),
        default=DEFAULT_AUTH,
    ),
    "project_id": Field(
        label="Project ID",
        description="The 32-digit ID of the project in the region, from 'My Credentials'. Required, unless "
        "Authentication is `environment` and `HUAWEICLOUD_SDK_PROJECT_ID` is set.",
    ),
    "region": Field(
        label="Region",
        description="For example `cn-north-4` or `eu-de`. If Endpoint is empty, it gives the endpoint of a public "
        "region of Huawei Cloud or Open Telekom Cloud.",
    ),
    "iam_endpoint": Field(
        label="IAM endpoint",
        description="Only if Authentication is `password`, or `token` with files at `obs://`: host or URL of IAM, with "
        "or without `/v3`. "
        "Default: derived from Endpoint in a public region, else `HUAWEICLOUD_SDK_IAM_ENDPOINT` in the environment of "
        "workers and triggerers.",
    ),
    "obs_endpoint": Field(
        label="OBS endpoint",
        description="Only to read and write files at `obs://`: host or URL of the object store, without a bucket. "
        "Default: derived from Endpoint in a public region.",
    ),
    "domain_name": Field(
        label="Domain name", description="Only if Authentication is `password`: the account to which the user belongs."
    ),
    "project_name": Field(
        label="Project name",
        description="Only if Authentication is `password`: scopes the token by this name instead of the project ID.",
    ),
    "security_token": Field(
        label="Security token", description="Only for a temporary access key.", is_secret=True, may_hold_braces=True
    ),
    "verify": Field(
        label="Verify TLS",
        description="`true` (default), `false`, or the path of a file of certificate authorities on every machine. "
        "`true` uses the file in `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE` if one is set; it must exist.",
    ),
    "connect_timeout": Field(label="Connect timeout", description="Seconds to connect.", default=10),
    "read_timeout": Field(
        label="Read timeout",
        description="Seconds without a byte of an answer; more than 300 has no effect.",
        default=60,
    ),
    "console_url": Field(
        label="Console URL",
        description="URL of the web console, for the link in Airflow's UI. In it, `{region}` (of a public endpoint, "
        "else the field Region), `{project_id}` and `{processor_task_id}` are replaced. Default: the public console of "
        "the region, if there is one.",
        may_hold_braces=True,
    ),
}
