"""A model's chat template: messages become the text that the model was taught to answer.

Templates come with models and are programs in Jinja's language, so they run in Jinja's sandbox, without access to
anything but the messages, and with bounds on what they count to, multiply, add and write.

What remains is time and memory of what is not counted: loops within loops over the messages or their characters, and
strings that are joined by `~` or made by filters. A thread cannot be stopped. But templates are registered with their
base models, by whoever runs the service; a tenant chooses the messages alone.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hmi.errors import Corrupt, InvalidInput

CHAT = "chat.json"
_MAX_CHARACTERS = 100_000  # of a template
_MAX_ROUNDS = 100_000  # that a rendering counts to, all its ranges together
_MAX_SIZE = 2**24  # characters or members of what is added or repeated
_MAX_BITS = 4096  # of a number
# What a template may write: as much as it has itself, for each message some words around it, and its characters as
# JSON's longest escapes.
_WRITTEN_AROUND, _WRITTEN_FOR_ONE = 1024, 6


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
        most = _MAX_CHARACTERS + sum(_WRITTEN_AROUND + _WRITTEN_FOR_ONE * len(content) for _, content in messages)
        written, pieces = 0, []
        try:
            for piece in self._compiled.generate(
                messages=[{"role": role, "content": content} for role, content in messages],
                add_generation_prompt=True,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
                range=_Ranges(),
            ):
                written += len(piece)
                if written > most:
                    _refuse(f"it writes more than {most} characters for them")
                pieces.append(piece)
        except Exception as error:  # whatever a template does wrong
            raise InvalidInput(f"the model's chat template refused the messages: {error}", param="messages") from error
        return "".join(pieces)

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
        from jinja2.ext import Extension, loopcontrols  # noqa: PLC0415
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

        class AnswersAreMarked(Extension):
            """`{% generation %}` marks what training looks at; here it changes nothing."""

            tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

            def parse(self, parser: Any) -> Any:
                next(parser.stream)
                return parser.parse_statements(["name:endgeneration"], drop_needle=True)

        class Sandbox(ImmutableSandboxedEnvironment):
            intercepted_binops = frozenset({"+", "*", "**"})

            def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
                _check_size(operator, left, right)
                return super().call_binop(context, operator, left, right)

        # As transformers sets it up, for templates are written for that; but the date, `strftime_now`, is not told:
        # what runs again on another day gives the same answer. Templates that want one have a date of their own.
        extensions = [loopcontrols, AnswersAreMarked]
        environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
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


class _Ranges:
    """`range` for one rendering, which ends those that count too far in all."""

    def __init__(self) -> None:
        self._left = _MAX_ROUNDS

    def __call__(self, *bounds: int) -> range:
        found = range(*bounds)
        self._left -= len(found)
        if self._left < 0:
            _refuse(f"it counts to more than {_MAX_ROUNDS}")
        return found


def _check_size(operator: str, left: Any, right: Any) -> None:
    """Raises `ValueError` for what would be far larger than a template needs."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
        if bits > _MAX_BITS:
            _refuse(f"it calculates a number of {bits} bits")
        return
    sizes = [len(each) if isinstance(each, Sized) else each for each in (left, right)]
    if all(isinstance(each, int) for each in sizes):
        size = sizes[0] + sizes[1] if operator == "+" else sizes[0] * sizes[1]
        if size > _MAX_SIZE:
            _refuse(f"it makes a value of {size} characters or members")
