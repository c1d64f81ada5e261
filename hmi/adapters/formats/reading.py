"""Adapters from elsewhere, read whole or refused with the reason.

HMI's own file, folders saved by PEFT and folders saved by AdapterHub are told apart by what they hold.
Nothing is guessed and nothing is left out: a tensor or a setting that would have an effect here and is not
understood is a refusal, because the alternative is a wrong answer that looks like a right one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from hmi.adapters import Adapter
from hmi.adapters.formats import adapterhub, canonical, peft
from hmi.adapters.formats.delta import check_delta
from hmi.adapters.formats.folder import AdapterFolder
from hmi.adapters.formats.tensors import MAX_BYTES
from hmi.errors import AdapterRefused
from hmi.spec import HPLMSpec

__all__ = ["read_adapter", "read_delta"]


def read_adapter(
    folder: Path, spec: HPLMSpec, labels: Sequence[str] | None = None, *, max_bytes: int = MAX_BYTES
) -> Adapter:
    """The adapter in the folder, checked against the model of `spec`.

    Args:
        labels: Names of the head's outputs, in order; None takes those that the format carries, which for
            PEFT are none (LABEL_0, LABEL_1, ...).
        max_bytes: Of all weight files together.

    Raises `AdapterRefused`, naming file, tensor or setting and the reason.
    """
    files = AdapterFolder(folder, max_bytes=max_bytes)
    adapter = _read(files, spec)
    files.finish()
    if labels is not None:
        adapter = _rename_labels(adapter, labels)
    adapter.validate(spec)
    return adapter


def read_delta(folder: Path, spec: HPLMSpec, *, max_bytes: int = MAX_BYTES) -> Adapter:
    """The domain delta in the folder: as `read_adapter`, but for the lower layers.

    Raises `AdapterRefused`, naming file, tensor or setting and the reason.
    """
    files = AdapterFolder(folder, max_bytes=max_bytes)
    delta = _read(files, spec)
    files.finish()
    check_delta(delta, spec)
    return delta


def _read(files: AdapterFolder, spec: HPLMSpec) -> Adapter:
    if peft.CONFIG_FILE not in files.names:
        if canonical.FILE_NAME in files.names:
            return canonical.decode_adapter(files.file(canonical.FILE_NAME))
        raise AdapterRefused(
            f"no adapter found: neither {canonical.FILE_NAME} nor {peft.CONFIG_FILE} is among the files"
        )
    config = files.config(peft.CONFIG_FILE)
    # Both libraries call their configuration so; only PEFT's says which of its methods it is.
    if not config.is_null("peft_type"):
        return peft.read_peft(files, spec)
    if not config.is_null("config"):
        return adapterhub.read_adapterhub(files, spec)
    raise AdapterRefused(f"{peft.CONFIG_FILE} is neither PEFT's (peft_type) nor AdapterHub's (config)")


def _rename_labels(adapter: Adapter, labels: Sequence[str]) -> Adapter:
    if adapter.head is None:
        raise AdapterRefused("labels were given, but the adapter has no head")
    if len(labels) != len(adapter.head.labels):
        raise AdapterRefused(f"{len(labels)} labels were given, but the head has {len(adapter.head.labels)} outputs")
    return dataclasses.replace(adapter, head=dataclasses.replace(adapter.head, labels=tuple(labels)))
