"""The sandbox worker, but that names outside lead to a test's servers on loopback, which no setting can do.

`SITES` is a JSON object: `host:port` -> port on loopback. Everything else is the product's own `worker.main`.
"""

import json
import os

from tests.fixtures.egress import leads_to
from worker import main
from worker.sandbox import egress


def sites() -> dict[tuple[str, int], int]:
    """What the test gave."""
    given: dict[str, int] = json.loads(os.environ["SITES"])
    return {(name.partition(":")[0], int(name.partition(":")[2])): port for name, port in given.items()}


if __name__ == "__main__":
    egress.public_targets = lambda: leads_to(sites())
    main.main()
