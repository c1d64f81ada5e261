"""All settings of all processes, read once at an entry point and passed down.

Every field is an environment variable with the prefix `HMI_` (`HMI_DATABASE_URL`); a `.env` file in
the working directory is read too. Nothing reads the environment at import.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """Frozen. Defaults are the embedded ones: SQLite, a private Redis, files under `data_dir`."""

    model_config = SettingsConfigDict(
        env_prefix="HMI_", env_file=".env", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    # Where things live
    data_dir: Path = Path(".hmi")
    database_url: Annotated[str, Field(repr=False)] = ""  # empty: SQLite in data_dir; may hold a password
    broker_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    storage_url: str = ""  # empty: files in data_dir; s3://bucket/prefix works where s3fs is installed
    cache_dir: Path | None = None  # local copies of remote artifacts; empty: in data_dir

    # API
    admin_key: SecretStr | None = None  # made known to the catalog at start, for unattended set-ups
    max_file_bytes: Bytes = 512 * 1024**2
    max_batch_lines: Annotated[int, Field(gt=0)] = 50_000
    max_line_bytes: Bytes = 1024**2
    max_inputs_per_line: Annotated[int, Field(gt=0)] = 2048
    max_adapter_bytes: Bytes = 256 * 1024**2
    max_base_bytes: Bytes = 64 * 1024**3
    max_queued_lines_per_tenant: Annotated[int, Field(gt=0)] = 2_000_000
    docs: bool = True  # serve /docs and /openapi.json

    # Jobs. A lease is extended three times within its length; a shard whose lease ran out goes back.
    shard_lines: Annotated[int, Field(gt=0)] = 256
    shards_in_flight: Annotated[int, Field(gt=0)] = 16
    lease_seconds: Seconds = 60
    shard_deadline_seconds: Seconds = 1800  # the longest that a shard in a worker may be without an answer
    queued_timeout_seconds: Seconds = 120  # a message unseen for so long is taken for lost
    max_shard_failures: Annotated[int, Field(gt=0)] = 3
    dispatch_seconds: Seconds = 2
    reconcile_seconds: Seconds = 10
    flush_seconds: Seconds = 15
    rebuild_seconds: Seconds = 6 * 3600
    visibility_timeout_seconds: Seconds = 6 * 3600

    # Fine-tuning. Limits are of one job, unless they name the tenant.
    training_share: Annotated[float, Field(gt=0, le=1)] = 0.1  # of a worker's time that a training takes while jobs run
    training_threads: Annotated[int, Field(ge=0)] = 0  # CPU threads of a training; 0: as `threads`
    trainings_in_flight: Annotated[int, Field(gt=0)] = 1  # a worker runs one at a time
    training_checkpoint_seconds: Seconds = 15  # between two copies in the storage, for another worker to go on from
    training_silence_seconds: Seconds = 1800  # a training that says nothing for so long is killed
    training_retry_seconds: Seconds = 30  # before another try, where a disk was full or a service lost
    max_training_failures: Annotated[int, Field(gt=0)] = 3  # in a row, without getting further
    max_open_trainings_per_tenant: Annotated[int, Field(gt=0)] = 16
    max_training_file_bytes: Bytes = 64 * 1024**2
    max_training_examples: Annotated[int, Field(gt=0)] = 200_000  # of the training and the validation file together
    max_training_tokens: Annotated[int, Field(gt=0)] = 100_000_000  # of all epochs

    # Engine
    device: str = "auto"  # auto, cpu, cuda:0, ...
    dtype: str = "auto"  # auto, float32, bfloat16
    threads: Annotated[int, Field(ge=0)] = 0  # CPU threads of all forwards; 0: all cores
    batch_tokens: Annotated[int, Field(ge=0)] = 0  # most tokens in a batch; 0: what suits the device
    batch_rows: Annotated[int, Field(gt=0)] = 256
    host_adapter_bytes: Bytes = 2 * 1024**3
    device_adapter_bytes: Bytes = 512 * 1024**2
    # Keys and values of the texts that a decoder continues, on the device; for each decoder. Where it is less than one
    # text of the model's whole context needs, as a worker says when it loads one, long texts end early.
    key_value_bytes: Bytes = 512 * 1024**2
    generated_rows: Annotated[int, Field(gt=0)] = 64  # texts that a decoder continues at once
    worker_threads: Annotated[int, Field(ge=2)] = 8  # shards prepared and finished side by side

    # Knowledge trees
    frequency_half_life_seconds: Seconds = 7 * 24 * 3600
    frequency_max_keys: Annotated[int, Field(gt=0)] = 2_000_000  # for each domain, in memory and in the catalog
    frequency_total_keys: Annotated[int, Field(gt=0)] = 4_000_000  # in a worker's memory, all domains together
    frequency_max_rows: Annotated[int, Field(gt=0)] = 10_000_000  # in the catalog, all domains together
    tree_node_bytes: Bytes = 256 * 1024**2  # budget of one domain's own table
    tree_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = (
        0.05  # a row so near its ancestor's is left out
    )
    tree_build_share: Annotated[float, Field(gt=0, le=1)] = 0.1  # of a worker's time that builds take while jobs run
    miss_cache_bytes: Annotated[int, Field(ge=0)] = 64 * 1024**2  # rows computed for misses, kept; for each base model

    log_level: str = "INFO"
    log_json: bool = False

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
