"""Every error that HMI raises on purpose.

    HmiError
    |-- InvalidInput            the caller sent something invalid
    |   |-- AdapterRefused      an adapter holds something that would not be applied
    |   `-- ContextTooLong      more tokens than the model has positions
    |-- Unauthenticated         no key, or a key that is unknown, expired or revoked
    |-- Forbidden               the key is valid, but not for this
    |-- NotFound                it does not exist, or it is another tenant's: the same answer
    |-- Conflict                it exists already, or its state does not allow this
    |   `-- LeaseLost           another worker holds the lease now
    |-- Overloaded              a quota or a queue is full; retry later
    |   |-- StorageFull         no disk space left
    |   `-- TooLarge            more than the whole capacity
    |-- Corrupt                 stored data is not what it was when it was written
    |-- Cancelled               the caller cancelled the work before it ran
    `-- Transient               a service does not answer; retry

`code` is stable and meant for programs. The message is for people: what, where and, if known, what to do about it.
`retryable` says whether the same call may succeed later. HTTP numbers are in `hmi/jobs/status.py` alone: the API's
answers and a batch's error lines have the same ones.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AdapterRefused",
    "Cancelled",
    "Conflict",
    "ContextTooLong",
    "Corrupt",
    "Forbidden",
    "HmiError",
    "InvalidInput",
    "LeaseLost",
    "NotFound",
    "Overloaded",
    "StorageFull",
    "TooLarge",
    "Transient",
    "Unauthenticated",
]


class HmiError(Exception):
    """Base of all errors above.

    Args:
        message: One sentence for a person, naming what and where.
        code: Overrides the class's stable code where a finer one is known (`duplicate_custom_id`).
        param: The name of the offending field, in the caller's terms.
    """

    default_code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param


class InvalidInput(HmiError):
    default_code = "invalid_input"


class AdapterRefused(InvalidInput):
    default_code = "adapter_refused"


class ContextTooLong(InvalidInput):
    default_code = "context_length_exceeded"


class Unauthenticated(HmiError):
    default_code = "invalid_api_key"


class Forbidden(HmiError):
    default_code = "forbidden"


class NotFound(HmiError):
    default_code = "not_found"


class Conflict(HmiError):
    default_code = "conflict"


class LeaseLost(Conflict):
    default_code = "lease_lost"


class Overloaded(HmiError):
    default_code = "overloaded"
    retryable = True


class TooLarge(Overloaded):
    default_code = "adapter_too_large"
    retryable = False


class StorageFull(Overloaded):
    default_code = "storage_full"


class Corrupt(HmiError):
    default_code = "corrupt"


class Cancelled(HmiError):
    default_code = "cancelled"


class Transient(HmiError):
    default_code = "temporarily_unavailable"
    retryable = True
