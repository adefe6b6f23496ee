"""Coverage-guided fuzzing: ``python -m tests.security.guided --runs 100000``.

Half of the inputs are the bytes of an answer, beginning with the contract's examples; half are the choices of
:mod:`tests.security.flows`. The fuzzer ends its process, so it runs in a child process.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

#: Bytes of an input for choices beside the answer.
_CHOICES = 4
#: Bytes of an input, at most.
MAX_INPUT_BYTES = 4096


def write_seeds(folder: Path) -> None:
    """Write the first inputs."""
    from tests.security.answers import BAD, EXAMPLES, GOOD

    texts = [path.read_bytes() for path in sorted(EXAMPLES.glob("*.json"))]
    texts += [document.text for documents in GOOD.values() for document in documents]
    texts += [document.text for document in BAD[::8]]
    for number, text in enumerate(texts):
        # Choices are read from an input's end, the bytes of the answer from its beginning.
        (folder / f"answer-{number}").write_bytes(text + bytes([number % 251] * _CHOICES) + b"\x00")
    for number in range(32):
        (folder / f"choices-{number}").write_bytes(
            bytes((number * 37 + place * 11) % 256 for place in range(256)) + b"\x01"
        )


def child(arguments: list[str]) -> None:
    """Fuzz until the number of runs is reached or a check fails; both end the process."""
    import atheris  # type: ignore[import-not-found, unused-ignore]  # Linux and macOS only

    with atheris.instrument_imports(include=["airflow_modelarts.api"]):
        from tests.security import flows
    from tests.security.draws import Guided

    def one_input(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        if provider.ConsumeIntInRange(0, 255) % 2:
            draws = Guided(provider)
            flows.one_call(draws) if draws.below(2) else flows.one_list(draws)
        else:
            text = provider.ConsumeBytes(max(0, provider.remaining_bytes() - _CHOICES))
            flows.one_answer(Guided(provider), text)

    atheris.Setup([sys.argv[0], *arguments], one_input)
    atheris.Fuzz()


def run(runs: int, seed: int, *, seconds: int = 0) -> subprocess.CompletedProcess[str]:
    """Fuzz in a child process.

    :param runs: the number of inputs.
    :param seconds: the maximum time; 0 for none.
    """
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        write_seeds(corpus)
        options = [f"-runs={runs}", f"-seed={seed}", f"-max_len={MAX_INPUT_BYTES}", f"-max_total_time={seconds}"]
        options += [f"-artifact_prefix={folder}{os.sep}", "-timeout=60", "-print_final_stats=1"]
        command = [sys.executable, "-m", "tests.security.guided", "--child", str(corpus), *options]
        root = Path(__file__).parents[2]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.run(command, cwd=root, **pipes, text=True, errors="replace", check=False)


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    if arguments[:1] == ["--child"]:
        child(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m tests.security.guided", description="Fuzz, guided by coverage.")
    parser.add_argument("--runs", type=int, default=100_000, help="number of inputs (default 100000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the run (default 1)")
    options = parser.parse_args(arguments)
    finished = run(options.runs, options.seed)
    print(finished.stdout[-5000:])
    return finished.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
