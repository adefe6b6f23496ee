"""Fuzzing with millions of cases: ``python -m tests.security.fuzz --answers 1000000 --requests 100000 --seed 1``.

Calls and lists get random answers, the emulator gets random requests, and signatures are compared with the vendor's. It
prints the outcomes. At the first unexpected error it exits with 1 and prints the command that repeats the case.
"""

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from tests.security import flows, signatures
from tests.security.draws import Draws, Seeded
from tests.security.emulated import Emulated

#: Runs one case; yields an outcome for each answer, request or signature.
RunCase = Callable[[Draws], Iterator[str]]
#: Seconds between two progress messages.
PROGRESS = 30.0


@dataclass
class Tally:
    """The outcomes of one kind of case.

    :param done: the number of answers, requests or signatures.
    :param outcomes: the number of cases by outcome.
    """

    name: str
    done: int = 0
    cases: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """Return a line of totals, and one line for each outcome."""
        rate = self.done / self.seconds if self.seconds else 0.0
        head = f"{self.name}: {self.done:,} in {self.cases:,} cases, {self.seconds:.1f} s, {rate:,.0f} a second"
        return [head, *(f"  {number:>10,}  {outcome}" for outcome, number in self.outcomes.most_common())]


class FoundError(Exception):
    """A case that failed.

    :param kind: the kind of the case.
    :param number: its number in the run.
    """

    def __init__(self, kind: str, number: int) -> None:
        super().__init__(kind, number)
        self.kind, self.number = kind, number


def answers_of(draws: Draws) -> Iterator[str]:
    """Run a call, or sometimes a whole list."""
    case = flows.one_list(draws) if draws.below(4) == 0 else flows.one_call(draws)
    yield case.outcome
    yield from [""] * (case.answers - 1)  # each answer counts, but a case has one outcome


def signature_of(draws: Draws) -> Iterator[str]:
    """Check a signature."""
    yield signatures.one_signature(draws)


def requests_of(emulated: Emulated) -> RunCase:
    """Return the function that sends the requests of a case to an emulator."""
    return lambda draws: iter([sent.outcome for sent in emulated.some_requests(draws)])


def run(name: str, run_case: RunCase, wanted: int, seed: int, *, only: int | None = None) -> Tally:
    """Run cases until the number of answers, requests or signatures is reached.

    :param only: the number of the only case to run.
    :raises FoundError: a case failed; its exception is the cause.
    """
    tally = Tally(name)
    started = shown = time.perf_counter()
    for number in count() if only is None else [only]:
        if tally.done >= wanted and only is None:
            break
        try:
            outcomes = list(run_case(Seeded(seed, number)))
        except Exception as error:
            raise FoundError(name, number) from error
        tally.cases += 1
        tally.done += len(outcomes)
        tally.outcomes.update(filter(None, outcomes))
        if (now := time.perf_counter()) - shown > PROGRESS:
            shown = now
            print(f"  {name}: {tally.done:,} …", file=sys.stderr, flush=True)
    tally.seconds = time.perf_counter() - started
    return tally


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _options(arguments)
    with Emulated() as emulated:
        kinds: dict[str, tuple[RunCase, int]] = {
            "answers": (answers_of, options.answers),
            "requests": (requests_of(emulated), options.requests),
            "signatures": (signature_of, options.signatures),
        }
        if options.only:
            kinds = {options.only[0]: kinds[options.only[0]]}
        print(f"seed {options.seed}")
        for name, (run_case, wanted) in kinds.items():
            try:
                tally = run(name, run_case, wanted, options.seed, only=int(options.only[1]) if options.only else None)
            except FoundError as found:
                traceback.print_exception(found.__cause__, file=sys.stdout)
                print(f"\nAgain: python -m tests.security.fuzz --seed {options.seed} --only {name} {found.number}")
                return 1
            print(*tally.lines(), sep="\n", flush=True)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.security.fuzz", description="Fuzz the client and emulator.")
    parser.add_argument("--answers", type=int, default=50_000, help="answers to calls (default 50000)")
    parser.add_argument("--requests", type=int, default=5_000, help="requests to the emulator (default 5000)")
    parser.add_argument("--signatures", type=int, default=5_000, help="signatures (default 5000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the run (default 1)")
    parser.add_argument("--only", nargs=2, metavar=("KIND", "NUMBER"), help="repeat one case")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
