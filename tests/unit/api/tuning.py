"""A base model that jobs can be made on, labelled text, and what the catalog has of jobs."""

from __future__ import annotations

import io
import json
from typing import Any

from openai.types.fine_tuning import FineTuningJob
from sqlalchemy import func, select

from hmi.catalog import TuningJob, bases
from tests.apis import SPEC, Api, base_files

__all__ = ["BASE", "add_base", "count", "labelled", "row", "tune", "upload_text"]

BASE = "small"


def add_base(api: Api) -> None:
    """One with a tokenizer: `w0`, `w1`, ... are its words."""
    artifact = api.services.artifacts.put({name: io.BytesIO(content) for name, content in base_files().items()})
    with api.services.database.session() as session:
        bases.register_base(session, BASE, artifact, SPEC)


def labelled(*pairs: tuple[str, str]) -> bytes:
    records = pairs or (("w1 w2 w3", "good"), ("w4", "bad"))
    return b"".join(json.dumps({"text": text, "label": label}).encode() + b"\n" for text, label in records)


def upload_text(api: Api, content: bytes = labelled(), *, who: str = "acme", name: str = "reviews.jsonl") -> str:
    """A file's id."""
    with api.openai(who) as client:
        return client.files.create(file=(name, content), purpose="fine-tune").id


def tune(api: Api, *, who: str = "acme", **fields: Any) -> FineTuningJob:
    with api.openai(who) as client:
        asked = {"model": BASE, **fields}
        if "training_file" not in asked:
            asked["training_file"] = upload_text(api, who=who)
        return client.fine_tuning.jobs.create(**asked)


def row(api: Api, job_id: str) -> TuningJob:
    with api.services.database.session(read_only=True) as session:
        return session.get_one(TuningJob, job_id)


def count(api: Api) -> int:
    with api.services.database.session(read_only=True) as session:
        return session.scalar(select(func.count()).select_from(TuningJob)) or 0
