"""The import contracts hold, and each of them really catches what it forbids."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("tools", "policies", "workflows", "worker", "api", "gatehouse_client")
LINT = Path(sys.executable).with_name("lint-imports")


def lint(where: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=300, check=False)


def test_contracts_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages that may be damaged."""
    where = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "pyproject.toml", where)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, where / package, ignore=shutil.ignore_patterns("__pycache__"))
    return where


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("tools/contract.py", "import policies.decision", "Imports point one way"),
        ("policies/decision.py", "import workflows.spec", "Imports point one way"),
        ("workflows/spec.py", "import worker.settings", "Imports point one way"),
        ("worker/settings.py", "import api.lock", "Imports point one way"),
        ("workflows/spec.py", "import sqlalchemy", "import no I/O"),
        ("policies/decision.py", "import httpx", "import no I/O"),
        ("tools/contract.py", "import subprocess", "import no I/O"),
        ("worker/settings.py", "import casbin", "Only policies.engine imports casbin"),
        ("policies/decision.py", "import docker", "Only worker.sandbox imports docker"),
        ("worker/store/ids.py", "import docker", "Only worker.sandbox imports docker"),
        ("gatehouse_client/sse.py", "import tools.contract", "The client stands alone"),
    ],
)
def test_each_contract_catches_its_breach(copy: Path, module: str, line: str, contract: str) -> None:
    target = copy / module
    whole = target.read_text()
    target.write_text(f"{whole}\n{line}\n")
    try:
        done = lint(copy)
    finally:
        target.write_text(whole)
    assert done.returncode != 0, f"{line} in {module} went unnoticed"
    broken = [row for row in done.stdout.splitlines() if row.endswith("BROKEN")]
    assert any(contract in row for row in broken), done.stdout
