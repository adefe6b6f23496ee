"""Which failures a retry cannot mend: one classification for the retry policy and for ``fail_fast``."""

from __future__ import annotations

import re

from airflow_modelarts.api.arguments import ArgumentError
from airflow_modelarts.api.errors import ModelArtsError

#: The codes with which an answer says that the task failed or was stopped, and not why.
CODES_WITHOUT_REASON = frozenset({"ModelArts.4392", "ModelArts.4393", "ModelArts.4614"})

# They are compiled when they are first used, since DAG files import this module.
_CODE = r"\b[A-Za-z]{2,20}\.[0-9]{4}\b"
# The reference does not list the texts of error_msg. These words are those of its table of errors.
_PERMANENT = (
    r"n[o']t exist|not found|no such|invalid|not valid|illegal|malformed|incorrect|\bwrong\b|n[o']t support|unsupported"
    r"|permission|denied|forbidden|unauthori[sz]ed|not authori[sz]ed|arrears|suspended|quota|\bfull\b|encrypted"
    r"|too (?:large|long|small)|is empty|no (?:valid|label|sample|image)|already exists"
)
_TEMPORARY = (
    r"time[d -]*out|try again|retry|later|temporar|internal|busy|unavailable|sold out|throttl|too many|overload"
    r"|connection|network|unknown error"
)


def is_permanent(error: BaseException) -> bool:
    """Return whether a retry certainly meets the same error.

    That holds for a refused request, a wrong configuration, refused credentials, and a task that does not exist. It
    does not hold for a submission that may have been accepted, since a retry can adopt it.

    :param error: what a call, an operator or a sensor raised. Exceptions outside of ``api`` say it by an attribute
        ``is_permanent``.
    """
    if isinstance(error, ModelArtsError):
        # The base class stands for a call that was never made, because Airflow killed the task.
        return type(error) is not ModelArtsError and not error.temporary and not error.outcome_unknown
    return isinstance(error, ArgumentError) or getattr(error, "is_permanent", False) is True


def is_permanent_reason(error_msg: str | None) -> bool:
    """Return whether the ``error_msg`` of a failed task names a reason that another task of the same request meets too.

    An error code in the text decides, else its words. A text that says neither is no permanent reason.
    """
    from airflow_modelarts.api.error_codes import CODES

    text = error_msg or ""
    kinds = [CODES[code].kind for code in re.findall(_CODE, text) if code in CODES and code not in CODES_WITHOUT_REASON]
    if kinds:
        return not any(kind.temporary for kind in kinds)
    return bool(re.search(_PERMANENT, text, re.IGNORECASE)) and not re.search(_TEMPORARY, text, re.IGNORECASE)
