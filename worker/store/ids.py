"""Identifiers: `<prefix>_` and 26 characters (ULID alphabet, lower case) that sort by the time they were made."""

import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_RANDOM_BITS = 80

# Protects `_last`: ids made in one millisecond by one process count upwards, so that they sort in the order made.
_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """A fresh id such as `run_01kb2m...`: 48 bits of milliseconds and 80 random bits.

    Ids of one process sort strictly in the order they were made; ids of several processes by their clocks.
    """
    global _last  # noqa: PLW0603  (the one piece of state this module is about)
    fresh = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
    with _lock:
        # Never behind the last one, also when the clock was stepped back.
        _last = value = max(fresh, _last + 1)
    return f"{prefix}_{encode(value, 26)}"


def encode(value: int, length: int) -> str:
    """`value` in Crockford's base 32, lower case, exactly `length` characters (higher digits are dropped)."""
    pairs = [_PAIRS[value >> shift & 1023] for shift in range(10 * ((length + 1) // 2 - 1), -1, -10)]
    return "".join(pairs)[-length:]
