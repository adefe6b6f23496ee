"""The rows of the fault matrix as data: what fails, how long, and the expected outcome."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.control.fault_queue import Faults
from airflow_modelarts.testing.emulator.control.faults import Fault as ServiceFault
from tests.support import fault_proxy as proxy
from tests.support.certificates import LOOPBACK, server_context
from tests.support.fault_proxy import ConnectionFault, FaultProxy, ProxyRoute

#: How many calls meet a temporary fault: more than one poke of the sensor makes.
CALLS = 3
#: Seconds that a fault lasts after its first call, where the end cannot be counted in calls.
SECONDS = 4.0
CLOCK_SKEW = timedelta(minutes=20)
WEB_PAGE = {"Content-Type": "text/html"}


@dataclass
class Servers:
    """The servers that faults are injected into.

    :param emulator: the service.
    :param skewed: a service whose clock is wrong.
    :param trap: a service that must never be called.
    :param folder: for certificates.
    """

    emulator: EmulatorServer
    skewed: EmulatorServer
    proxy: FaultProxy
    trap: ProxyRoute
    folder: Path


@dataclass
class InjectedFault:
    """A fault that one case will meet.

    :param host: of the case's connection.
    :param service: the emulator that receives the requests.
    :param extra: additional extras of the case's connection.
    :param route: the route through the proxy, where the fault is in the network.
    :param fault: the fault of the emulator, where the fault is in the service.
    :param lasts_seconds: whether the fault ends by time: the case must restore the route.
    :param counts_calls: whether the route counts its calls.
    """

    host: str
    service: EmulatorServer
    extra: dict[str, Any] = field(default_factory=dict)
    route: ProxyRoute | None = None
    fault: ServiceFault | None = None
    lasts_seconds: bool = False
    counts_calls: bool = True

    @property
    def hits(self) -> int | None:
        """How many calls have met the fault; None where they cannot be counted."""
        if self.fault is not None:
            return self.fault.hits
        return self.route.hits if self.route is not None and self.counts_calls else None

    @property
    def is_over(self) -> bool:
        """Whether the next call will succeed."""
        if self.route is not None:
            return self.route.is_restored
        return self.fault is None or (self.fault.times is not None and self.fault.times <= 0)


Inject = Callable[[Servers, str], InjectedFault]


def in_the_network(fault: ConnectionFault | None, times: int | None = CALLS) -> Inject:
    """Return a network fault that ``times`` connections meet."""

    def inject(servers: Servers, project_id: str) -> InjectedFault:
        route = servers.proxy.open(servers.emulator.url, fault, times=times)
        return InjectedFault(route.url, servers.emulator, route=route)

    return inject


def refused(servers: Servers, project_id: str) -> InjectedFault:
    """Inject a port that refuses connections for some seconds."""
    route = servers.proxy.refuse(servers.emulator.url)
    return InjectedFault(route.url, servers.emulator, route=route, lasts_seconds=True, counts_calls=False)


def slow(servers: Servers, project_id: str) -> InjectedFault:
    """Inject answers of one byte a second for some seconds."""
    route = servers.proxy.open(servers.emulator.url, proxy.trickle)
    return InjectedFault(route.url, servers.emulator, route=route, lasts_seconds=True)


def by_tls(
    subject: x509.GeneralName = LOOPBACK, days: int = 1, *, trusted: bool, fault: ConnectionFault | None
) -> Inject:
    """Return the use of a certificate, valid or invalid."""

    def inject(servers: Servers, project_id: str) -> InjectedFault:
        folder = servers.folder / project_id
        folder.mkdir()
        context, file = server_context(folder, subject=subject, valid_for=timedelta(days=days))
        route = servers.proxy.open(servers.emulator.url, fault, tls=context)
        return InjectedFault(route.url, servers.emulator, {"verify": str(file)} if trusted else {}, route)

    return inject


def in_the_service(
    add_fault: Callable[..., ServiceFault], times: int | None = CALLS, *, by_password: bool = False, **fields: Any
) -> Inject:
    """Return a fault of the emulator for the calls of one project.

    :param add_fault: a method of the emulator's ``Faults``.
    :param by_password: whether the connection has an IAM user's password instead of an access key.
    """

    def inject(servers: Servers, project_id: str) -> InjectedFault:
        fault = add_fault(servers.emulator.faults, times=times, path=project_id, **fields)
        extra = {"auth": "password"} if by_password else {}
        return InjectedFault(servers.emulator.url, servers.emulator, extra, fault=fault)

    return inject


def redirected(servers: Servers, project_id: str) -> InjectedFault:
    """Inject redirects to a service that must never be called."""
    fault = servers.emulator.faults.redirect(f"{servers.trap.url}/v2/", times=None, path=project_id)
    return InjectedFault(servers.emulator.url, servers.emulator, fault=fault)


def skewed(servers: Servers, project_id: str) -> InjectedFault:
    """Inject a service whose clock is wrong."""
    return InjectedFault(servers.skewed.url, servers.skewed)


def nameless(servers: Servers, project_id: str) -> InjectedFault:
    """Inject a host name that does not exist."""
    return InjectedFault("https://modelarts.invalid", servers.emulator)


@dataclass(frozen=True)
class Fault:
    """A row of the matrix.

    :param error: the error that fails the Airflow task at once; empty if the task waits until the fault is over.
    :param advice: the advice that the log must then contain.
    :param created: the expected number of processing tasks after a create; None for one, or none after an error.
    """

    name: str
    inject: Inject
    error: str = ""
    advice: str = ""
    created: int | None = None

    @property
    def tasks_created(self) -> int:
        """The expected number of processing tasks after a create."""
        return (0 if self.error else 1) if self.created is None else self.created


AUTHENTICATION, CONFIGURATION = "ModelArtsAuthenticationError", "ModelArtsConfigurationError"
REQUEST, NOT_FOUND = "ModelArtsRequestError", "ModelArtsNotFoundError"
CHECK_CREDENTIALS = "Check the credentials of the connection"
CHECK_CONNECTION = "Check the connection: host must be the ModelArts endpoint"
SET_VERIFY = "Set the verify extra of the connection"
HTML = "<html>out of order</html>"


def answer(faults: Faults, status: int, **match: Any) -> ServiceFault:
    """Answer with a web page, as a broken gateway does."""
    return faults.answer(status, HTML, WEB_PAGE, **match)


FAULTS = (
    Fault("none", in_the_network(None)),
    Fault("none, TLS of an own authority", by_tls(trusted=True, fault=None)),
    # Of the network
    Fault("refused", refused),
    Fault("reset before the request", in_the_network(proxy.reset_before)),
    Fault("reset after the request", in_the_network(proxy.reset_after)),
    Fault("504 after the service acted", in_the_network(proxy.time_out_after)),
    Fault("black hole", in_the_network(proxy.black_hole)),
    Fault("one byte a second", slow),
    Fault("cut connection", in_the_network(proxy.cut)),
    Fault("cut JSON", in_the_service(Faults.malformed, form="truncated_json")),
    Fault("empty answer", in_the_service(Faults.malformed, form="empty")),
    Fault("web page with status 200", in_the_service(Faults.malformed, form="html")),
    Fault("JSON of the wrong content type", in_the_service(Faults.malformed, 1, form="wrong_content_type")),
    # Of the service, temporary
    Fault("429", in_the_service(Faults.throttle)),
    Fault("429 with Retry-After", in_the_service(Faults.throttle, retry_after=2)),
    Fault("500", in_the_service(answer, status=500)),
    Fault("501", in_the_service(answer, status=501)),
    Fault("502", in_the_service(answer, status=502)),
    Fault("503", in_the_service(answer, status=503)),
    Fault("504", in_the_service(answer, status=504)),
    Fault("409 busy", in_the_service(Faults.refuse, code="ModelArts.4704", status=409)),
    Fault("401 once, a token", in_the_service(Faults.expire_token, times=1, by_password=True)),
    # Permanent. A create whose answer cannot be read has still created a task.
    Fault("gzip bomb", in_the_network(proxy.gzip_bomb, None), REQUEST, "sent more than this client takes", 1),
    Fault("100 MB", in_the_network(proxy.flood, None), REQUEST, "sent more than this client takes", 1),
    Fault("401, an access key", in_the_service(Faults.expire_token, None), AUTHENTICATION, CHECK_CREDENTIALS),
    Fault(
        "401, a token", in_the_service(Faults.expire_token, None, by_password=True), AUTHENTICATION, CHECK_CREDENTIALS
    ),
    Fault("403", in_the_service(Faults.refuse, None, code="APIGW.0302"), AUTHENTICATION, CHECK_CREDENTIALS),
    Fault("404", in_the_service(Faults.refuse, None, code="ModelArts.4700", status=404), NOT_FOUND, "Check the id"),
    Fault("404, a web page", in_the_service(answer, None, status=404), CONFIGURATION, CHECK_CONNECTION),
    Fault("409", in_the_service(answer, None, status=409), REQUEST, "Change the request"),
    Fault(
        "no such project", in_the_service(Faults.refuse, None, code="ModelArts.0210"), CONFIGURATION, CHECK_CONNECTION
    ),
    Fault("redirect to another host", redirected, CONFIGURATION, "a redirect, which a signed request must not follow"),
    Fault("clock 20 minutes off", skewed, AUTHENTICATION, "clock is 20 minutes behind: set it"),
    Fault("DNS gone", nameless, CONFIGURATION, "its host name does not exist"),
    Fault("certificate of an unknown authority", by_tls(trusted=False, fault=proxy.pass_on), CONFIGURATION, SET_VERIFY),
    Fault(
        "certificate of another host",
        by_tls(x509.DNSName("modelarts.example.com"), trusted=True, fault=proxy.pass_on),
        CONFIGURATION,
        "Check the host of the connection",
    ),
    Fault("expired certificate", by_tls(days=-1, trusted=True, fault=proxy.pass_on), CONFIGURATION, "renewed"),
)
