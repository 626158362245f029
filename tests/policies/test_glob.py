"""The pattern language agrees with a plain regular expression, and stays fast on what makes those slow."""

import re
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.glob import any_glob, glob


@settings(deadline=None)
@given(name=st.text("ab_-.", max_size=12), pattern=st.text("ab_-.*?", max_size=8))
def test_agrees_with_a_regular_expression(name: str, pattern: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern)
    assert glob(name, pattern) is bool(re.fullmatch(expression, name, re.DOTALL))


def test_anchored_at_both_ends() -> None:
    assert not glob("xread_file", "read_*")
    assert not glob("read_filex", "read_file")
    assert not any_glob("read_file", ())


def test_no_blow_up() -> None:
    started = time.thread_time()
    assert not glob("a" * 2000, "*a" * 30 + "b")
    assert time.thread_time() - started < 10  # a blow-up would take years
