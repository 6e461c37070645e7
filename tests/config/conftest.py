"""What the tests of settings files share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mta.config.document import SettingsError
from mta.config.load import load

PLAIN = "hostname: mail.example.com\nlisteners: []\n"


@pytest.fixture
def told(tmp_path: Path) -> Callable[[str], list[str]]:
    """The problems of settings with these lines behind two that are sound."""
    path = tmp_path / "mta.yaml"

    def told(text: str) -> list[str]:
        path.write_text(PLAIN + text, encoding="utf-8")
        with pytest.raises(SettingsError) as caught:
            load(path)
        return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]

    return told
