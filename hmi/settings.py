"""All settings of all processes, read once at an entry point and passed down.

Every field is an environment variable with the prefix `HMI_` (`HMI_DATABASE_URL`); a `.env` file in the working
directory is read too. Nothing reads the environment at import.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from hmi.spec import CountPolicy

__all__ = ["GROUPS", "Settings"]

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]

GROUPS = {
    "data_dir": "Where things are",
    "admin_key": "API",
    "shard_lines": "Jobs",
    "training_share": "Fine-tuning",
    "device": "Engine",
    "frequency_half_life_seconds": "Knowledge trees",
    "log_level": "Logs",
}
"""The first setting of each group to the group's title, in the order of `Settings.model_fields`, for documents."""


class Settings(BaseSettings):
    """Frozen. Defaults are the embedded ones: SQLite, a private Redis, files under `data_dir`."""

    model_config = SettingsConfigDict(
        env_prefix="HMI_", env_file=".env", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    data_dir: Path = Field(Path(".hmi"), description="Folder of the embedded database, the files and the cache.")
    database_url: str = Field(
        "", repr=False, description="SQLAlchemy URL; may hold a password. Empty: SQLite in `data_dir`."
    )
    broker_url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), description="Celery's broker.")
    storage_url: str = Field(
        "", description="`file:///folder`, or `s3://bucket/prefix` if s3fs is installed. Empty: files in `data_dir`."
    )
    cache_dir: Path | None = Field(None, description="Local copies of remote artifacts. Empty: in `data_dir`.")

    admin_key: SecretStr | None = Field(
        None, description="Administration key that is registered at start, for unattended installations."
    )
    max_file_bytes: Bytes = Field(512 * 1024**2, description="Largest uploaded file.")
    max_batch_lines: Count = Field(50_000, description="Most lines of a batch's input file.")
    max_line_bytes: Bytes = Field(1024**2, description="Longest line of a batch's input file.")
    max_inputs_per_line: Count = Field(2048, description="Most texts in the input of one line.")
    max_adapter_bytes: Bytes = Field(256 * 1024**2, description="Largest uploaded adapter.")
    max_base_bytes: Bytes = Field(64 * 1024**3, description="Largest uploaded base model.")
    max_queued_lines_per_tenant: Count = Field(2_000_000, description="Most lines of a tenant's unfinished batches.")
    docs: bool = Field(True, description="Serve `/docs` and `/openapi.json`.")

    shard_lines: Count = Field(256, description="Most lines of a shard, the part of a batch that a worker claims.")
    shards_in_flight: Count = Field(16, description="Most shards that are queued or running at once.")
    lease_seconds: Seconds = Field(60, description="Lease of a shard, extended every third of it; then it is requeued.")
    shard_deadline_seconds: Seconds = Field(
        1800, description="Longest time that a running shard may be without an answer."
    )
    queued_timeout_seconds: Seconds = Field(120, description="Age at which an unclaimed message counts as lost.")
    max_shard_failures: Count = Field(3, description="Failures after which a shard is split to find poison lines.")
    dispatch_seconds: Seconds = Field(2, description="Interval of dispatching shards.")
    reconcile_seconds: Seconds = Field(10, description="Interval of requeueing lost work.")
    flush_seconds: Seconds = Field(15, description="Interval of storing lookup counts.")
    rebuild_seconds: Seconds = Field(6 * 3600, description="Interval of rebuilding knowledge trees.")
    visibility_timeout_seconds: Seconds = Field(
        6 * 3600, description="Redis redelivers a message after this time; must exceed `shard_deadline_seconds`."
    )

    training_share: Share = Field(0.1, description="Share of a worker's time for a training while jobs run.")
    training_threads: int = Field(0, ge=0, description="CPU threads of a training. 0: as `threads`.")
    trainings_in_flight: Count = Field(1, description="Most trainings queued or running at once; a worker runs one.")
    training_checkpoint_seconds: Seconds = Field(15, description="Interval of checkpoints, to resume on any worker.")
    training_silence_seconds: Seconds = Field(1800, description="A training without progress for so long is killed.")
    training_retry_seconds: Seconds = Field(30, description="Delay of a retry after a full disk or a lost service.")
    max_training_failures: Count = Field(3, description="Most failures in a row without progress.")
    max_open_trainings_per_tenant: Count = Field(16, description="Most unfinished trainings of a tenant.")
    max_training_file_bytes: Bytes = Field(64 * 1024**2, description="Largest training or validation file.")
    max_training_examples: Count = Field(200_000, description="Most examples of both files of a training together.")
    max_training_tokens: Count = Field(100_000_000, description="Most tokens of all epochs of a training.")

    device: str = Field("auto", description="`auto`, `cpu`, `cuda:0`, ...")
    dtype: str = Field("auto", description="`auto`, `float32` or `bfloat16`.")
    threads: int = Field(0, ge=0, description="CPU threads of all forwards. 0: all cores.")
    batch_tokens: int = Field(0, ge=0, description="Most tokens of a device batch. 0: chosen for the device.")
    batch_rows: Count = Field(256, description="Most sequences of a device batch.")
    host_adapter_bytes: Bytes = Field(2 * 1024**3, description="Budget of adapters in host memory.")
    device_adapter_bytes: Bytes = Field(512 * 1024**2, description="Budget of adapters in device memory.")
    key_value_bytes: Bytes = Field(
        512 * 1024**2,
        description="Budget of each decoder's KV cache on the device. Less than the model's whole context needs, as a "
        "worker logs at loading, ends long generations early.",
    )
    generated_rows: Count = Field(64, description="Most sequences that a decoder generates at once.")
    worker_threads: int = Field(8, ge=2, description="Shards that a worker prepares and finishes in parallel.")

    frequency_half_life_seconds: Seconds = Field(7 * 24 * 3600, description="Half-life of lookup counts.")
    frequency_max_keys: Count = Field(
        2_000_000, description="Most n-grams counted for each domain, in a worker's memory and in the catalog."
    )
    frequency_total_keys: Count = Field(
        4_000_000, description="Most n-grams counted in a worker's memory, all domains together."
    )
    frequency_max_rows: Count = Field(
        10_000_000, description="Most n-grams counted in the catalog, all domains together."
    )
    tree_min_tenants: int = Field(
        3, ge=1, le=32, description="Tenants that must have asked for an n-gram before a shared table holds it."
    )
    tenant_counts: CountPolicy = Field(
        CountPolicy.ALL, description="`all`: lookups of a tenant without a choice of its own are counted; `none`: not."
    )
    tree_node_bytes: Bytes = Field(256 * 1024**2, description="Budget of each domain's own table.")
    tree_tolerance: float = Field(
        0.05,
        ge=0,
        allow_inf_nan=False,
        description="Relative error up to which an alias replaces a row. 0: no aliases.",
    )
    tree_build_share: Share = Field(0.1, description="Share of a worker's time for tree builds while jobs run.")
    miss_cache_bytes: int = Field(
        64 * 1024**2, ge=0, description="Budget of each base model's cache of computed rows in host memory."
    )

    log_level: str = Field("INFO", description="Least severe level that is logged.")
    log_json: bool = Field(False, description="Log JSON lines.")

    @model_validator(mode="after")
    def _check_times(self) -> Settings:
        if self.visibility_timeout_seconds <= self.shard_deadline_seconds:
            raise ValueError(
                f"visibility_timeout_seconds ({self.visibility_timeout_seconds:g}) must exceed "
                f"shard_deadline_seconds ({self.shard_deadline_seconds:g}), or Redis delivers running shards again"
            )
        if self.shard_deadline_seconds <= self.lease_seconds:
            raise ValueError("shard_deadline_seconds must exceed lease_seconds")
        return self

    @property
    def resolved_database_url(self) -> str:
        # In a URL these two would not be read as part of the path.
        path = str((self.data_dir / "hmi.db").absolute()).replace("%", "%25").replace("?", "%3F")
        return self.database_url or f"sqlite:///{path}"

    @property
    def resolved_storage_url(self) -> str:
        return self.storage_url or f"file://{(self.data_dir / 'storage').absolute()}"

    @property
    def resolved_cache_dir(self) -> Path:
        return self.cache_dir or self.data_dir / "cache"
