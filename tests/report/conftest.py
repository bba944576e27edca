"""What a person sees who moves the controls of a figure."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], list[Any]]:
    """Runs a module's `show` as a person's notebook does: the list holds its controls, then each picture drawn anew, as PNG."""

    def watched(module: ModuleType) -> list[Any]:
        shown: list[Any] = []

        class Picture:
            def update(self, image: Any) -> None:
                shown.append(image.data)

        def display(value: Any, display_id: bool = False) -> Any:
            return Picture() if display_id else shown.append(value)

        monkeypatch.setattr(module, "display", display)
        monkeypatch.setattr(module, "is_interactive", lambda: True)
        return shown

    return watched
