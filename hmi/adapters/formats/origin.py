"""What a foreign adapter's folder says of where it comes from. Nothing of it is applied, and nobody has checked it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hmi.adapters.formats import peft
from hmi.adapters.formats.config import ConfigClaims
from hmi.adapters.formats.folder import AdapterFolder
from hmi.adapters.formats.tensors import MAX_BYTES

__all__ = ["Origin", "read_origin"]

_LONGEST = 200  # characters of a name that is shown


@dataclass(frozen=True, slots=True)
class Origin:
    """`library` is PEFT, AdapterHub or HMI; `version` its release and `model` the one that the adapter was trained on,
    as far as the folder names them."""

    library: str
    version: str | None
    model: str | None


def read_origin(folder: Path) -> Origin:
    """Of a folder that `read_adapter` took. Raises `AdapterRefused` for one that it would not."""
    files = AdapterFolder(folder, max_bytes=MAX_BYTES)
    if peft.CONFIG_FILE not in files.names:
        return Origin("HMI", None, None)
    config = files.config(peft.CONFIG_FILE)
    if config.is_null("peft_type"):
        version = _name(config, "version")
        return Origin("AdapterHub", version and version.removeprefix("adapters."), _name(config, "model_name"))
    return Origin("PEFT", _name(config, "peft_version"), _name(config, "base_model_name_or_path"))


def _name(config: ConfigClaims, field: str) -> str | None:
    value = config.take(field)
    return value[:_LONGEST] if isinstance(value, str) and value else None
