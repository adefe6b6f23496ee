"""The agency of an Elastic Cloud Server: temporary keys from the server's metadata service."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_modelarts.api import errors
from airflow_modelarts.api.credentials import base
from airflow_modelarts.api.credentials.base import AuthContext, Authorizer, TokenCache
from airflow_modelarts.api.credentials.temporary_keys import read_key
from airflow_modelarts.api.http import Flow, Request, Response, Sleep, TransportError, send

#: The address is link-local and the same on every server.
METADATA_SERVICE = "http://169.254.169.254"
#: Seconds; short, because nothing answers on a machine without a metadata service.
METADATA_TIMEOUT = 3.0
#: How often both requests to the metadata service are made before an answer that may be temporary counts.
METADATA_ROUNDS = 3
#: Seconds between two rounds.
METADATA_DELAY = 1.0
#: Seconds for which a session token of the metadata service is valid; it is used once, at once.
SESSION_TOKEN_TTL = 60
NO_AGENCY = (
    "This server has no temporary key: give it an agency that may use ModelArts, in the console of the Elastic Cloud "
    "Server, or choose another auth in the connection's extras"
)


@dataclass(frozen=True, slots=True)
class InstanceAgency:
    """The agency of the Elastic Cloud Server on which this runs. Plain http: the metadata service is link-local.

    :param rounds: see ``METADATA_ROUNDS``; a chain that has another kind to try needs one.
    """

    metadata_service: str = METADATA_SERVICE
    rounds: int = METADATA_ROUNDS

    @property
    def secrets(self) -> tuple[str, ...]:
        """Empty: the agency belongs to the machine, so there is no secret to mask."""
        return ()

    def identity(self, cache: TokenCache) -> str:
        """Name the agency, whose name the server knows."""
        return "the agency of this server"

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Return the cached temporary key, or request one from the metadata service."""
        return (yield from context.cache.obtain(self.cache_key, lambda: self._renew(context), context.now, refused))

    @property
    def cache_key(self) -> str:
        """The key of the temporary key in the token cache."""
        return base.cache_key("agency", self.metadata_service)

    def _renew(self, context: AuthContext) -> Flow[tuple[Authorizer, float]]:
        """Request a key, and again if the failure may be temporary: a wait polls with a single attempt a request."""
        for number in range(1, self.rounds + 1):
            token = yield from self._session_token()
            try:
                return (yield from self._security_key(context, token))
            except errors.ModelArtsError as error:
                # An unreadable answer with HTTP 200 counts as no answer.
                is_unanswered = error.temporary and error.http_status in (None, 200)
                if str(error).startswith(NO_AGENCY) or (error.temporary and not is_unanswered):
                    raise
                may_be_temporary = (
                    context.retries.attempts < METADATA_ROUNDS  # otherwise the retry policy has repeated it already
                    if is_unanswered
                    else token is None and error.http_status == 401
                )
                if not may_be_temporary or number == self.rounds:
                    # A cached key proves that the machine has an agency and reaches the service.
                    raise _with_cause(error, token, is_outage=context.cache.has(self.cache_key)) from None
            yield Sleep(METADATA_DELAY)
        raise AssertionError("the last round returns or raises")

    def _session_token(self) -> Flow[str | None]:
        """Request the session token of a newer metadata service; "" if it has none, None if it did not answer."""
        headers = {"X-Metadata-Token-Ttl-Seconds": str(SESSION_TOKEN_TTL)}
        url = f"{self.metadata_service}/meta-data/latest/api/token"
        try:
            response = yield from send(Request("PUT", url, headers, timeout=METADATA_TIMEOUT))
        except TransportError:
            return None  # if the fault persists, the request for the key reports it
        if response.status == 429 or response.status >= 500:
            return None
        token = response.body.decode("ascii", "ignore").strip()
        return token if response.status == 200 and base.is_header_safe(token) else ""

    def _security_key(self, context: AuthContext, token: str | None) -> Flow[tuple[Authorizer, float]]:
        headers = {"X-Metadata-Token": token} if token else {}
        url = f"{self.metadata_service}/openstack/latest/securitykey"
        request = Request("GET", url, headers, timeout=METADATA_TIMEOUT)
        retrying_request = context.retrying_request(
            "GetSecurityKey", "this server's agency", self.metadata_service, (token or "",), explain=_missing_agency
        )
        return (yield from retrying_request.run(lambda: request, _read_security_key))


def _read_security_key(response: Response) -> tuple[Authorizer, float]:
    # The margin is fixed: the service renews the key itself, well before it expires.
    key, expiry = read_key(response)
    return key, expiry - base.RENEWAL_MARGIN


def _missing_agency(response: Response) -> errors.ModelArtsError | None:
    """Return the error of a server without an agency: the metadata service answers 401 and names the agency."""
    if response.status != 401 or not any(word in response.body.lower() for word in (b"agency", "委托".encode())):
        return None
    return errors.ModelArtsAuthenticationError(f"{NO_AGENCY}.", http_status=response.status, operation="GetSecurityKey")


def _with_cause(error: errors.ModelArtsError, token: str | None, *, is_outage: bool) -> errors.ModelArtsError:
    """Return the error that names why there is no temporary key.

    :param token: the session token that was sent, see ``InstanceAgency._session_token``.
    :param is_outage: whether the metadata service has issued a key before.
    """
    needs_token = token is None and error.http_status == 401
    if is_outage and error.temporary:
        return error

    def caused(kind: type[errors.ModelArtsError], text: str) -> errors.ModelArtsError:
        return kind(text, http_status=error.http_status, operation=error.operation)

    if is_outage and needs_token:
        return caused(
            errors.ModelArtsTransientError,
            "The metadata service requires a token, but did not issue one when asked. Try again later.",
        )
    if error.temporary and error.http_status is None:
        return caused(
            errors.ModelArtsConfigurationError,
            "The metadata service does not answer: auth 'agency' works on an Elastic Cloud Server only, and in a "
            "container there only if the container reaches the service. Choose another auth in the connection's "
            "extras.",
        )
    if needs_token:
        return caused(
            errors.ModelArtsConfigurationError,
            "The metadata service issues no token, and without a token no temporary key. In a container behind another "
            "network hop auth 'agency' does not work: use the host's network, or raise the server's hop limit for "
            "metadata. Elsewhere, give the server an agency that may use ModelArts. Or choose another auth in the "
            "connection's extras.",
        )
    cause = base.without_default_advice(error)
    if error.temporary:
        cause = f"The metadata service answered HTTP {error.http_status} and gave none."
    return caused(errors.ModelArtsAuthenticationError, f"{NO_AGENCY}. ({cause})")
