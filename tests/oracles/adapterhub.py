"""AdapterHub's library as an oracle: run in a process of its own, read back as arrays."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

__all__ = ["AdapterHubOracle", "make_adapterhub_oracle"]

_ROOT = Path(__file__).resolve().parents[2]
_VARIABLE = "HMI_ADAPTERHUB_PATH"


@dataclass(frozen=True, slots=True)
class AdapterHubOracle:
    """What `tests.oracles.adapterhub_oracle` wrote.

    Attributes:
        base: transformers folder of the tiny BERT.
        adapters: Folder of each adapter by name.
        ids: int64 [N, T], padded with 0; mask: bool [N, T].
        hidden: The last layer's states by adapter, [N, T, H]; logits: [N, labels] of those with a head.
    """

    base: Path
    adapters: dict[str, Path]
    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    hidden: dict[str, NDArray[np.float32]]
    logits: dict[str, NDArray[np.float32]]


def make_adapterhub_oracle(folder: Path) -> AdapterHubOracle:
    """Run the library into `folder`; skips the test where it is not installed."""
    library = Path(os.environ.get(_VARIABLE) or _ROOT / ".cache" / "adapterhub")
    if not (library / "adapters" / "__init__.py").is_file():
        pytest.skip(
            f"AdapterHub's library is not in {library}: `make test` installs it, {_VARIABLE} names another place"
        )
    path = os.pathsep.join([str(library), str(_ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.oracles.adapterhub_oracle", str(folder)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"AdapterHub's library failed:\n{done.stderr[-4000:]}")
    arrays = load_file(folder / "expected.safetensors")
    return AdapterHubOracle(
        base=folder / "base",
        adapters={path.name: path for path in sorted((folder / "adapters").iterdir())},
        ids=arrays["ids"],
        mask=arrays["mask"].astype(np.bool_),
        hidden={name.removeprefix("hidden."): array for name, array in arrays.items() if name.startswith("hidden.")},
        logits={name.removeprefix("logits."): array for name, array in arrays.items() if name.startswith("logits.")},
    )
