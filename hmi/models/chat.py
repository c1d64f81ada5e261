"""A model's chat template: messages become the text that the model was taught to answer.

Templates come with models and are programs in Jinja's language, so they run in Jinja's sandbox, without access to
anything but the messages.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hmi.errors import Corrupt, InvalidInput

__all__ = ["CHAT", "ChatTemplate", "load_chat"]

CHAT = "chat.json"
_MAX_CHARACTERS = 100_000  # of a template


@dataclass(frozen=True)
class ChatTemplate:
    """
    Attributes:
        template: In Jinja's language, as transformers' tokenizers have it.
        bos_token, eos_token: What it may call by these names.
    """

    template: str
    bos_token: str = ""
    eos_token: str = ""

    def render(self, messages: Sequence[tuple[str, str]]) -> str:
        """The text of messages (role, content), with the beginning of the answer.

        Raises `InvalidInput` for messages that the template does not take.
        """
        try:
            text: str = self._compiled.render(
                messages=[{"role": role, "content": content} for role, content in messages],
                add_generation_prompt=True,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
            )
        except Exception as error:  # whatever a template does wrong
            raise InvalidInput(f"the model's chat template refused the messages: {error}", param="messages") from error
        return text

    def check(self) -> None:
        """Raises `InvalidInput` for a template that cannot be read."""
        import jinja2  # noqa: PLC0415

        if len(self.template) > _MAX_CHARACTERS:
            raise InvalidInput(f"the chat template has {len(self.template)} characters")
        try:
            _ = self._compiled
        except jinja2.TemplateError as error:
            raise InvalidInput(f"the chat template cannot be read: {error}") from error

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @functools.cached_property
    def _compiled(self) -> Any:
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

        # As transformers sets it up: templates are written for that.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        return environment.from_string(self.template)


def load_chat(folder: Path) -> ChatTemplate | None:
    """That of a base artifact; None where it has none. Raises `Corrupt`."""
    path = folder / CHAT
    if not path.exists():
        return None
    try:
        raw = json.loads(path.read_text())
        return ChatTemplate(raw["template"], raw["bos_token"], raw["eos_token"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{folder.name}: {CHAT} cannot be read: {error}") from error


def _refuse(message: str) -> None:
    raise ValueError(message)
