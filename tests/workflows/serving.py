"""The product's own runs worker, for tests that kill its process: imported once, forked quickly."""

import asyncio
import importlib
from datetime import timedelta

from worker import main
from worker.settings import Settings

# What the worker imports late, so that a process forked from here imports nothing any more.
for _late in ("worker.activities.rules", "worker.policy", "worker.storage", "workflows.automation"):
    importlib.import_module(_late)


def runs(settings: Settings) -> None:
    """Serve the runs queue until killed. Runs of a killed worker wait for it for a second instead of three."""
    main.STICKY = timedelta(seconds=1)
    asyncio.run(main.serve("runs", settings))
