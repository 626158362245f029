"""Expressions of fallback rules: strict, bounded, and every mistake an ExpressionError."""

import subprocess
import sys
import time

import pytest
from pydantic import JsonValue

from policies.fallback import THEN_VARIABLES, Expression, ExpressionError, Template, split_template

VALUES: dict[str, JsonValue] = {
    "inputs": {"pattern": "ERROR", "n": 3},
    "files": ["in/app.log", "in/app.log.1"],
    "failure": "no model: 429",
    "results": {
        "found": {"outcome": "succeeded", "data": {"rows": [{"path": "a", "line": 1}, {"path": "b", "line": 2}]}}
    },
}


def value(text: str) -> JsonValue:
    return Expression(text, THEN_VARIABLES).evaluate(VALUES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size(files) > 1 && inputs.pattern == 'ERROR'", True),
        ("files.exists(f, f.endsWith('.log'))", True),
        ("has(inputs.missing) ? inputs.missing : 'none'", "none"),
        ("'pattern' in inputs", True),
        ("inputs.n + 1", 4),
        ("re(failure, '4[0-9]{2}')", True),
        ("join(files, ', ')", "in/app.log, in/app.log.1"),
        ("first(files, 1)", ["in/app.log"]),
        ("pluck(results.found.data.rows, 'path')", ["a", "b"]),
        ("lines(results.found.data.rows, '- {path}:{line}')", "- a:1\n- b:2"),
        ("lines(files, '* {}')", "* in/app.log\n* in/app.log.1"),
        ("{'a': [1, 2.5, null, true]}", {"a": [1, 2.5, None, True]}),
    ],
)
def test_values(text: str, expected: JsonValue) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("inputs.", "syntax"),
        ("", "syntax"),
        ("input.pattern", "unknown variable 'input'"),
        ("system('rm')", "unknown function 'system'"),
        ("files.map(f, f)", "`map` is not available"),
        ("files. // comment\n filter (f, true)", "`filter` is not available"),
        ("failure.matches('a')", "use re(text, pattern)"),
        ("files.all(f, files.exists(g, g == f))", "more than one"),
        ("(" * 41 + "1" + ")" * 41, "nested deeper"),
        ("'" + "x" * 1000 + "'", "longer than 1000"),
    ],
)
def test_refused_when_compiled(text: str, says: str) -> None:
    with pytest.raises(ExpressionError, match=says.replace("(", r"\(").replace(")", r"\)")):
        Expression(text, THEN_VARIABLES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("inputs.missing == 'x'", "no such key 'missing'"),
        ("inputs.n + 'x'", "overload"),
        ("files[9]", "out of bounds"),
        ("1 / 0", "division by zero"),
        ("9223372036854775807 + 1", "overflow"),
        ("b'bytes'", "bytes is not a JSON value"),
        ("re(failure, '(')", "not a regular expression"),
        ("join(failure, ',')", "wants a list"),
        ("pluck(files, 'x')", "no field 'x'"),
        ("re('x')", "missing"),
        ("{1: 2}", "not text"),
    ],
)
def test_refused_when_evaluated(text: str, says: str) -> None:
    with pytest.raises(ExpressionError, match=says):
        value(text)


def test_a_fault_in_our_function_is_not_hidden_by_an_or() -> None:
    with pytest.raises(ExpressionError, match="not a regular expression"):
        value("re(failure, '(') || true")


def test_an_integer_that_cel_would_change_is_refused() -> None:
    with pytest.raises(ExpressionError, match="64 bits"):
        Expression("inputs.big > 1", THEN_VARIABLES).holds({"inputs": {"big": 2**70}})


def test_a_condition_is_true_or_false_and_nothing_else() -> None:
    for text in ("1", "'true'", "null", "files"):
        with pytest.raises(ExpressionError, match="not true or false"):
            Expression(text, THEN_VARIABLES).holds(VALUES)


def test_too_much_data_is_refused_unread() -> None:
    big: dict[str, JsonValue] = {**VALUES, "files": list[JsonValue](["x"]) * 30_000}
    assert Expression("failure != ''", THEN_VARIABLES).holds(big), "only what an expression uses is looked at"
    with pytest.raises(ExpressionError, match="more than"):
        Expression("size(files) > 0", THEN_VARIABLES).holds(big)
    with pytest.raises(ExpressionError, match="more than"):
        Expression("failure != ''", THEN_VARIABLES).holds({"failure": "x" * 2_000_000})


def test_the_slowest_expression_allowed_is_quick() -> None:
    many: dict[str, JsonValue] = {"files": [f"file-{n}" for n in range(19_000)]}
    started = time.thread_time()
    assert not Expression("files.exists(f, f == 'x')", THEN_VARIABLES).evaluate(many)
    assert time.thread_time() - started < 10


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("${inputs.n}", 3),
        ("n=${inputs.n}", "n=3"),
        ("${inputs.n}${inputs.n}", "33"),
        (" ${files}", ' ["in/app.log", "in/app.log.1"]'),
        ("${files}", ["in/app.log", "in/app.log.1"]),
        ("$${inputs.n}", "${inputs.n}"),
        ("$5 {x} $", "$5 {x} $"),
        ("${{'a': '}'}.a}", "}"),
        ({"a": ["${inputs.n}", {"b": "${failure}"}], "${x}": 1}, {"a": [3, {"b": "no model: 429"}], "${x}": 1}),
        ([1, None, True], [1, None, True]),
    ],
)
def test_templates(template: JsonValue, expected: JsonValue) -> None:
    assert Template(template, THEN_VARIABLES).render(VALUES) == expected


def test_a_value_that_looks_like_a_template_is_not_expanded_again() -> None:
    assert Template("${failure}", THEN_VARIABLES).render({"failure": "${inputs.secret}"}) == "${inputs.secret}"


@pytest.mark.parametrize("template", ["${inputs.n", "a ${'}'", "${nope}", "${}"])
def test_broken_templates(template: str) -> None:
    with pytest.raises(ExpressionError):
        Template(template, THEN_VARIABLES)


def test_null_cannot_be_put_into_text() -> None:
    with pytest.raises(ExpressionError, match="null"):
        Template("x ${null}", THEN_VARIABLES).render(VALUES)


def test_split() -> None:
    assert split_template("a${b}c$${d}${e}") == ["a", ("b",), "c${d}", ("e",)]


def test_importing_the_engine_leaves_its_command_line_alone() -> None:
    heavy = "{'typer', 'rich', 'prompt_toolkit', 'cel.cli'}"
    code = f"import sys, policies.fallback; print({heavy} & set(sys.modules) or 'none')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"
