"""Fixtures are modules; a fixture used by one folder only stays in that folder's conftest."""

import os
from pathlib import Path

import pytest

pytest_plugins = [
    "tests.fixtures.store",
    "tests.fixtures.sandbox",
    "tests.fixtures.temporal",
    "tests.fixtures.provider",
    "tests.fixtures.egress",
    "tests.fixtures.s3",
    "tests.fixtures.disk",
]


@pytest.fixture(scope="session", autouse=True)
def where(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tells `python -m tests` where the tests' files are."""
    if told := os.environ.get("GATEHOUSE_TEST_WHERE"):
        Path(told).write_text(str(tmp_path_factory.getbasetemp()))
