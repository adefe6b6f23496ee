"""What a 20 MB result costs us, beside ``json.loads`` and ``json.dumps`` on the same answer. Linux only."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.tables import show

BUDGET = 1.5
ITEMS = 130_000
FORMS = ("object", "array", "text")


def answer(form: str) -> bytes:
    """Make an answer of DescribeProcessorTask whose result has some 20 MB."""
    items = [
        {"sample": f"s3://bucket/dataset/images/{number:08}.jpg", "label": "cat", "brightness": number / 7, "ok": True}
        for number in range(ITEMS)
    ]
    result: Any = {"object": {"samples": items}, "array": items, "text": json.dumps(items)}[form]
    return json.dumps({"task_id": "abc", "status": 2, "name": "V001", "result": result}).encode()


def plain(body: bytes) -> None:
    """Do what nobody can do without: read the answer, the result too if it is JSON in a string, and write it."""
    task = json.loads(body)
    if isinstance(task["result"], str):
        task["result"] = json.loads(task["result"])
    json.dumps(task)


def ours(body: bytes) -> None:
    """Do what the describe operator does, and what Airflow does with each XCom at the least."""
    from airflow_modelarts.api import models

    task = models.parse(models.ProcessorTask, body)
    description = task.to_json()
    for value in (description, task.result, description.get("work_path")):
        json.dumps(value)


def measure(way: str, file: str) -> None:
    """Read an answer, and print seconds and the growth of the peak memory in MB; runs in a process of its own."""
    from airflow_modelarts.api import models

    models.parse(models.ProcessorTask, b'{"task_id": "warm"}').to_json()
    body = Path(file).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = _peak_kilobytes()
    started = time.perf_counter()
    {"plain": plain, "ours": ours}[way](body)
    seconds = time.perf_counter() - started
    print(seconds, (_peak_kilobytes() - before) / 1024)


def _peak_kilobytes() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def run() -> None:
    """Measure each form and way in fresh processes, and print the ratios."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS:
            file = Path(folder, form)
            file.write_bytes(answer(form))
            (plain_s, plain_mb), (our_s, our_mb) = (_median(way, file) for way in ("plain", "ours"))
            rows.append((form, plain_s, our_s, our_s / plain_s, plain_mb, our_mb, our_mb / max(plain_mb, 0.1)))
    head = ("result as", "plain s", "ours s", "ratio", "plain MB", "ours MB", "ratio")
    show(f"A result of some 20 MB (budget: {BUDGET} times json.loads + json.dumps)", head, rows)


def _median(way: str, file: Path) -> tuple[float, float]:
    measured = []
    for _ in range(5):
        program = [sys.executable, "-m", "tests.benchmarks.results", way, str(file)]
        output = subprocess.run(program, capture_output=True, check=True).stdout
        seconds, megabytes = map(float, output.split())
        measured.append((seconds, megabytes))
    return sorted(s for s, _ in measured)[2], sorted(m for _, m in measured)[2]


if __name__ == "__main__":
    measure(*sys.argv[1:])
