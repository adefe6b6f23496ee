"""Short runs of ``python -m tests.security.fuzz`` and ``python -m tests.security.guided``."""

import pytest

from tests.security import fuzz, guided
from tests.security.emulated import Emulated

SEED = 20260131


def test_random_answers_raise_only_modelarts_errors() -> None:
    tally = fuzz.run("answers", fuzz.answers_of, 50_000, SEED)
    assert tally.done >= 50_000
    # Cases with a single outcome would prove nothing.
    assert tally.outcomes["returned"] > tally.cases / 10
    assert len(tally.outcomes) == 9, tally.outcomes


def test_random_requests_get_a_valid_answer_of_the_emulator() -> None:
    with Emulated() as emulated:
        tally = fuzz.run("requests", fuzz.requests_of(emulated), 5_000, SEED)
    assert tally.done >= 5_000
    assert tally.outcomes["200"] > tally.done / 10
    assert {"200", "201", "400", "401", "403", "404", "422"} <= set(tally.outcomes)


def test_random_signatures_equal_the_vendors_and_fit_one_request_only() -> None:
    assert fuzz.run("signatures", fuzz.signature_of, 1_000, SEED).outcomes == {"agreed": 1_000}


def test_a_failed_case_is_printed_with_the_command_that_repeats_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(draws: fuzz.Draws) -> None:
        raise KeyError(draws.below(10))

    monkeypatch.setattr(fuzz, "signature_of", broken)
    assert fuzz.main(["--answers", "0", "--requests", "0", "--seed", "7"]) == 1
    printed = capsys.readouterr().out
    assert "KeyError" in printed
    assert "python -m tests.security.fuzz --seed 7 --only signatures 0" in printed


def test_coverage_guided_fuzzing_finds_no_other_error() -> None:
    pytest.importorskip("atheris", reason="atheris is not installed: pip install 'airflow-modelarts[security]'")
    finished = guided.run(20_000, 1, seconds=15)
    assert finished.returncode == 0, finished.stdout[-5000:]
    assert "DONE" in finished.stdout
