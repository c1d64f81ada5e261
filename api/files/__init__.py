"""/v1/files: what batches and fine-tuning jobs read and write."""

from __future__ import annotations

from api.files.content import get_file, open_content
from api.files.endpoints import router

__all__ = ["get_file", "open_content", "router"]
