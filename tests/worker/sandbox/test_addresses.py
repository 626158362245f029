"""Which addresses a tool may reach, and that a name cannot mean two things."""

from collections.abc import Sequence

import pytest

from worker.sandbox.addresses import NotPublic, Target, Unresolved, is_public, public_targets


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "169.254.0.1", "100.64.0.1", "100.127.255.254", "192.0.0.1", "192.0.0.192", "192.0.2.1",
        "198.18.0.1", "198.51.100.1", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "192.88.99.1", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::ffff:a9fe:a9fe",
        "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
        "ff02::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::", "fec0::1", "100::1", "not an address", "",
    ],
)  # fmt: skip
def test_closed(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450::1"])
def test_public(address: str) -> None:
    assert is_public(address)


class Answers:
    """A resolver that changes its mind."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, _: str) -> Sequence[str]:
        self.asked += 1
        return self.answers.pop(0)


async def test_asks_once_and_gives_addresses_not_names() -> None:
    answers = Answers(["8.8.8.8", "2606:4700:4700::1111"], ["127.0.0.1"])
    assert await public_targets(answers)("a.example.org", 443) == [
        Target("8.8.8.8", 443),
        Target("2606:4700:4700::1111", 443),
    ]
    assert answers.asked == 1


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["8.8.8.8", "169.254.169.254"], ["::ffff:10.0.0.1", "8.8.8.8"]])
async def test_one_closed_address_spoils_the_name(answer: list[str]) -> None:
    with pytest.raises(NotPublic):
        await public_targets(Answers(answer))("a.example.org", 443)


async def test_no_answer_is_unresolved() -> None:
    async def fails(host: str) -> Sequence[str]:
        raise OSError("NXDOMAIN")

    for lookup in (fails, Answers([])):
        with pytest.raises(Unresolved):
            await public_targets(lookup)("a.example.org", 443)


async def test_the_machines_own_names_are_closed() -> None:
    """With the real resolver."""
    with pytest.raises(NotPublic):
        await public_targets()("localhost", 443)
