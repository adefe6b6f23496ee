"""The chain of the vendor's SDK: the first kind of credentials that is set up here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from airflow_modelarts.api import errors
from airflow_modelarts.api.credentials.base import AuthContext, Authorizer, Credentials, TokenCache
from airflow_modelarts.api.credentials.instance_agency import InstanceAgency
from airflow_modelarts.api.credentials.pod_identity import PodIdentity
from airflow_modelarts.api.http import Flow


@dataclass(frozen=True, slots=True)
class Candidate:
    """One kind of credentials in the chain.

    :param kind: its name as ``auth``.
    :param credentials: None if it is not set up here; ``missing`` says what it lacks.
    """

    kind: str
    credentials: Credentials | None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class DefaultChain:
    """The kinds of credentials in the vendor's order.

    A kind whose settings are complete is taken, and its errors are final. Only the metadata service and the endpoint of
    pod identity are taken on trial: the first of them that issues a key is kept for the life of the process.
    """

    candidates: tuple[Candidate, ...]

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets of all kinds that are set up."""
        return tuple(secret for _, credentials in self._usable() for secret in credentials.secrets)

    def identity(self, cache: TokenCache) -> str:
        """Name the kind that was taken, and its identity."""
        if (taken := self._taken(cache)) is None:
            return "none of auth 'default' yet"
        kind, credentials = taken
        return f"auth 'default' took '{kind}': {credentials.identity(cache)}"

    def obtain(self, context: AuthContext, *, refused: Authorizer | None) -> Flow[Authorizer]:
        """Obtain an authorizer from the kind that was taken, or try one after the other.

        :raises ModelArtsError: no kind works; the message says for each what it lacks.
        """
        if (taken := self._taken(context.cache)) is not None:
            return (yield from taken[1].obtain(context, refused=refused))
        failures: dict[str, errors.ModelArtsError] = {}
        usable = list(self._usable())
        for number, (kind, credentials) in enumerate(usable, 1):
            is_last = number == len(usable)
            # The metadata service answers nothing on many machines: what is next should not wait for its retries.
            trial = context if is_last else replace(context, retries=replace(context.retries, attempts=1))
            if isinstance(credentials, InstanceAgency) and not is_last:
                credentials = replace(credentials, rounds=1)
            try:
                return (yield from credentials.obtain(trial, refused=refused))
            except errors.ModelArtsError as error:
                failures[kind] = error
        raise self._none_works(failures)

    def _usable(self) -> list[tuple[str, Credentials]]:
        return [(x.kind, x.credentials) for x in self.candidates if x.credentials is not None]

    def _taken(self, cache: TokenCache) -> tuple[str, Credentials] | None:
        """Return the kind that is certain, or that has issued a key in this process."""
        for kind, credentials in self._usable():
            if not isinstance(credentials, InstanceAgency | PodIdentity) or cache.has(credentials.cache_key):
                return kind, credentials
        return None

    def _none_works(self, failures: dict[str, errors.ModelArtsError]) -> errors.ModelArtsError:
        reasons = " ".join(f"{x.kind}: {failures.get(x.kind) or x.missing}".rstrip(".") + "." for x in self.candidates)
        is_temporary = any(error.temporary for error in failures.values())
        return (errors.ModelArtsTransientError if is_temporary else errors.ModelArtsConfigurationError)(
            f"auth 'default' found no credentials: set up one kind for workers and triggerers. {reasons}"
        )
