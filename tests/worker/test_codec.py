"""What lies in Temporal is readable with the key alone, in its own run alone, and refused when anything was changed."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload
from temporalio.converter import ActivitySerializationContext, WorkflowSerializationContext

from tests.worker.store.test_keyring import written
from worker import encryption
from worker.codec import ENCODING, KEY, RUN, TENANT, THREAD_BYTES, EncryptingCodec, PayloadRefused, Tenants, owner
from worker.settings import Settings
from worker.store.keyring import new_line, open_given, rotate

WORDS = b'{"said": "nobody else is to read this"}'


def payload(data: bytes = WORDS) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=data)


def in_run(codec: EncryptingCodec, run_id: str) -> EncryptingCodec:
    return codec.with_context(WorkflowSerializationContext("default", run_id))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return written(tmp_path / "keys", new_line())


@pytest.fixture
def codec(keys: Path) -> EncryptingCodec:
    return EncryptingCodec(open_given(keys), "default")


@pytest.mark.parametrize("size", [0, 100, 20_000, THREAD_BYTES + 1])
async def test_a_payload_comes_back_and_shows_nothing_on_the_way(codec: EncryptingCodec, size: int) -> None:
    plain = payload(WORDS + bytes(range(256)) * (size // 256))
    one, two = await codec.encode([plain, plain])
    assert one.metadata["encoding"] == ENCODING
    assert one.data != two.data
    assert WORDS[5:] not in one.SerializeToString()
    assert await codec.decode([one, two]) == [plain, plain]


async def test_a_payload_of_before_encryption_stays_readable_unless_that_is_refused(
    codec: EncryptingCodec, keys: Path
) -> None:
    assert await in_run(codec, "run_1").decode([payload()]) == [payload()]
    strict = in_run(EncryptingCodec(open_given(keys), "default", strict=True), "run_1")
    with pytest.raises(PayloadRefused, match="not encrypted came in run_1"):
        await strict.decode([payload()])
    sealed = await strict.encode([payload()])
    label = payload(b'"open run_1"')
    assert await strict.decode([*sealed, label]) == [payload(), label]


async def test_what_strict_is(tmp_path: Path) -> None:
    found = {(name, plain): encryption.strict(Settings(data=tmp_path, environment=name, plain_payloads=plain))
             for name in ("default", "production") for plain in (None, True, False)}  # fmt: skip
    assert found == {
        ("default", None): False, ("default", True): False, ("default", False): True,
        ("production", None): True, ("production", True): False, ("production", False): True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "readable"),
    [
        (b'"note@1 c1-1"', True),
        (b'"gate write_file call_9fA-2"', True),
        (b'"log-triage 1.2 for olga"', True),
        (b'"log-triage 1.2 for olga@corp.example"', False),
        (b'"Peter Miller"', False),
        (b'"hunter2"', False),
        (b'"note@1 c1-1 for Peter Miller"', False),
        (b'"gate write_file call_9fA-2\\n"', False),
        (b'"open run_1\\u0007"', False),
        (b'"the requester\\nsaid this"', False),
        (b'"' + b"x" * 300 + b'"', False),
        (b'["note@1 c1-1"]', False),
    ],
)
async def test_labels_of_steps_stay_readable_and_nothing_else(
    codec: EncryptingCodec, data: bytes, readable: bool
) -> None:
    [kept] = await in_run(codec, "run_1").encode([payload(data)])
    assert (kept == payload(data)) is readable
    assert await in_run(codec, "run_1").decode([kept]) == [payload(data)]


async def test_each_tenant_has_a_key_of_its_own(codec: EncryptingCodec, keys: Path) -> None:
    codec.tenants.remember("run_1", "acme")
    [sealed] = await in_run(codec, "run_1").encode([payload()])
    assert owner(sealed) == ("acme", "run_1")
    sealed.metadata[TENANT] = b"other"
    with pytest.raises(PayloadRefused, match="run_1"):
        await in_run(codec, "run_1").decode([sealed])


async def test_a_worker_learns_the_tenant_from_a_run_s_input(codec: EncryptingCodec, keys: Path) -> None:
    codec.tenants.remember("run_1", "acme")
    [asked] = await in_run(codec, "run_1").encode([payload()])
    elsewhere = EncryptingCodec(open_given(keys), "default")
    activity = ActivitySerializationContext("default", "1", "look", "sandbox", "run_1", "automation", False)
    assert await elsewhere.with_context(activity).decode([asked]) == [payload()]
    [answered] = await elsewhere.with_context(activity).encode([payload()])
    assert owner(answered) == ("acme", "run_1")


async def test_a_payload_is_good_in_its_own_run_alone(codec: EncryptingCodec, keys: Path) -> None:
    [sealed] = await in_run(codec, "run_1").encode([payload()])
    for run_id in (b"run_2", b""):
        moved = Payload()
        moved.CopyFrom(sealed)
        moved.metadata[RUN] = run_id
        with pytest.raises(PayloadRefused, match="altered"):
            await codec.decode([moved])
    with pytest.raises(PayloadRefused, match="expected"):
        await in_run(codec, "run_2").decode([sealed])
    with pytest.raises(PayloadRefused, match="namespace"):
        await EncryptingCodec(open_given(keys), "another").decode([sealed])


async def test_a_payload_of_no_run_is_not_taken_for_one_of_a_run(codec: EncryptingCodec) -> None:
    [sealed] = await codec.encode([payload()])
    with pytest.raises(PayloadRefused, match="no run"):
        await in_run(codec, "run_1").decode([sealed])


async def test_keys_turn_over_and_one_that_is_gone_takes_its_payloads_along(codec: EncryptingCodec, keys: Path) -> None:
    [old] = await codec.encode([payload()])
    rotate(keys)
    turned = EncryptingCodec(open_given(keys), "default")
    [new] = await turned.encode([payload()])
    assert new.metadata[KEY] != old.metadata[KEY]
    assert await turned.decode([old, new]) == [payload(), payload()]
    assert await codec.decode([new]) == [payload()]
    written(keys, new_line())
    with pytest.raises(PayloadRefused, match="no data key"):
        await EncryptingCodec(open_given(keys), "default").decode([old])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
async def test_whatever_is_changed_is_refused(codec: EncryptingCodec, data: st.DataObject) -> None:
    [sealed] = await codec.encode([payload()])
    field = data.draw(st.sampled_from(["data", KEY, TENANT, RUN]))
    raw = bytearray(sealed.data if field == "data" else sealed.metadata[field])
    at = data.draw(st.integers(0, len(raw)))
    raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    if field == "data":
        unchanged, sealed.data = bytes(raw) == sealed.data, bytes(raw)
    else:
        unchanged, sealed.metadata[field] = bytes(raw) == sealed.metadata[field], bytes(raw)
    if unchanged:
        return
    with pytest.raises(PayloadRefused):
        await codec.decode([sealed])


def test_only_so_many_runs_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.codec._REMEMBERED", 2)
    tenants = Tenants()
    for number in range(3):
        tenants.remember(f"run_{number}", "acme")
    assert [tenants.of(f"run_{number}") for number in range(3)] == ["", "acme", "acme"]
