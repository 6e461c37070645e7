"""Imports go strictly down, and core/ is pure: the house's plan, held by reading its imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the top down. A name is a room, or a module apart from the rest of its room. What stands on one floor
# must not import each other; within one name it may.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("daemon",),
    ("api",),
    ("outbound.scheduler",),
    ("outbound.retries",),
    ("outbound.gate",),
    ("delivery.pool", "outbound.expiry", "outbound.strays"),
    ("delivery.connections", "delivery.lanes"),
    (
        "delivery.lane",
        "delivery.branches",
        "delivery.connect",
        "outbound.explanation",
        "outbound.lookups",
        "intake.submission",
        "sandbox",
    ),
    ("delivery.transactions", "delivery.search"),
    ("delivery.reach",),
    (
        "delivery.router",
        "delivery.contents",
        "delivery.hosts",
        "delivery.traffic",
        "delivery.lookout",
        "intake.admission",
        "intake.authentication",
        "intake.capacity",
        "intake.strangers",
        "outbound.backlog",
        "outbound.clockwatch",
        "outbound.leases",
        "outbound.outcome",
        "events",
        "ops",
    ),
    ("guard",),
    ("spool.verify",),  # of everything durable
    ("signing",),
    ("smtp", "dns", "spool", "store"),
    ("config", "clock", "metrics", "disk"),
    ("core.route", "core.returns"),
    ("core.answers",),
    ("core.check", "core.credential", "core.event"),
    ("core.domain",),
    ("core.mail",),
    ("core.queue",),
    ("core.limits",),
    ("core.model", "core.queueid", "core.networks"),
)
PLACES = {name: floor for floor, names in enumerate(FLOORS) for name in names}
DAEMON_IS_BUILT_BY = {"cli.serve", "cli.quickstart"}

# What a decision may be written with: no input, output, time, dice, threads or logging.
PURE = {
    "__future__", "base64", "binascii", "bisect", "collections", "dataclasses", "datetime", "email", "enum",
    "functools", "hashlib", "heapq", "hmac", "idna", "io", "ipaddress", "itertools", "json", "math",
    "msgspec", "operator", "re", "string", "struct", "types", "typing",
}  # fmt: skip


def modules() -> dict[str, Path]:
    """Our modules by their name below `mta`."""
    found = {}
    for path in sorted((ROOT / "mta").rglob("*.py")):
        parts = path.relative_to(ROOT / "mta").with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            found[name] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Everything that a module imports, anywhere in its text, by full name."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative imports hide where they go"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("mta.") in MODULES else node.module


def place(name: str) -> str | None:
    """The longest name on the floors that the module belongs to."""
    parts = name.split(".")
    return next((n for n in (".".join(parts[:k]) for k in range(len(parts), 0, -1)) if n in PLACES), None)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_floor_and_imports_only_from_below(name: str) -> None:
    ours = [whole for whole in imports(name) if whole.startswith("mta.")]
    if MODULES[name].name == "__init__.py":
        assert not ours, f"{name}: a room's own file holds its sentence and nothing else"
        return
    here = place(name)
    assert here is not None, f"{name} stands on no floor"
    for imported in ours:
        there = place(imported.removeprefix("mta."))
        assert there is not None, f"{name} imports {imported}, which stands on no floor"
        assert here == there or PLACES[here] < PLACES[there], f"{name} must not import {imported}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("core")])
def test_core_only_decides(name: str) -> None:
    foreign = {whole.split(".")[0] for whole in imports(name)} - {"mta"}
    assert foreign <= PURE, f"{name} imports {', '.join(sorted(foreign - PURE))}"


def test_the_floors_name_nothing_that_is_gone() -> None:
    assert {name for name in PLACES if name not in MODULES} == set()


def test_only_the_commands_that_serve_know_the_daemon() -> None:
    assert {name for name in MODULES if "mta.daemon" in imports(name)} == DAEMON_IS_BUILT_BY


@pytest.mark.parametrize("name", MODULES)
def test_only_the_clock_looks_at_time_and_throws_dice(name: str) -> None:
    taken = {"time", "random"} & {whole.split(".")[0] for whole in imports(name)}
    assert not taken or name == "clock", f"{name} imports {', '.join(taken)}"


def test_a_class_name_says_which_class() -> None:
    made: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                made.setdefault(node.name, []).append(name)
    assert {name for name, homes in made.items() if len(homes) > 1} == set()
