"""Files: listing in pages, deleting, and whose they are."""

from __future__ import annotations

import pytest

from hmi.catalog import Batch, Database, File, NewFile, Tenant, database_time, new_id
from hmi.catalog.batches import cancel_batch
from hmi.catalog.database import Page
from hmi.catalog.finalizing import begin_finalizing, complete
from hmi.catalog.registry.files import create_file, delete_expired_files, delete_file, get_file, list_files
from hmi.errors import Conflict, InvalidInput, NotFound
from tests.integration.catalog.seeding import add_file, add_tenant, race, submit


def test_pages_join_to_the_whole_list_when_read_one_by_one(database: Database) -> None:
    acme, rival = add_tenant(database), add_tenant(database, "rival")
    with database.session() as session:  # one transaction: some of them share their time
        made = [_create(session, acme) for _ in range(7)]
        _create(session, rival)
    by_time = [file.id for file in sorted(made, key=lambda file: (file.created_at, file.id))]
    with database.session(read_only=True) as session:
        for order, expected in (("asc", by_time), ("desc", by_time[::-1])):
            ids: list[str] = []
            page: Page[File] = Page([], has_more=True)
            while page.has_more:
                after = ids[-1] if ids else None
                page = list_files(session, acme.id, after=after, limit=3, order=order)  # type: ignore[arg-type]
                ids += [file.id for file in page.items]
            assert ids == expected
        assert list_files(session, acme.id, limit=7).has_more is False
        assert list_files(session, acme.id, limit=6).has_more is True
        assert list_files(session, acme.id, purpose="batch_output").items == []
        assert len(list_files(session, acme.id, purpose="batch").items) == 7


def _create(session: object, tenant: Tenant) -> File:
    return create_file(
        session,  # type: ignore[arg-type]
        tenant.id,
        NewFile(file_id=new_id("file-"), purpose="batch", filename="f", bytes=1, sha256="", path=""),
    )


def test_listing_after_nothing_is_refused_when_the_id_is_unknown_or_foreign(database: Database) -> None:
    acme, rival = add_tenant(database), add_tenant(database, "rival")
    foreign = add_file(database, rival)
    for after in (foreign.id, "file-unknown"):
        with database.session() as session, pytest.raises(InvalidInput):
            list_files(session, acme.id, after=after)


def test_a_foreign_file_is_not_found_like_an_unknown_one(database: Database) -> None:
    acme, rival = add_tenant(database), add_tenant(database, "rival")
    file = add_file(database, acme)
    with database.session() as session:
        for act in (get_file, delete_file):
            with pytest.raises(NotFound):
                act(session, rival.id, file.id)
        assert get_file(session, acme.id, file.id).path == file.path
        assert delete_file(session, acme.id, file.id).path == file.path
        with pytest.raises(NotFound):
            get_file(session, acme.id, file.id)


def test_a_file_is_absent_and_swept_when_its_time_is_over(database: Database) -> None:
    acme = add_tenant(database)
    with database.session() as session:
        moment = database_time(session)
    old, young = add_file(database, acme, expires_at=moment - 1), add_file(database, acme, expires_at=moment + 1000)
    with database.session() as session:
        with pytest.raises(NotFound):
            get_file(session, acme.id, old.id)
        assert [file.id for file in list_files(session, acme.id).items] == [young.id]
        assert [file.path for file in delete_expired_files(session)] == [old.path]
        assert delete_expired_files(session) == []


def test_a_file_stays_when_an_open_batch_reads_it(database: Database) -> None:
    acme = add_tenant(database)
    file = add_file(database, acme)
    with database.session() as session:
        batch = submit(session, acme, file)
    with pytest.raises(Conflict), database.session() as session:
        delete_file(session, acme.id, file.id)
    with database.session() as session:
        cancel_batch(session, acme.id, batch.id)
    with pytest.raises(Conflict), database.session() as session:
        delete_file(session, acme.id, file.id)
    with database.session() as session:
        assert begin_finalizing(session, batch.id)
        assert complete(session, batch.id, output=None, error=None)
    with database.session() as session:
        delete_file(session, acme.id, file.id)


def test_a_file_is_deleted_or_read_never_both_when_the_two_race(database: Database) -> None:
    acme = add_tenant(database)
    for _ in range(5):
        file = add_file(database, acme)

        def read(file: File = file) -> Batch:
            with database.session() as session:
                return submit(session, acme, file)

        def drop(file: File = file) -> File:
            with database.session() as session:
                return delete_file(session, acme.id, file.id)

        submitted, deleted = race([read, drop])
        assert (type(submitted), type(deleted)) in {(Batch, Conflict), (NotFound, File)}


@pytest.mark.parametrize("filename", ["x" * 256, "a\0b", "\ud800"])
def test_a_filename_is_refused_when_it_cannot_be_kept(database: Database, filename: str) -> None:
    acme = add_tenant(database)
    with database.session() as session, pytest.raises(InvalidInput):
        create_file(
            session,
            acme.id,
            NewFile(file_id="f", purpose="batch", filename=filename, bytes=1, sha256="", path="p"),
        )
