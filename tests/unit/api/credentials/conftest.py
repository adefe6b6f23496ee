"""The fixture of these tests."""

import pytest

from tests.support.credentials import Process


@pytest.fixture
def process() -> Process:
    return Process()
