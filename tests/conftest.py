"""Fixtures are modules; a fixture used by one folder only stays in that folder's conftest."""

pytest_plugins = [
    "tests.fixtures.store",
    "tests.fixtures.sandbox",
    "tests.fixtures.temporal",
    "tests.fixtures.provider",
    "tests.fixtures.egress",
    "tests.fixtures.s3",
    "tests.fixtures.disk",
]
