"""Hosts that are dead, mute or slow, and whom we dial first by what we remember of them."""

from __future__ import annotations

import pytest

from mta.core.route.hosts import (
    BELIEVED,
    GREETING_TIMEOUT,
    HELD,
    MAX_ADDRESSES,
    MAX_HOSTS,
    NOTHING,
    SHARE,
    SHORT,
    SLOW,
    SOONEST,
    TLS_WAIT,
    Candidate,
    Choice,
    HostMemory,
    Peer,
    Rung,
    TlsState,
    choose,
    in_order,
    latest,
)
from mta.core.route.routing import Host

NOW = 1_800_000_000.0
DEAD = NOTHING.failed(NOW, "refused")
FULL, SMALL, CLEAR = Rung.FULL, Rung.SMALL, Rung.CLEAR


def named(*names: str, preference: int = 10) -> list[Host]:
    return [Host(name, 25, preference) for name in names]


def ordered(
    hosts: list[Host],
    memories: dict[str, HostMemory],
    now: float = NOW,
    shunned: tuple[str, ...] = (),
    ranks: dict[str, tuple[bool, int]] | None = None,
) -> list[str]:
    recall = {Peer(name, 25): memory for name, memory in memories.items()}
    dice = iter(range(len(hosts)))
    ranks = {} if ranks is None else ranks
    found = in_order(
        hosts,
        lambda peer: recall.get(peer, NOTHING),
        now,
        lambda: next(dice),
        lambda name: ranks.get(name, (False, 0)),
        lambda name: name in shunned,
    )
    return [host.name for host in found]


def chosen(addresses: list[str], memories: dict[str, HostMemory], now: float = NOW, **how: bool) -> Choice:
    terms = {"required": False, "races": False, "is_alone": True, "may_probe": True} | how
    recall = {Peer("mx", 25, address): memory for address, memory in memories.items()}
    return choose(Host("mx", 25), addresses, lambda peer: recall.get(peer, NOTHING), now, **terms)


def dialled(candidates: list[Candidate]) -> list[tuple[str, ...]]:
    return [each.addresses for each in candidates]


# What happens to a memory


def test_a_host_that_fails_again_and_again_is_probed_after_a_minute_and_then_more_and_more_rarely() -> None:
    memory, now, waits = NOTHING, NOW, []
    for _ in range(12):
        memory = memory.failed(now, "refused")
        waits.append(memory.probe - now)
        now = memory.probe
    assert waits[:4] == [60, 120, 240, 480]
    assert (waits[0], waits[-1]) == (SOONEST, BELIEVED)
    assert (memory.failures, memory.since) == (12, NOW)


def test_a_host_that_answers_is_as_any_other() -> None:
    assert DEAD.failed(NOW, "refused").answered() == NOTHING


def test_where_nobody_else_answered_either_a_host_is_probed_soon() -> None:
    memory = DEAD
    for _ in range(9):
        memory = memory.failed(NOW, "refused")
    assert memory.unsure(NOW).probe == NOW + SOONEST
    assert memory.unsure(NOW).failures == 1
    assert NOTHING.unsure(NOW) == NOTHING


def test_while_somebody_probes_a_host_nobody_else_does() -> None:
    later = DEAD.probe + 1
    assert not DEAD.rests(later)
    assert DEAD.probed(later).rests(later + HELD - 1)
    assert not DEAD.probed(later).rests(later + HELD)  # whoever it was has been cut off


def test_an_address_that_lost_a_race_comes_last_for_a_while_and_is_not_bad() -> None:
    slow = NOTHING.slow(NOW)
    assert slow.rests(NOW + SLOW - 1)
    assert not slow.rests(NOW + SLOW)
    assert not slow.is_bad


def test_an_address_that_loses_the_race_of_its_probe_comes_last_for_as_long_again() -> None:
    later = NOW + SLOW
    assert NOTHING.slow(NOW).probed(later).slow(later + 1).rests(later + SLOW)
    dead = NOTHING.failed(NOW, "refused").failed(NOW, "refused")._replace(probe=NOW + BELIEVED)
    assert dead.slow(NOW + 1) == dead


def test_a_belief_that_is_further_away_than_any_was_written_before_the_clock_was_set_back() -> None:
    assert DEAD.rests(NOW)
    assert not DEAD.rests(NOW - 2 * BELIEVED)
    assert DEAD.is_over(NOW - 3 * BELIEVED)


def test_what_is_known_is_forgotten_when_it_is_of_no_use_any_more() -> None:
    assert not DEAD.is_over(DEAD.probe + BELIEVED - 1)
    assert DEAD.is_over(DEAD.probe + BELIEVED)
    assert NOTHING.is_ordinary
    assert not DEAD.is_ordinary


# TLS


def test_the_first_handshakes_that_fail_make_mail_wait_and_the_next_ones_send_it_in_the_clear() -> None:
    assert NOTHING.rungs(NOW, False) == (FULL, SMALL, CLEAR)
    doubted = NOTHING.unsecured(NOW, "cut", False)
    assert doubted.tls is TlsState.DOUBTED
    assert doubted.rungs(NOW + TLS_WAIT - 1, False) == ()
    assert doubted.unsecured(NOW + 5, "cut", False) == doubted  # another connection that was under way
    assert doubted.rungs(NOW + TLS_WAIT, False) == (FULL, CLEAR)
    clear = doubted.unsecured(NOW + TLS_WAIT, "cut again", False)
    assert (clear.tls, clear.tls_why) == (TlsState.CLEAR, "cut again")
    assert clear.rungs(NOW + TLS_WAIT + BELIEVED - 1, False) == (CLEAR,)


def test_after_six_hours_in_the_clear_one_connection_tries_a_handshake() -> None:
    clear = NOTHING.unsecured(NOW, "no", True)
    later = NOW + BELIEVED
    assert clear.rungs(later, False) == (FULL, SMALL, CLEAR)
    assert clear.tls_probed(later).rungs(later + HELD - 1, False) == (CLEAR,)
    assert clear.tls_probed(later).rungs(later + HELD, False) == (FULL, SMALL, CLEAR)
    assert clear.unsecured(later, "still", False).rungs(later, False) == (CLEAR,)
    assert clear.secured(later, FULL) == NOTHING


def test_what_the_peers_own_tls_says_is_not_waited_for() -> None:
    assert NOTHING.unsecured(NOW, "alert", True).rungs(NOW, False) == (CLEAR,)


def test_a_doubt_that_is_old_is_a_first_time_again() -> None:
    doubted = NOTHING.unsecured(NOW, "cut", False)
    later = NOW + BELIEVED
    assert doubted.rungs(later, False) == (FULL, SMALL, CLEAR)
    assert doubted.unsecured(later, "cut", False).tls is TlsState.DOUBTED


def test_a_peer_that_speaks_tls_12_alone_is_asked_for_it_first_and_for_more_after_six_hours() -> None:
    small = NOTHING.secured(NOW, SMALL)
    assert small.rungs(NOW, False) == (SMALL, FULL, CLEAR)
    assert small.secured(NOW + 100, SMALL) == small
    assert small.rungs(NOW + BELIEVED, False) == (FULL, SMALL, CLEAR)
    assert small.secured(NOW + BELIEVED, SMALL).tls_since == NOW + BELIEVED


def test_who_refuses_mail_in_the_clear_is_asked_for_tls_the_next_time() -> None:
    refused = NOTHING.unsecured(NOW, "no", True).refused_in_the_clear(NOW)
    assert refused.rungs(NOW, False) == (FULL, CLEAR)
    assert refused.unsecured(NOW, "no", False).tls is TlsState.CLEAR
    assert NOTHING.refused_in_the_clear(NOW) == NOTHING


@pytest.mark.parametrize("tls", TlsState)
@pytest.mark.parametrize("age", [0.0, TLS_WAIT, BELIEVED])
def test_where_tls_is_required_nothing_that_is_remembered_leads_into_the_clear(
    tls: TlsState, age: float
) -> None:
    rungs = HostMemory(tls=tls, tls_since=NOW).rungs(NOW + age, True)
    assert set(rungs) == {FULL, SMALL}


# Whom to dial


def test_hosts_come_by_preference_and_equals_by_the_dice() -> None:
    hosts = [*named("c", preference=20), *named("b", "a")]
    assert ordered(hosts, {}) == ["b", "a", "c"]


def test_of_equals_the_one_with_fewer_connections_comes_first() -> None:
    ranks = {"a": (False, 2), "b": (False, 1), "c": (True, 0)}
    assert ordered(named("a", "b", "c"), {}, ranks=ranks) == ["b", "a", "c"]


def test_a_bad_host_comes_last_and_of_several_the_one_that_was_tried_first() -> None:
    older = NOTHING.failed(NOW - 10, "refused")
    assert ordered(named("a", "b", "c"), {"a": DEAD, "b": older}) == ["c", "b", "a"]


def test_one_bad_host_that_is_due_for_a_probe_keeps_its_place_and_no_other_does() -> None:
    later = DEAD.probe
    assert ordered(named("a", "b", "c"), {"a": DEAD, "b": DEAD}, later) == ["a", "c", "b"]


def test_a_host_that_is_shunned_comes_after_all_others() -> None:
    assert ordered(named("a", "b", "c"), {"b": DEAD}, shunned=("a",)) == ["c", "b", "a"]


def test_of_fifty_dead_hosts_each_has_its_turn() -> None:
    hosts = [host for n in range(50) for host in named(f"mx{n}", preference=n)]
    memories: dict[str, HostMemory] = {}
    now, tried = NOW, set[str]()
    for _ in range(14):
        for name in ordered(hosts, memories, now)[:MAX_ADDRESSES]:
            tried.add(name)
            memories[name] = memories.get(name, NOTHING).failed(now, "refused").unsure(now)
        now += 300
    assert len(tried) == 50
    assert len(ordered(hosts, {})) == MAX_HOSTS


def test_of_a_hosts_addresses_two_are_dialled_before_the_next_host_and_the_others_at_the_end() -> None:
    choice = chosen(["1", "2", "3", "4"], {"2": DEAD})
    assert dialled(choice.now) == [("1",), ("3",)]
    assert dialled(latest(choice.late)) == [("4",), ("2",)]
    assert SHARE == 2


def test_a_bad_address_that_is_due_is_probed_with_little_patience_where_there_are_others() -> None:
    later = DEAD.probe
    (probe, other) = chosen(["1", "2"], {"1": DEAD}, later).now
    assert (probe.probe, probe.patience("1")) == ("1", SHORT)
    assert (other.probe, other.patience("2")) == ("", GREETING_TIMEOUT)
    (alone,) = chosen(["1"], {"1": DEAD}, later).now
    assert alone.patience("1") == GREETING_TIMEOUT
    (of_several,) = chosen(["1"], {"1": DEAD}, later, is_alone=False).now
    assert of_several.patience("1") == SHORT


def test_there_is_one_probe_in_an_attempt() -> None:
    choice = chosen(["1", "2", "3"], {"1": DEAD, "2": DEAD}, DEAD.probe)
    assert (dialled(choice.now), dialled(choice.late)) == ([("1",), ("3",)], [("2",)])
    assert dialled(chosen(["1"], {"1": DEAD}, DEAD.probe, may_probe=False).late) == [("1",)]


def test_where_all_are_bad_the_first_has_all_the_time_and_the_others_little() -> None:
    older = NOTHING.failed(NOW - 10, "refused")
    late = latest(chosen(["1", "2"], {"1": DEAD, "2": older}).late)
    assert dialled(late) == [("2",), ("1",)]
    assert [each.patience(each.addresses[0]) for each in late] == [GREETING_TIMEOUT, SHORT]


def test_two_families_race_where_the_source_is_open() -> None:
    both = ["::1", "127.0.0.1", "::2", "127.0.0.2"]
    assert dialled(chosen(both, {}, races=True).now) == [("::1", "127.0.0.1"), ("::2", "127.0.0.2")]
    assert dialled(chosen(["1", "2"], {}, races=True).now) == [("1",), ("2",)]
    raced = chosen(both[:2], {"::1": DEAD}, DEAD.probe, races=True)
    assert [(each.addresses, each.probe) for each in raced.now] == [(("::1", "127.0.0.1"), "::1")]
    assert raced.now[0].patience("::1") == SHORT
    assert raced.now[0].patience("127.0.0.1") == GREETING_TIMEOUT


def test_an_address_whose_tls_is_in_doubt_is_not_dialled_for_a_while() -> None:
    doubted = NOTHING.unsecured(NOW - 10, "cut", False)
    choice = chosen(["1", "2"], {"1": doubted})
    assert (dialled(choice.now), choice.until) == ([("2",)], NOW - 10 + TLS_WAIT)
    assert dialled(chosen(["1", "2"], {"1": doubted}, required=True).now) == [("1",), ("2",)]


def test_who_loses_commands_gets_them_one_by_one_until_that_is_too_old() -> None:
    memory = NOTHING.loses_commands(NOW)
    assert memory.is_stepwise(NOW + BELIEVED - 1)
    assert not memory.is_ordinary
    assert memory.failed(NOW, "refused").answered().secured(NOW, Rung.SMALL).is_stepwise(NOW)
    assert not memory.is_stepwise(NOW + BELIEVED)
    assert not memory.is_stepwise(NOW - 1)  # the clock was set back
    assert memory.is_over(NOW + 2 * BELIEVED)
    assert not NOTHING.is_stepwise(NOW)
