"""The policy: what follows from settings, and what of it a running daemon cannot take."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from mta.config import providers
from mta.config.document import Problem, SettingsError
from mta.config.policy import FIXED, PolicyError, build, fixed
from mta.config.settings import (
    Address,
    AdminSettings,
    Destination,
    Duration,
    Endpoint,
    Events,
    HostName,
    IdentitySettings,
    Instance,
    Limits,
    ListenerSettings,
    Sandbox,
    Settings,
    Size,
    SourceSettings,
    SpoolSettings,
    Stream,
    Tls,
)
from mta.core.queue.retry import Schedule

PLAIN = Settings(HostName("out.test"), listeners=())


def test_the_longest_wait_of_a_destination_has_room_for_its_jitter() -> None:
    """A restart brings forward what seems to wait for longer than anything may."""
    default = replace(PLAIN.destinations["default"], retry_max=Duration(36_000.0))
    policy = build(replace(PLAIN, destinations={"default": default}))
    latest = Schedule().at_least(Schedule(0.0, 36_000.0)).due(30, 0.0, 1e9, 0.999)
    assert latest is not None
    assert 36_000.0 < latest <= policy.longest_wait


def test_mail_of_a_stream_that_is_no_more_is_tried_again_all_the_same() -> None:
    policy = build(replace(PLAIN, streams={"news": Stream(retry_first=Duration(60.0))}))
    assert policy.schedule("news").first == 60.0
    assert policy.schedule("gone") == Schedule()


def test_a_policy_does_not_change() -> None:
    policy = build(PLAIN)
    with pytest.raises(FrozenInstanceError):
        policy.settings = PLAIN  # type: ignore[misc]


def test_waits_that_forbid_each_other_only_together_are_all_told() -> None:
    settings = replace(
        PLAIN,
        destinations={
            "default": Destination(retry_max=Duration(600.0)),
            "one.test": Destination(retry_first=Duration(900.0)),
            "two.test": Destination(retry_first=Duration(60.0)),
            "three.test": Destination(retry_first=Duration(1200.0)),
        },
    )
    with pytest.raises(PolicyError, match="retry_first is above retry_max") as caught:
        build(settings)
    told = [words.partition(":")[0] for words in str(caught.value).split("; ")]
    assert {"destination one.test", "destination three.test"} <= set(told)
    assert not any(words.startswith("destination two.test") for words in told)


def test_a_stream_that_leaves_from_a_pool_nobody_described_has_no_policy() -> None:
    with pytest.raises(PolicyError, match="nowhere"):
        build(replace(PLAIN, streams={"news": Stream(pool="nowhere")}, sources=_sources()))


def test_the_problems_of_every_file_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> SettingsError:
        return SettingsError([Problem(Path(name), 1, 1, "", "is broken")])

    def profiles(changes: object) -> None:
        raise broken("providers.yaml")

    def rules() -> None:
        raise broken("rules.yaml")

    monkeypatch.setattr(providers, "load", profiles)
    monkeypatch.setattr("mta.config.policy.shipped", rules)
    with pytest.raises(SettingsError) as caught:
        build(PLAIN)
    assert [problem.path.name for problem in caught.value.problems] == ["providers.yaml", "rules.yaml"]


OTHERS = {
    "hostname": {"hostname": HostName("other.test")},
    "instance": {"instance": Instance(3)},
    "listeners": {"listeners": (ListenerSettings(Endpoint("127.0.0.1", 0), "none", "network"),)},
    "tls": {"tls": Tls(Path("/a"), Path("/b"))},
    "spool.path": {"spool": SpoolSettings(Path("/other"))},
    "spool.memory": {"spool": SpoolSettings(memory=Size(1))},
    "events.path": {"events": Events(Path("/other.jsonl"))},
    "identity.secret": {"identity": IdentitySettings(secret=Path("/other.secret"))},
    "admin.bind": {"admin": AdminSettings(Endpoint("127.0.0.1", 1))},
    "admin.socket": {"admin": AdminSettings(socket=Path("/other"))},
    "limits.memory": {"limits": Limits(memory=Size(1))},
    "sandbox": {"sandbox": Sandbox(Path("/sandbox"))},
}


@pytest.mark.parametrize("key", FIXED)
def test_what_only_a_restart_changes_is_named(key: str) -> None:
    other = replace(PLAIN, **OTHERS[key])
    told = fixed(PLAIN, other)
    # These stand in the spool directory where nothing else is said.
    there = ["spool.path", "events.path", "identity.secret", "admin.socket"]
    assert told == (there if key == "spool.path" else [key])


def test_what_a_running_daemon_takes_is_not_named() -> None:
    other = replace(
        PLAIN,
        bare_newlines="normalise",
        streams={"news": Stream()},
        sources=_sources(),
        destinations={"one.test": Destination(connections=1, connections_start=1)},
        limits=Limits(recipients=1),
        spool=SpoolSettings(reserve=Size(1)),
        events=Events(retention=Duration(1.0)),
    )
    assert fixed(PLAIN, other) == []


def _sources() -> dict[str, SourceSettings]:
    return {"one": SourceSettings(Address("127.0.0.2"))}
