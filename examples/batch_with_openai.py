"""One batch of classifications against running services, with the official `openai` client.

    hmi up                                  # in another terminal; it prints the address and a key
    python -m examples.batch_with_openai --model acme/sentiment --key KEY "A fine film." "Much too long."

It needs the package `openai` and nothing of HMI.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Sequence
from typing import Any

from openai import OpenAI

__all__ = ["main"]

ENDPOINT: Any = "/v1/classify"  # HMI's own; the client's type has OpenAI's endpoints alone
ENDED = {"completed", "failed", "expired", "cancelled"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Classify texts in one batch.")
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--model", required=True, help="tenant/model")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="address of the API")
    parser.add_argument("--key", required=True, help="the tenant's key, or the admin key that `hmi up` prints")
    options = parser.parse_args(arguments)

    lines = [
        {
            "custom_id": str(number),
            "method": "POST",
            "url": ENDPOINT,
            "body": {"model": options.model, "input": text},
        }
        for number, text in enumerate(options.texts)
    ]
    with OpenAI(base_url=f"{options.url}/v1", api_key=options.key) as client:
        content = "\n".join(map(json.dumps, lines)).encode()
        file = client.files.create(file=("batch.jsonl", io.BytesIO(content)), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
        while batch.status not in ENDED:
            time.sleep(0.5)
            batch = client.batches.retrieve(batch.id)
        for file_id in (batch.output_file_id, batch.error_file_id):
            for answer in client.files.content(file_id).text.splitlines() if file_id else ():
                print_answer(options.texts, json.loads(answer))
    if batch.status != "completed" or batch.error_file_id:
        raise SystemExit(f"batch {batch.id} is {batch.status}; see the errors above")


def print_answer(texts: Sequence[str], answer: dict[str, Any]) -> None:
    text, body = texts[int(answer["custom_id"])], (answer["response"] or {}).get("body", {})
    if error := answer["error"] or body.get("error"):
        print(f"{text!r}: error: {error['message']}")
    else:
        best = body["data"][0]
        print(f"{text!r}: {best['label']} ({max(best['probs']):.2f})")


if __name__ == "__main__":
    main()
