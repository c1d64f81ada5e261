"""One engine's process: started by the driver, asked for rounds over lines of JSON.

    python -m benchmarks.peers.serve NAME FOLDER

It imports its engine at once and waits for an empty line before it loads the files. Then it answers on standard
output, one line each: first what it runs with or why it cannot run, then for every request
`{"workload": NAME, "batches": N, "answers": BOOL}` how long that took. Whatever libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from benchmarks.peers.contender import CONTENDERS, EXTRAS, Contender, Runner
from benchmarks.peers.plan import Plan, Workload
from hmi.process import tune_process

_PACKAGES = ("torch", "transformers", "peft", "adapters", "polylora")


def main(name: str, folder: Path) -> None:
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    contender = next(each for each in CONTENDERS + EXTRAS if each.name == name)
    if contender.shares_cores:
        tune_process(os.environ)  # before anything imports torch
    try:
        _serve(contender, folder, lines)
    except Exception as error:  # noqa: BLE001 - the driver says it
        traceback.print_exc()
        _say(lines, {"error": f"{type(error).__name__}: {error}"})


def _serve(contender: Contender, folder: Path, lines: TextIO) -> None:
    from benchmarks.harness import versions  # noqa: PLC0415 - it imports torch

    module = contender.load()
    sys.stdin.readline()
    plan = Plan.read(folder)
    with module.start(plan, folder, contender.variant) as runner:
        _say(lines, {"versions": versions(*_PACKAGES)})
        for line in sys.stdin:
            _say(lines, _round(plan, runner, json.loads(line)))


def _round(plan: Plan, runner: Runner, request: dict[str, Any]) -> dict[str, object]:
    batches = plan.batches(Workload(request["workload"]), request["batches"])
    begin = time.perf_counter()
    answers = runner.run(batches)
    seconds = time.perf_counter() - begin
    runner.check()
    return {"seconds": seconds, "answers": answers.tolist() if request["answers"] else None}


def _say(lines: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=lines, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
