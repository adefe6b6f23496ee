"""The fixture of these tests."""

from __future__ import annotations

import pytest

from tests.support.credentials import Process


@pytest.fixture
def process() -> Process:
    return Process()
