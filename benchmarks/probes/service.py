"""The same through API, queue and worker: a batch job of one sentence, timed by its client."""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.probes.engine import KEPT, UNKNOWN, Prober
from benchmarks.probes.separation import Separation, percentiles
from hmi.cli.client import DataFolder

_ENDPOINT = "/v1/embeddings"
_LEAST = 20  # jobs of each class, of which a separation is computed


def measure_service(folder: Path, base: Path, prober: Prober, jobs: int) -> dict[str, Any]:
    """Run so many jobs of each class on an `hmi up` of its own."""
    from tests.running import running_up  # noqa: PLC0415 - only here is it needed

    with running_up(folder) as up:
        up.run("base", "register", "probed", str(base))
        for tenant in ("victim", "curious"):
            up.run("tenant", "add", tenant)
            up.run("model", "register", f"{tenant}/m", "--base", "probed", "--domain", "general")
        data = DataFolder(up.folder)
        running = data.find_running()
        if running is None:
            raise RuntimeError("hmi up does not run")
        headers = {"Authorization": f"Bearer {data.find_admin_key()}"}
        with httpx.Client(base_url=running.api_url, headers=headers, timeout=60) as client:
            _run(client, "victim", prober.sentence("sentence"))  # loads the base
            return _probe(client, prober, jobs)


def _probe(client: httpx.Client, prober: Prober, jobs: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {KEPT: [], UNKNOWN: []}
    shown: dict[str, Counter[int]] = {KEPT: Counter(), UNKNOWN: Counter()}
    for name in np.random.default_rng(0).permutation(np.repeat([KEPT, UNKNOWN], jobs)):
        text = prober.sentence("sentence")
        _run(client, "victim", text if name == KEPT else prober.sentence("sentence"))
        seconds, by_timestamps = _run(client, "curious", text)
        times[name].append(seconds)
        shown[name][by_timestamps] += 1
    kept, unknown = (np.array(times[name]) for name in (KEPT, UNKNOWN))
    return {
        "jobs": jobs,
        "ms": {KEPT: percentiles(kept), UNKNOWN: percentiles(unknown)},
        "kept_or_unknown": asdict(Separation.of(kept, unknown)) if jobs >= _LEAST else None,
        "seconds_by_timestamps": {name: dict(sorted(each.items())) for name, each in shown.items()},
    }


def _run(client: httpx.Client, tenant: str, text: str) -> tuple[float, int]:
    """Seconds from the job's creation to its end, by this client's clock and by the API's timestamps."""
    line = {"custom_id": "1", "method": "POST", "url": _ENDPOINT, "body": {"model": f"{tenant}/m", "input": text}}
    upload = {"file": ("probe.jsonl", io.BytesIO(json.dumps(line).encode()))}
    file = client.post("/v1/files", files=upload, data={"purpose": "batch"}).raise_for_status().json()
    wanted = {"input_file_id": file["id"], "endpoint": _ENDPOINT, "completion_window": "24h"}
    begin = time.perf_counter()
    batch = client.post("/v1/batches", json=wanted).raise_for_status().json()
    while batch["status"] in ("validating", "in_progress", "finalizing"):
        batch = client.get(f"/v1/batches/{batch['id']}").raise_for_status().json()
    seconds = time.perf_counter() - begin
    if batch["status"] != "completed":
        raise RuntimeError(f"a probe is {batch['status']}")
    return seconds, batch["completed_at"] - batch["created_at"]
