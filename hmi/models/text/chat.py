"""A model's chat template: it turns messages into the text that the model was trained to continue.

Templates come with models and are programs in Jinja's language. They run in Jinja's sandbox, which gives access to the
messages only, with bounds on ranges, numbers, sizes and output.

Nested loops over the messages, and strings joined by `~` or made by filters, are not bounded, and a thread cannot be
stopped. This is acceptable because the operator registers templates with the base models; a tenant chooses the
messages only.
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
_MAX_ROUNDS = 100_000  # the total length of a rendering's ranges
_MAX_SIZE = 2**24  # characters or members of a sum or a repetition
_MAX_BITS = 4096  # of a number
# The output may be as long as the template, plus, for each message, some words and its characters as JSON's longest
# escapes.
_OUTPUT_PER_MESSAGE, _OUTPUT_PER_CHARACTER = 1024, 6


@dataclass(frozen=True)
class ChatTemplate:
    template: str  # In Jinja's language, for transformers' environment
    bos_token: str = ""  # Variables of the template
    eos_token: str = ""

    def render(self, messages: Sequence[tuple[str, str]]) -> str:
        """Return the text of messages (role, content) and the answer's prompt. Raises `InvalidInput` if refused."""
        limit = _MAX_CHARACTERS + sum(
            _OUTPUT_PER_MESSAGE + _OUTPUT_PER_CHARACTER * len(content) for _, content in messages
        )
        length, pieces = 0, []
        try:
            for piece in self._compiled.generate(
                messages=[{"role": role, "content": content} for role, content in messages],
                add_generation_prompt=True,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
                range=_Ranges(),
            ):
                length += len(piece)
                if length > limit:
                    _refuse(f"it writes more than {limit} characters for them")
                pieces.append(piece)
        except Exception as error:  # a template may raise anything
            raise InvalidInput(f"the model's chat template refused the messages: {error}", param="messages") from error
        return "".join(pieces)

    def check(self) -> None:
        """Raises `InvalidInput` for a template that is too long or cannot be parsed."""
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

        class GenerationTag(Extension):
            """`{% generation %}` encloses what a model is trained on; here it has no effect."""

            tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

            def parse(self, parser: Any) -> Any:
                next(parser.stream)
                return parser.parse_statements(["name:endgeneration"], drop_needle=True)

        class Sandbox(ImmutableSandboxedEnvironment):
            intercepted_binops = frozenset({"+", "*", "**"})

            def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
                _check_size(operator, left, right)
                return super().call_binop(context, operator, left, right)

        # The environment of transformers, which templates are written for, without the date (`strftime_now`): a batch
        # that runs again on another day gives the same answer. Templates fall back to a fixed date.
        extensions = [loopcontrols, GenerationTag]
        environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        environment.globals["raise_exception"] = _refuse
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        return environment.from_string(self.template)


def load_chat(folder: Path) -> ChatTemplate | None:
    """Load the chat template of a base artifact; None where it has none. Raises `Corrupt`."""
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
    """`range` for one rendering, with a bound on the total length."""

    def __init__(self) -> None:
        self._left = _MAX_ROUNDS

    def __call__(self, *bounds: int) -> range:
        found = range(*bounds)
        self._left -= len(found)
        if self._left < 0:
            _refuse(f"it counts to more than {_MAX_ROUNDS}")
        return found


def _check_size(operator: str, left: Any, right: Any) -> None:
    """Raises `ValueError` for a result that is far larger than a template needs."""
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
