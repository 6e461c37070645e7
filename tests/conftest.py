"""What every test has: both event loops, and an event log that does not dawdle."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest
import uvloop


def pytest_asyncio_loop_factories(config: pytest.Config) -> dict[str, object]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _swift(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drain waits a quarter of a second for company; tests do not."""
    monkeypatch.setattr("mta.spool.outbox.DRAIN_INTERVAL", 0.0)
    # To read the machine's certificates takes longer than most tests, and no peer here has one of them.
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
