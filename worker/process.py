"""How every long-lived process of ours serves until a signal, and how it ends."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import NoReturn

import structlog


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set from here on, instead of what they did."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def run(
    serving: Coroutine[None, None, None], log: structlog.stdlib.BoundLogger, *,
    fault: str = "cannot go on", plain: tuple[type[Exception], ...] = (),
) -> NoReturn:  # fmt: skip
    """Serve, then end the process: status 0 when `serving` returns, 1 when it raises, which is logged as `fault`.
    Exceptions in `plain` say all there is to say: they are logged as one line."""
    status = 1
    try:
        asyncio.run(serving)
        status = 0
    except SystemExit:  # uvicorn's word for a taken port; it has said so
        pass
    except plain as error:
        log.error(fault, reason=str(error))  # noqa: TRY400  (the reason names file or address)
    except Exception:
        log.exception(fault)
    leave(status)


def leave(status: int) -> NoReturn:
    """End the process without winding the interpreter down: meanwhile the Temporal SDK's threads may abort it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
