"""What all tables share: the declarative base, column types, ids."""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Double, Enum, MetaData
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

JSON_TYPE = JSON().with_variant(JSONB(), "postgresql")


def new_id(prefix: str) -> str:
    """`prefix` and 128 random bits in hex, which cannot be guessed."""
    return f"{prefix}{secrets.token_hex(16)}"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own protocol
        dict[str, Any]: JSON_TYPE,
        list[Any]: JSON_TYPE,
        float: Double(),
        # Stored as the member's value in a plain column; reading or writing another value raises an error.
        StrEnum: Enum(
            StrEnum, native_enum=False, length=16, values_callable=lambda enum: [member.value for member in enum]
        ),
    }
