"""Publishing beside whatever else changes a base model's tree."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy.orm import Session

from hmi.catalog import Database, RegisteredBase, execute_dml, trees
from hmi.catalog.trees import builds, history
from tests.integration.catalog.seeding import add_base, race


def test_publishing_and_rolling_back_at_once_lock_in_one_order(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = add_base(database)
    for table in ("a", "b"):
        with database.session() as session:
            trees.publish(session, base.id, trees.begin_build(session, base.id, 60), {"general": table}, {})
    with database.session() as session:
        building = trees.begin_build(session, base.id, 60)
    changed, locked = threading.Event(), threading.Event()
    lock_base = history.lock_base

    def pause_after_change(session: Session, statement: Any) -> int:
        count = execute_dml(session, statement)
        if threading.current_thread().name == "publisher" and not changed.is_set():
            changed.set()
            # A transaction with the locks in the other order would deadlock here; without one, the wait times out.
            locked.wait(0.5)
        return count

    def record_lock(session: Session, base_id: str) -> RegisteredBase:
        row = lock_base(session, base_id)
        if threading.current_thread().name != "publisher":
            locked.set()
        return row

    monkeypatch.setattr(builds, "execute_dml", pause_after_change)
    monkeypatch.setattr(builds, "lock_base", record_lock)

    def publish() -> int:
        threading.current_thread().name = "publisher"
        with database.session() as session:
            trees.publish(session, base.id, building, {"general": "c"}, {})
        return building

    def roll_back() -> int:
        assert changed.wait(30)
        with database.session() as session:
            return trees.rollback(session, base.id)

    assert race([publish, roll_back]) == [building, 2]
