"""What tests of all checks share: what a check says of an answer."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return what a check prints of an answer."""

    def say(check: Callable[[Any], None], answer: Any) -> str:
        check(answer)
        return capsys.readouterr().out.strip()

    return say


@pytest.fixture
def assert_mistake(say: Callable[..., str]) -> Callable[..., None]:
    """Check that an answer is wrong, and is told so in these words."""

    def assert_mistake(check: Callable[[Any], None], answer: Any, words: str) -> None:
        said = say(check, answer)
        assert said.startswith("Not yet: ")
        assert words in said

    return assert_mistake
