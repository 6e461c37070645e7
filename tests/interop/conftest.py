"""A table of the clients that were tried, where the run is verbose."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tried = [
        (*dict(report.user_properties)["client"], outcome)
        for outcome in ("passed", "failed", "skipped")
        for report in terminalreporter.stats.get(outcome, ())
        if "client" in dict(report.user_properties)
    ]
    if tried and terminalreporter.verbosity > 0:
        terminalreporter.section("clients")
        for row in sorted(tried):
            terminalreporter.line("{:18}{:11}{:15}{:10}{}".format(*row))
