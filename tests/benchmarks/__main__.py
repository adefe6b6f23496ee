"""Print the tables that are named, by default all: ``python -m tests.benchmarks [NAME …]``."""

import argparse

from tests.benchmarks import imports, looks, results, waits, workers

TABLES = {"imports": imports.run, "looks": looks.run, "results": results.run, "workers": workers.run}
NAMES = ("imports", "results", "waits", "queue", "looks", "workers")


def main() -> None:
    """Read the arguments, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("tables", nargs="*", choices=[*NAMES, []], help="default all")
    parser.add_argument("--waits", default="10,100,500,1000,10000", help="how many waits at once, default %(default)s")
    parser.add_argument("--queued", type=int, default=2000, help="how many queued submissions, default %(default)s")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measurement of waits")
    parser.add_argument("--kinds", default=",".join(waits.KINDS), help="kinds of waits, default %(default)s")
    arguments = parser.parse_args()
    counts, kinds = [int(count) for count in arguments.waits.split(",")], arguments.kinds.split(",")
    for name in arguments.tables or NAMES:
        if name == "waits":
            waits.run(counts, arguments.seconds, kinds)
        elif name == "queue":
            waits.run_queued(arguments.queued, arguments.seconds)
        else:
            TABLES[name]()


main()
