"""The random choices of a fuzzing case: from a seeded generator, or from the input of a coverage-guided fuzzer."""

import random
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Draws(Protocol):
    """A source of choices."""

    def below(self, bound: int) -> int:
        """Return a number from 0 to ``bound`` - 1."""

    def raw(self, length: int) -> bytes:
        """Return at most that many bytes."""


class Seeded:
    """Choices from a seeded generator, so that a case can be repeated.

    :param seed: the seed of the whole run.
    :param number: the number of the case in the run.
    """

    def __init__(self, seed: int, number: int) -> None:
        source = random.Random((seed << 40) + number)
        self._random, self.raw = source.random, source.randbytes

    def below(self, bound: int) -> int:
        return int(self._random() * bound)


class Guided:
    """Choices from a fuzzer's input.

    :param provider: an ``atheris.FuzzedDataProvider``.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    def below(self, bound: int) -> int:
        number: int = self._provider.ConsumeIntInRange(0, bound - 1)
        return number

    def raw(self, length: int) -> bytes:
        taken: bytes = self._provider.ConsumeBytes(length)
        return taken


def pick(draws: Draws, choices: Sequence[T]) -> T:
    """Return one of the choices; a repeated choice is more probable."""
    return choices[draws.below(len(choices))]


def one_in(draws: Draws, bound: int) -> bool:
    """Return True once in ``bound`` times."""
    return draws.below(bound) == 0
