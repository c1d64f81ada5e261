from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from urllib.parse import quote

import openai
import pytest
from sqlalchemy import select, update

from api.uploads import display_name
from hmi.catalog import File, execute_dml
from tests.apis import Api, batch_line


def stored_files(api: Api) -> list[str]:
    folders = api.services.storage.names("files")
    return [name for folder in folders for name in api.services.storage.names(f"files/{folder}")]


def test_a_file_comes_back_as_it_went_in(api: Api) -> None:
    content = b"\x00\xff any bytes \r\n" * 1000
    with api.openai() as client:
        file = client.files.create(file=("in.jsonl", content), purpose="batch")
        assert (file.bytes, file.filename, file.purpose, file.status) == (
            len(content),
            "in.jsonl",
            "batch",
            "processed",
        )
        assert file.expires_at is None
        assert client.files.retrieve(file.id) == file
        assert client.files.wait_for_processing(file.id) == file
        assert client.files.content(file.id).read() == content
    with api.services.database.session() as session:
        row = session.get_one(File, file.id)
        assert row.sha256 == hashlib.sha256(content).hexdigest()
        assert row.path == f"files/{row.tenant_id}/{row.id}"


def test_a_deleted_file_and_its_bytes_are_gone(api: Api) -> None:
    file_id = api.upload(b"x")
    with api.services.database.session() as session:
        path = session.get_one(File, file_id).path
    with api.openai() as client:
        assert client.files.delete(file_id).deleted
        assert not api.services.storage.exists(path)
        for again in (client.files.retrieve, client.files.delete, client.files.content):
            with pytest.raises(openai.NotFoundError):
                again(file_id)


def test_files_are_listed_in_pages(api: Api) -> None:
    ids = [api.upload(b"x", name=f"{number}") for number in range(5)]
    with api.openai() as client:
        assert [file.id for file in client.files.list()] == ids[::-1]
        assert [file.id for file in client.files.list(limit=2)] == ids[::-1]
        assert [file.id for file in client.files.list(order="asc", limit=3, after=ids[0])] == ids[1:]
        assert [file.id for file in client.files.list(purpose="batch_output")] == []
        with pytest.raises(openai.BadRequestError):
            client.files.list(after="file-unknown")


def test_a_file_is_not_found_when_it_has_expired(api: Api) -> None:
    with api.openai() as client:
        file = client.files.create(file=b"x", purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600})
        assert file.expires_at == file.created_at + 3600
        with api.services.database.session() as session:
            execute_dml(session, update(File).values(expires_at=File.created_at - 1))
        for call in (client.files.retrieve, client.files.content, client.files.delete):
            with pytest.raises(openai.NotFoundError):
                call(file.id)
        assert client.files.list().data == []
        with pytest.raises(openai.NotFoundError):
            client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")


@pytest.mark.parametrize("fields", [{"purpose": "vision"}, {}, {"purpose": ""}])
def test_an_upload_is_refused_when_the_purpose_is_not_served(api: Api, fields: dict[str, str]) -> None:
    with api.http("acme") as http:
        answer = http.post("/v1/files", data=fields, files={"file": b"x"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "purpose"


def test_an_upload_is_refused_when_half_of_the_expiry_is_missing(api: Api) -> None:
    with api.http("acme") as http:
        answer = http.post(
            "/v1/files", data={"purpose": "batch", "expires_after[seconds]": "3600"}, files={"file": b"x"}
        )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "expires_after")


@pytest.mark.parametrize("size", [100_001, 3_000_000])
def test_an_upload_over_the_limit_is_413_and_leaves_nothing(api: Api, size: int) -> None:
    with api.openai() as client, pytest.raises(openai.APIStatusError) as caught:
        client.files.create(file=b"x" * size, purpose="batch")
    assert caught.value.status_code == 413
    assert caught.value.code == "request_too_large"
    assert caught.value.request_id
    assert stored_files(api) == []


def test_an_upload_in_chunks_over_the_limit_is_413(api: Api) -> None:
    def body() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 100_000

    with api.http("acme") as http:
        answer = http.post("/v1/files", content=body(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_a_full_disk_is_507_and_leaves_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with api.openai() as client, pytest.raises(openai.InternalServerError) as caught:
        client.files.create(file=b"x", purpose="batch")
    assert (caught.value.status_code, caught.value.code) == (507, "storage_full")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert stored_files(api) == []


def test_a_full_temporary_folder_is_507(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("starlette.datastructures.UploadFile.write", full)
    with api.openai() as client, pytest.raises(openai.InternalServerError) as caught:
        client.files.create(file=b"x", purpose="batch")
    assert (caught.value.status_code, caught.value.code) == (507, "storage_full")


def test_a_file_in_use_cannot_be_deleted_and_the_client_does_not_retry(api: Api) -> None:
    file_id = api.upload(batch_line())
    with api.openai(max_retries=5) as client:
        client.batches.create(input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h")
        with pytest.raises(openai.ConflictError) as caught:
            client.files.delete(file_id)
        assert caught.value.code == "file_in_use"
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"
        assert client.files.content(file_id).read() == batch_line()


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\in.jsonl", "in.jsonl"),
        ("a\u202eb\x07.html", "ab.html"),
        ("/", "file"),
        ('quote".jsonl', 'quote".jsonl'),
        ("é.jsonl", "é.jsonl"),
        ("x" * 300, "x" * 255),
    ],
)
def test_a_file_name_is_for_display_alone(api: Api, filename: str, shown: str) -> None:
    assert display_name(filename) == shown


def test_a_download_is_an_attachment_whatever_it_is(api: Api) -> None:
    file_id = api.upload(b"<script>alert(1)</script>", name="é.html")
    with api.http("acme") as http:
        answer = http.get(f"/v1/files/{file_id}/content")
    assert answer.headers["content-disposition"] == f"attachment; filename*=UTF-8''{quote('é')}.html"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "application/octet-stream"


def test_lost_content_is_said_to_be_lost(api: Api) -> None:
    file_id = api.upload(b"x")
    with api.services.database.session() as session:
        api.services.storage.delete(session.scalars(select(File.path)).one())
    with api.openai() as client, pytest.raises(openai.InternalServerError) as caught:
        client.files.content(file_id)
    assert caught.value.code == "corrupt"
