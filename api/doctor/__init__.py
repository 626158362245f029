"""`gatehouse doctor`: how everything the system needs is, and the remedy. Leaves nothing behind."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from api.doctor import auditing, definitions, installation, machine, sealed, system
from api.doctor.finding import Finding, fail
from worker.settings import Settings

Check = Callable[[Settings], list[Finding]]
CHECKS: tuple[Check, ...] = (
    machine.python,
    machine.packages,
    machine.disk,
    system.engine,
    system.temporal,
    system.running,
    installation.store,
    installation.keys,
    auditing.examine,
    sealed.data_keys,
    sealed.artifacts,
    definitions.examine,
    definitions.notify,
    installation.models,
)


def examine(settings: Settings) -> list[Finding]:
    """Every finding, in a fixed order; a check that breaks is itself a finding."""

    def one(check: Check) -> list[Finding]:
        try:
            return check(settings)
        except Exception as error:  # noqa: BLE001  the doctor must not die of the disease
            detail = f"{type(error).__name__}: {error}"
            return [fail(check.__name__, detail, "this check itself failed; please report it with this line")]

    with ThreadPoolExecutor() as pool:
        return [finding for found in pool.map(one, CHECKS) for finding in found]


__all__ = ["Finding", "examine"]
