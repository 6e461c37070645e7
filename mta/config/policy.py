"""The policy: the settings and all that is read or worked out from them, as one frozen value.

Between: `mta serve` builds the first one, and whoever reloads the next; `daemon` puts it in place; services
    ask `Current` for it, once for each message or round.
Contract: `build` reads the files that come with us, changes nothing, and may run in a thread. What is in a
    policy never changes. One assignment to `Current.policy` is the swap: there is no moment in which half of
    the services have one and half another. `fixed` names what cannot change while we serve; a policy that
    differs there is refused whole. Waits are seconds.
Raises: `SettingsError` from `build` with all that is wrong in our files; `PolicyError`, in its words, for
    what settings, profiles and sources forbid each other.
Why: services that keep slices of the settings each have their own moment of change, and a house between two
    settings is one that nobody has written down. So no service keeps one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mta.config import providers
from mta.config.document import Problem, SettingsError
from mta.config.routes import routes
from mta.config.rules import shipped
from mta.config.settings import Destination, Priority, Settings
from mta.config.sources import sources
from mta.core.answers.rules import RuleSet
from mta.core.limits.window import Window
from mta.core.queue.retry import JITTER, Schedule
from mta.core.route.provider import Match, Provider, Providers
from mta.core.route.routing import Route
from mta.core.route.source import Sources
from mta.core.route.terms import Layer, Resolved, resolve

FIXED: Mapping[str, Callable[[Settings], Any]] = {
    "hostname": lambda settings: settings.hostname,
    "instance": lambda settings: settings.instance,
    "listeners": lambda settings: settings.listeners,
    "tls": lambda settings: settings.tls,
    "spool.path": lambda settings: settings.spool.path,
    "spool.memory": lambda settings: settings.spool.memory,
    "events.path": lambda settings: settings.event_log,
    "identity.secret": lambda settings: settings.secret,
    "admin.bind": lambda settings: settings.admin.bind,
    "admin.socket": lambda settings: settings.control_socket,
    "limits.memory": lambda settings: settings.limits.memory,
    "sandbox": lambda settings: settings.sandbox,
}


class PolicyError(ValueError):
    """No policy follows from these settings, or it cannot be taken now."""


@dataclass(frozen=True)
class Policy:
    """What holds, all of it."""

    settings: Settings
    providers: Providers
    rules: RuleSet
    sources: Sources
    routes: Mapping[str, Route]  # the static ones, by domain
    schedules: Mapping[str, Schedule]  # of retries, by stream
    windows: Mapping[str, Window]  # by stream, of those that may not be delivered at every hour
    lifetimes: Mapping[str, float]  # by stream; all streams are in it
    priorities: Mapping[str, Priority]  # by stream
    default: Layer  # of the terms towards any destination
    profiled: Mapping[str, Resolved]  # the terms towards a provider: what most routes have, and share
    unprofiled: Resolved
    longest_wait: float  # of a retry, unless a peer names a longer time

    def schedule(self, stream: str) -> Schedule:
        """The waits of a stream's mail; mail of one that is no more has the usual ones."""
        return self.schedules.get(stream) or USUAL

    def terms(self, domain: str, match: Match | None) -> Resolved:
        """What holds towards a domain of this provider."""
        own = self.settings.destinations.get(domain)
        if own is None:
            return self.unprofiled if match is None else self.profiled[match.provider.name]
        return _terms(self.default, None if match is None else match.provider, domain, own)


USUAL = Schedule()


class Current:
    """The policy that holds now."""

    __slots__ = ("policy",)

    def __init__(self, policy: Policy) -> None:
        self.policy = policy


def build(settings: Settings) -> Policy:
    """What follows from these settings and the files that come with us."""
    problems: list[Problem] = []
    try:
        profiles = providers.load(settings.providers)
    except SettingsError as error:
        problems += error.problems
    try:
        rules = shipped()
    except SettingsError as error:
        problems += error.problems
    if problems:
        raise SettingsError(problems)
    return derive(settings, profiles, rules)


def derive(settings: Settings, profiles: Providers, rules: RuleSet) -> Policy:
    """The same with profiles and rules in hand."""
    default = Layer("default", settings.destinations["default"])
    _check(settings, profiles, default)
    schedules = {name: Schedule(each.retry_first, each.retry_max) for name, each in settings.streams.items()}
    try:
        leaving = sources(settings)
    except KeyError as error:
        raise PolicyError(f"pools and streams name {error}, which nobody has described") from None
    return Policy(
        settings=settings,
        providers=profiles,
        rules=rules,
        sources=leaving,
        routes=routes(settings.routes, "route", profiles),
        schedules=schedules,
        windows={name: each.hours for name, each in settings.streams.items() if each.hours},
        lifetimes={name: each.expire for name, each in settings.streams.items()},
        priorities={name: settings.priority(name) for name in settings.streams},
        default=default,
        profiled={name: resolve((default, each.layer)) for name, each in profiles.by_name.items()},
        unprofiled=resolve((default,)),
        longest_wait=_longest_wait(settings, profiles, rules, schedules),
    )


def fixed(old: Settings, new: Settings) -> list[str]:
    """The keys in which they differ and which cannot change without a restart."""
    return [key for key, value in FIXED.items() if value(old) != value(new)]


def _terms(default: Layer, profile: Provider | None, domain: str, own: Destination) -> Resolved:
    between = () if profile is None else (profile.layer,)
    return resolve((default, *between, Layer(f"destination {domain}", own)))


def _check(settings: Settings, profiles: Providers, default: Layer) -> None:
    """Layers that are sound alone may forbid each other: a first wait above the last one."""
    wrong = [words for words in map(_complaint, _layered(settings, profiles, default)) if words]
    if wrong:
        raise PolicyError("; ".join(wrong))


def _layered(
    settings: Settings, profiles: Providers, default: Layer
) -> Iterator[tuple[str, Callable[[], Resolved]]]:
    """All combinations that may be wrong, by name."""
    every = list(profiles.by_name.values())
    for each in every:
        yield f"provider {each.name}", partial(resolve, (default, each.layer))
    for domain, own in settings.destinations.items():
        # Who says both waits, or none, is told by himself, or changes nothing.
        some = every if bool(own.retry_first) != bool(own.retry_max) else []
        for profile in (None, *some):
            name = f"destination {domain}" + (f" at provider {profile.name}" if profile else "")
            yield name, partial(_terms, default, profile, domain, own)


def _complaint(layered: tuple[str, Callable[[], Resolved]]) -> str:
    name, resolved = layered
    try:
        resolved()
    except ValueError as error:
        return f"{name}: {error}"
    return ""


def _longest_wait(
    settings: Settings, profiles: Providers, rules: RuleSet, schedules: Mapping[str, Schedule]
) -> float:
    said = (*settings.destinations.values(), *(each.terms for each in profiles.by_name.values()))
    waits = [
        USUAL.maximum,
        *(each.maximum for each in schedules.values()),
        *(each.maximum for each in rules.retries.values()),
        *(max(each.retry_first or 0.0, each.retry_max or 0.0) for each in said),
    ]
    return max(waits) * (1 + JITTER)
