"""The fixtures of these tests, see ``tests/support``."""

from tests.support.fixtures import (  # noqa: F401
    airflow_variables,
    emulator,
    fresh_rate_limiters,
    fresh_token_cache,
    pauses,
    said,
    server,
    set_connection,
    task_duration,
    usual_connection,
)
