"""Adapter files: HMI's own format, and folders saved by PEFT and by AdapterHub.

An adapter is read completely or refused with the reason: a tensor or a setting that would have an effect and is not
understood is an error. `reading.py` detects the format and is the place to start; `config.py` and `tensors.py` keep
track of what was read. Nothing here needs torch.
"""

from __future__ import annotations

from hmi.adapters.formats.canonical import FILE_NAME, load_adapter, save_adapter
from hmi.adapters.formats.reading import Origin, check_delta, load_delta, read_adapter, read_delta, read_origin

__all__ = [
    "FILE_NAME",
    "Origin",
    "check_delta",
    "load_adapter",
    "load_delta",
    "read_adapter",
    "read_delta",
    "read_origin",
    "save_adapter",
]
