"""The database under the catalog: connections and transactions, its clock, errors, migrations, pages of rows.

Start with `engine.Database`, whose `session` every other function of the catalog gets.
"""

from __future__ import annotations

from hmi.catalog.database.engine import Database
from hmi.catalog.database.migrate import is_schema_current, upgrade_schema
from hmi.catalog.database.pages import Order, Page, read_page
from hmi.catalog.database.statements import (
    bit_count,
    database_time,
    execute_dml,
    insert_or,
    lock_for_transaction,
    log,
    now,
)

__all__ = [
    "Database",
    "Order",
    "Page",
    "bit_count",
    "database_time",
    "execute_dml",
    "insert_or",
    "is_schema_current",
    "lock_for_transaction",
    "log",
    "now",
    "read_page",
    "upgrade_schema",
]
