"""Times seqrs beside PyTorch, ONNX Runtime, OpenVINO and tract, on the same weights and inputs.

    python benches/python/compare.py                       every case, one and two threads
    python benches/python/compare.py --quick --cases 'step/*' --threads 1
    python benches/python/compare.py --json new.json --plot new.png --against old.json
    python benches/python/compare.py --show new.json

Before a case is timed, every contender's results are compared with those of seqrs. Then the
contenders take turns in one process: each turn waits until the threads of the one before have gone
to sleep, warms up, and is timed for a while. Times are held against the machine's own limits, which
are measured first, and against the goals. benches/README.md says what each case is.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from pathlib import Path
from typing import Any

from comparison import tables
from comparison.cases import Case, every_case
from comparison.goals import outcomes
from comparison.machine import machine
from comparison.measuring import ResultsDifferError, measure
from comparison.plot import plot
from comparison.roofline import Limits, measured_limits


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", metavar="GLOB[,GLOB]", help="such as 'step/*,train/lstm/*' (all of them)"
    )
    parser.add_argument("--threads", default="1,2", help="such as 1 or 1,2 (the default)")
    parser.add_argument("--seconds", type=float, default=0.8, help="per contender and case")
    parser.add_argument("--rounds", type=int, default=7, help="turns that each contender gets")
    parser.add_argument(
        "--quick", action="store_true", help="3 rounds, 0.1 seconds; curves where --cases says"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="time this contender alone"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record here")
    parser.add_argument(
        "--keep", action="store_true", help="keep what else the record has: measure a part again"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the record, such as a.png")
    parser.add_argument("--against", type=Path, metavar="FILE", help="an earlier record")
    parser.add_argument("--strict", action="store_true", help="fail where a goal is not met")
    parser.add_argument(
        "--show", type=Path, metavar="FILE", help="measure nothing, print (and plot) this record"
    )
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="print the README's table from this record"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 3, 0.1
    if options.keep and not options.json:
        parser.error("--keep: expected --json FILE, whose other cases are kept")
    return options


def chosen(options: argparse.Namespace) -> list[Case]:
    cases = every_case()
    if options.cases is None:
        return [case for case in cases if not (options.quick and case.on_curve)]
    found: list[Case] = []
    for pattern in options.cases.split(","):
        matching = [case for case in cases if fnmatch.fnmatchcase(case.name, pattern)]
        if not matching:
            sys.exit(f"--cases: expected patterns that match a case, got {pattern!r}")
        found += [case for case in matching if case not in found]
    return found


def read(file: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return record


def records_by_case(record: dict[str, Any]) -> dict[tuple[str, int], Any]:
    return {(each["case"], each["threads"]): each for each in record["records"]}


def show(record: dict[str, Any], options: argparse.Namespace) -> None:
    before = records_by_case(read(options.against)) if options.against else {}
    print(tables.everything(record, before))
    if options.plot:
        plot(record, options.plot)
        print(f"plot: {options.plot}", file=sys.stderr)


def limits_of_machine(
    kept: dict[str, Any], about: dict[str, Any], threads: list[int]
) -> Limits | None:
    """Those of the record that is kept, where they are of this machine; else measured."""
    if kept.get("limits") and kept["machine"]["level"] == about["level"]:
        known = Limits.of_record(kept["limits"])
        if set(threads) <= known.flops.keys():
            return known
    print("measuring the machine's limits", file=sys.stderr)
    found = measured_limits(threads, about["level"])
    if isinstance(found, str):
        print(f"note: {found}; no shares of the machine's limits", file=sys.stderr)
        return None
    return found


def measure_all(
    cases: list[Case],
    threads: list[int],
    limits: Limits | None,
    records: dict[tuple[str, int], Any],
    options: argparse.Namespace,
) -> list[str]:
    """Adds to the records; gives what went wrong."""
    failures = []
    settings = {"rounds": options.rounds, "seconds": options.seconds, "only": options.only}
    for case in cases:
        # One right after the other: what two threads gain should not depend on the hour.
        for count in threads:
            try:
                record = measure(case, count, limits, **settings)
            except ResultsDifferError as error:
                failures.append(str(error))
                records.pop((case.name, count), None)
                print(f"error: {error}", file=sys.stderr)
                continue
            except KeyboardInterrupt:
                # What was measured until here is worth its time.
                return [*failures, f"{case.name}: interrupted"]
            records[case.name, count] = record
            spent = ", ".join(f"{k} {tables.duration(v)}" for k, v in record["seconds"].items())
            print(f"{case.name}, {count} thread(s): {spent}", file=sys.stderr)
    return failures


def main() -> None:
    options = parse()
    if options.show:
        show(read(options.show), options)
        return
    if options.readme:
        print(tables.readme(read(options.readme)))
        return
    cases = chosen(options)
    if options.list:
        print("\n".join(case.name for case in cases))
        return
    about = machine()
    if about["load"][0] > 0.5:
        print(f"note: the machine is busy (load {about['load'][0]})", file=sys.stderr)
    threads = [int(count) for count in options.threads.split(",")]
    kept = read(options.json) if options.keep and options.json.exists() else {"records": []}
    limits = limits_of_machine(kept, about, threads)
    records = records_by_case(kept)
    failures = measure_all(cases, threads, limits, records, options)
    reached = outcomes(list(records.values()))
    whole = {
        "machine": about,
        "settings": {"rounds": options.rounds, "seconds": options.seconds},
        "limits": limits.record() if limits else None,
        "records": list(records.values()),
        "goals": reached,
        "failures": failures,
    }
    if options.json:
        options.json.write_text(json.dumps(whole, indent=1) + "\n", "utf-8")
        print(f"record: {options.json}", file=sys.stderr)
    show(whole, options)
    if failures:
        sys.exit("\n".join(["not timed:", *failures]))
    if options.strict and not all(outcome["met"] for outcome in reached):
        sys.exit("--strict: a goal is not met")


if __name__ == "__main__":
    main()
