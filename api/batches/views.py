"""OpenAI's Batch object from the catalog's batch."""

from __future__ import annotations

from hmi.catalog import BatchView
from hmi.schemas import BatchObject


def view_batch(view: BatchView) -> BatchObject:
    batch = view.batch
    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        errors={"data": batch.errors} if batch.errors else None,
        input_file_id=batch.input_file_id,
        completion_window=batch.completion_window,
        status=batch.status,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=batch.created_at,
        in_progress_at=batch.in_progress_at,
        expires_at=batch.expires_at,
        finalizing_at=batch.finalizing_at,
        completed_at=batch.completed_at,
        failed_at=batch.failed_at,
        expired_at=batch.expired_at,
        cancelling_at=batch.cancelling_at,
        cancelled_at=batch.cancelled_at,
        request_counts={"total": batch.total_lines, "completed": view.completed, "failed": view.failed},
        usage={
            "input_tokens": view.input_tokens,
            "output_tokens": view.output_tokens,
            "total_tokens": view.input_tokens + view.output_tokens,
        },
        metadata=batch.attributes or None,
    )
