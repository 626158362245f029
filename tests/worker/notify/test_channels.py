"""Promises: a `notify.yaml` with a mistake is refused whole, naming line, field, remedy; notices go where it says."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from worker.notify.channels import NotifyError, Secrets, load
from worker.store.outbox import Notice

GOOD = """\
apiVersion: gatehouse/v1
console: https://gate.example.org
channels:
  - {name: hook, kind: webhook, url: "https://hooks.example.org/x", secret: hook, events: ["*"], tenants: ["*"]}
  - {name: money, kind: email, host: mail.example.org, sender: g@e.org, to: [f@e.org], approvers: [finance-*]}
"""
SECRETS = Secrets({"GATEHOUSE_NOTIFY_SECRET_HOOK": "whsec_c2VjcmV0"})

WRONG = {
    "console: https://gate.example.org": ("console: gate", "console", 2),
    "events: [\"*\"]": ("events: [approvals.*]", "channels.0", 4),
    "secret: hook": ("secret: other", "channels.0.secret", 4),
    "https://hooks.example.org/x": ("https://user:pass@hooks.example.org/x", "channels.0", 4),
    "name: money": ("name: hook", "channels.1.name", 5),
    "to: [f@e.org]": ("to: [nobody]", "channels.1", 5),
    "host: mail.example.org": ("host: mail.example.org, tls: none", "channels.1.tls", 5),
    "kind: email": ("kind: pigeon", "channels.1", 5),
}  # fmt: skip


def write(home: Path, text: str) -> Path:
    (home / "notify.yaml").write_text(text)
    return home


def test_no_file_is_no_channels(tmp_path: Path) -> None:
    assert load(None, SECRETS).channels == ()
    assert load(tmp_path, SECRETS).channels == ()


@pytest.mark.parametrize("found", WRONG)
def test_a_mistake_is_named(tmp_path: Path, found: str) -> None:
    instead, field, line = WRONG[found]
    with pytest.raises(NotifyError) as error:
        load(write(tmp_path, GOOD.replace(found, instead)), SECRETS)
    assert error.value.field.startswith(field), error.value
    assert error.value.line == line
    assert error.value.remedy


def test_notices_go_where_the_file_says(tmp_path: Path) -> None:
    hook, money = load(write(tmp_path, GOOD), SECRETS).channels

    def notice(type_: str, tenant: str = "default", **body: str) -> Notice:
        return Notice(id="x", type=type_, tenant=tenant, body={**body}, created_at=datetime.now(UTC))

    assert hook.takes(notice("run.closed", tenant="other"))
    assert not money.takes(notice("run.closed"))
    assert money.takes(notice("approval.requested", approvers="finance-lead"))
    assert not money.takes(notice("approval.requested", approvers="approver"))
    assert not money.takes(notice("approval.requested", tenant="other", approvers="finance-lead"))
    assert money.takes(notice("switch.set", tenant="-"))
