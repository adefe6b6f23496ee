"""Print the machine, the versions and the named tables, by default all: ``python -m tests.benchmarks [NAME …]``."""

import argparse

from tests.benchmarks import imports, looks, results, waits, workers
from tests.benchmarks.machine import show_machine

TABLES = {"imports": imports.run, "looks": looks.run, "results": results.run, "workers": workers.run}
NAMES = ("imports", "results", "waits", "queue", "looks", "workers")
#: What ``--quick`` measures, in some two minutes: the order of magnitude of each.
QUICK = {"waits": "20", "queued": 20, "seconds": 5.0}
QUICK_NAMES = ("imports", "results", "waits", "queue")


def main() -> None:
    """Read the arguments, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("tables", nargs="*", choices=[*NAMES, []], help="default all")
    parser.add_argument("--waits", default="100,500,10000", help="how many waits at once, default %(default)s")
    parser.add_argument("--queued", type=int, default=2000, help="how many queued submissions, default %(default)s")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measurement of waits")
    parser.add_argument("--kinds", default=",".join(waits.KINDS), help="kinds of waits, default %(default)s")
    parser.add_argument("--quick", action="store_true", help="few waits, each for seconds, and no real Airflow")
    # What is given beside --quick takes precedence over it.
    if parser.parse_args().quick:
        parser.set_defaults(**QUICK)
    arguments = parser.parse_args()
    counts, kinds = [int(count) for count in arguments.waits.split(",")], arguments.kinds.split(",")
    show_machine()
    for name in arguments.tables or (QUICK_NAMES if arguments.quick else NAMES):
        if name == "waits":
            waits.run(counts, arguments.seconds, kinds)
        elif name == "queue":
            waits.run_queued(arguments.queued, arguments.seconds)
        else:
            TABLES[name]()


main()
