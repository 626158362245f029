"""How many requests a key, a tenant and an address without a valid key may send. Counted in this process: two API
processes let through twice as much.

Sliding windows, so that the turn of a minute lets no double burst through.
"""

import math
import time

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.errors import Refused


class Rates:
    """The limits of one API process. Written as `600/minute`, `20 per second`; "" lifts a limit."""

    def __init__(self, *, key: str, tenant: str, unknown: str) -> None:
        """Raises ValueError for a limit that cannot be read."""
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._limits = {"key": _limit(key), "tenant": _limit(tenant), "address": _limit(unknown)}

    def count(self, **who: str) -> None:
        """Count one request for each of `key`, `tenant`, `address` given. Raises Refused 429 with `Retry-After` when
        one of them has used up its share."""
        for what, name in who.items():
            limit = self._limits[what]
            if limit is not None and not self._limiter.hit(limit, what, name):
                raise self._refused(limit, what, name)

    def _refused(self, limit: RateLimitItem, what: str, name: str) -> Refused:
        reset = self._limiter.get_window_stats(limit, what, name).reset_time
        wait = max(1, math.ceil(reset - time.time()))
        return Refused(
            429,
            "rate_limited",
            f"this {what} may send {limit.amount} requests in {limit.get_expiry()} s",
            remedy=f"try again in {wait} s",
            headers={"Retry-After": str(wait)},
        )


def _limit(text: str) -> RateLimitItem | None:
    return parse(text) if text else None
