"""Log lines: JSON, with ids, without secrets; run in a process of its own, as the configuration is the process's."""

import json
import subprocess
import sys

PROGRAM = """
import logging, structlog
from policies.redaction import Redactor
from worker import telemetry

telemetry.configure("INFO", process="test", redacts=Redactor(["held-by-this-process"]))
structlog.stdlib.get_logger("ours").info("started", run="run_1", key="sk-proj-abcdefghijklmnopqrstuvwx")
telemetry.bind_call("c1-1")
logging.getLogger("theirs").warning("with %s inside", "held-by-this-process")
try:
    raise ValueError("password=hunter2hunter2")
except ValueError:
    structlog.stdlib.get_logger("ours").exception("fell over")
logging.getLogger("httpx").info("chatter")
"""


def test_every_line_is_json_with_ids_and_without_secrets() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    first, second, third = (json.loads(line) for line in done.stderr.splitlines())
    assert (first["event"], first["process"], first["logger"], first["level"]) == ("started", "test", "ours", "info")
    assert first["run"] == "run_1"
    assert len(first["trace"]) == 32
    assert first["key"] == "[redacted]"
    assert (second["event"], second["call"]) == ("with [redacted] inside", "c1-1")
    assert "ValueError" in third["exception"]
    assert "hunter2" not in done.stderr
