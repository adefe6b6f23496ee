"""The fault matrix as data: what goes wrong, for how long, and what is to come of it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.control.fault_queue import Faults
from airflow_modelarts.testing.emulator.control.faults import Fault as ServiceFault
from tests.integration.faults import proxy
from tests.integration.faults.proxy import FaultProxy, Spoil, Way
from tests.support.certificates import LOOPBACK, write_certificate

#: How many calls meet a fault that passes: more than one poke of the sensor makes.
CALLS = 3
#: Seconds after the first call that meets it for which a fault lasts that does not count calls.
SECONDS = 4.0
CLOCK_SKEW = timedelta(minutes=20)
WEB_PAGE = {"Content-Type": "text/html"}


@dataclass
class Bench:
    """
    What faults are made of.

    :param emulator: the service.
    :param skewed: another one, whose clock is off.
    :param trap: a service that must never be called.
    :param folder: for certificates.
    """

    emulator: EmulatorServer
    skewed: EmulatorServer
    proxy: FaultProxy
    trap: Way
    folder: Path


@dataclass
class Arranged:
    """
    A fault that is ready for one case.

    :param host: of the case's connection.
    :param extra: of the case's connection, beside the usual ones.
    :param service: which emulator sees the requests that get through.
    :param way: the proxy's part in it.
    :param fault: the emulator's part in it.
    :param ends_by_time: whether somebody must mend the way.
    :param counts: whether the way knows how many calls came.
    """

    host: str
    service: EmulatorServer
    extra: dict[str, Any] = field(default_factory=dict)
    way: Way | None = None
    fault: ServiceFault | None = None
    ends_by_time: bool = False
    counts: bool = True

    @property
    def hits(self) -> int | None:
        """How many calls have met it; None where nobody can count them."""
        if self.fault is not None:
            return self.fault.hits
        return self.way.hits if self.way is not None and self.counts else None

    @property
    def has_passed(self) -> bool:
        """Whether the next call meets it no more."""
        if self.way is not None:
            return self.way.is_mended
        return self.fault is None or (self.fault.times is not None and self.fault.times <= 0)


Arrange = Callable[[Bench, str], Arranged]


def on_the_way(spoil: Spoil | None, times: int | None = CALLS) -> Arrange:
    """Arrange a fault that some connections meet."""

    def arrange(bench: Bench, project_id: str) -> Arranged:
        way = bench.proxy.open(bench.emulator.url, spoil, times=times)
        return Arranged(way.url, bench.emulator, way=way)

    return arrange


def refused(bench: Bench, project_id: str) -> Arranged:
    """Arrange a port on which nobody listens, for some time."""
    way = bench.proxy.refuse(bench.emulator.url)
    return Arranged(way.url, bench.emulator, way=way, ends_by_time=True, counts=False)


def slow(bench: Bench, project_id: str) -> Arranged:
    """Arrange answers of a byte a second, for some time."""
    way = bench.proxy.open(bench.emulator.url, proxy.trickle)
    return Arranged(way.url, bench.emulator, way=way, ends_by_time=True)


def by_tls(subject: x509.GeneralName = LOOPBACK, days: int = 1, *, trusted: bool, spoil: Spoil | None) -> Arrange:
    """Arrange a certificate, right or wrong."""

    def arrange(bench: Bench, project_id: str) -> Arranged:
        folder = bench.folder / project_id
        folder.mkdir()
        file, key_file = write_certificate(folder, subject=subject, valid_for=timedelta(days=days))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file, key_file)
        way = bench.proxy.open(bench.emulator.url, spoil, tls=context)
        return Arranged(way.url, bench.emulator, {"verify": str(file)} if trusted else {}, way)

    return arrange


def in_the_service(
    order: Callable[..., ServiceFault], times: int | None = CALLS, *, by_password: bool = False, **fields: Any
) -> Arrange:
    """
    Arrange a fault of the emulator, for the calls of one project.

    :param order: a shorthand of the emulator's faults.
    :param by_password: whether the caller has an IAM user's password instead of an access key.
    """

    def arrange(bench: Bench, project_id: str) -> Arranged:
        fault = order(bench.emulator.faults, times=times, path=project_id, **fields)
        extra = {"auth": "password"} if by_password else {}
        return Arranged(bench.emulator.url, bench.emulator, extra, fault=fault)

    return arrange


def redirected(bench: Bench, project_id: str) -> Arranged:
    """Arrange redirects to a host that must never be called."""
    fault = bench.emulator.faults.redirect(f"{bench.trap.url}/v2/", times=None, path=project_id)
    return Arranged(bench.emulator.url, bench.emulator, fault=fault)


def skewed(bench: Bench, project_id: str) -> Arranged:
    """Arrange a service whose clock is off."""
    return Arranged(bench.skewed.url, bench.skewed)


def nameless(bench: Bench, project_id: str) -> Arranged:
    """Arrange a host that is in no DNS."""
    return Arranged("https://modelarts.invalid", bench.emulator)


@dataclass(frozen=True)
class Fault:
    """
    A row of the matrix.

    :param error: the error that ends the task at once; empty where the fault is waited out.
    :param advice: what the task's log must say then.
    :param created: processing tasks there must be in the end, where the operator is to create one.
    """

    name: str
    arrange: Arrange
    error: str = ""
    advice: str = ""
    created: int | None = None

    @property
    def tasks_created(self) -> int:
        """Processing tasks there must be after a create."""
        return (0 if self.error else 1) if self.created is None else self.created


AUTHENTICATION, CONFIGURATION = "ModelArtsAuthenticationError", "ModelArtsConfigurationError"
REQUEST, NOT_FOUND = "ModelArtsRequestError", "ModelArtsNotFoundError"
CHECK_CREDENTIALS = "Check the credentials of the connection"
CHECK_CONNECTION = "Check the connection: host must be the ModelArts endpoint"
SET_VERIFY = "Set the verify extra of the connection"
HTML = "<html>out of order</html>"


def answer(faults: Faults, status: int, **match: Any) -> ServiceFault:
    """Answer with a web page, as a proxy or gateway does that is out of order."""
    return faults.answer(status, HTML, WEB_PAGE, **match)


FAULTS = (
    Fault("none", on_the_way(None)),
    Fault("none, TLS of an own authority", by_tls(trusted=True, spoil=None)),
    # Of the way
    Fault("refused", refused),
    Fault("reset before the request", on_the_way(proxy.reset_before)),
    Fault("reset after the request", on_the_way(proxy.reset_after)),
    Fault("504 after the service acted", on_the_way(proxy.time_out_after)),
    Fault("black hole", on_the_way(proxy.black_hole)),
    Fault("one byte a second", slow),
    Fault("cut connection", on_the_way(proxy.cut)),
    Fault("cut JSON", in_the_service(Faults.malformed, form="truncated_json")),
    Fault("empty answer", in_the_service(Faults.malformed, form="empty")),
    Fault("web page with status 200", in_the_service(Faults.malformed, form="html")),
    Fault("JSON of the wrong content type", in_the_service(Faults.malformed, 1, form="wrong_content_type")),
    # Of the service, for a time
    Fault("429", in_the_service(Faults.throttle)),
    Fault("429 with Retry-After", in_the_service(Faults.throttle, retry_after=2)),
    Fault("500", in_the_service(answer, status=500)),
    Fault("501", in_the_service(answer, status=501)),
    Fault("502", in_the_service(answer, status=502)),
    Fault("503", in_the_service(answer, status=503)),
    Fault("504", in_the_service(answer, status=504)),
    Fault("409 busy", in_the_service(Faults.refuse, code="ModelArts.4704", status=409)),
    Fault("401 once, a token", in_the_service(Faults.expire_token, times=1, by_password=True)),
    # For ever; a create that cannot read the answer has created all the same
    Fault("gzip bomb", on_the_way(proxy.gzip_bomb, None), REQUEST, "sent more than this client takes", 1),
    Fault("100 MB", on_the_way(proxy.flood, None), REQUEST, "sent more than this client takes", 1),
    Fault("401, an access key", in_the_service(Faults.expire_token, None), AUTHENTICATION, CHECK_CREDENTIALS),
    Fault(
        "401, a token",
        in_the_service(Faults.expire_token, None, by_password=True),
        AUTHENTICATION,
        CHECK_CREDENTIALS,
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
    Fault("certificate of an unknown authority", by_tls(trusted=False, spoil=proxy.pass_on), CONFIGURATION, SET_VERIFY),
    Fault(
        "certificate of another host",
        by_tls(x509.DNSName("modelarts.example.com"), trusted=True, spoil=proxy.pass_on),
        CONFIGURATION,
        "Check the host of the connection",
    ),
    Fault("expired certificate", by_tls(days=-1, trusted=True, spoil=proxy.pass_on), CONFIGURATION, "renewed"),
)
