"""From a record's fields to an example: the fields decide the task and are checked for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hmi.adapters import label_fault
from hmi.errors import InvalidInput
from hmi.jsonlines import is_text
from hmi.spec import TaskKind
from hmi.training.data.examples import (
    AnyExample,
    ChatExample,
    CompletionExample,
    Example,
    MultiLabelExample,
    PairExample,
    Span,
    TaggedExample,
)

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to write an example."""

    kind: TaskKind
    required: tuple[str, ...]  # fields
    parse: Callable[[Fields], AnyExample]  # raises `InvalidInput`
    optional: tuple[str, ...] = ()
    explicit: bool = False  # used only if the task was named, since other shapes contain its fields


def shapes_with(text_field: str, label_field: str) -> tuple[Shape, ...]:
    """All shapes, with these names of the fields `text` and `label`."""

    def classified(fields: Fields) -> Example:
        return Example(_text(fields, text_field), _label(fields[label_field], label_field))

    def labelled(fields: Fields) -> MultiLabelExample:
        names = [_label(name, "labels") for name in _list(fields, "labels")]
        return MultiLabelExample(_text(fields, text_field), tuple(sorted(set(names))))

    def spanned(fields: Fields) -> TaggedExample:
        text = _text(fields, text_field)
        return TaggedExample(text, _spans(_list(fields, "spans"), text), entities=True)

    def paired(fields: Fields) -> PairExample:
        negative = _text(fields, "negative") if fields.get("negative") not in (None, "") else None
        return PairExample(_text(fields, text_field), _text(fields, "positive"), negative)

    def continued(fields: Fields) -> CompletionExample:
        prompt = fields["prompt"]
        return CompletionExample(prompt if prompt == "" else _text(fields, "prompt"), _text(fields, "completion"))

    def plain(fields: Fields) -> CompletionExample:
        return CompletionExample("", _text(fields, text_field))

    return (
        Shape(TaskKind.CLASSIFICATION, (text_field, label_field), classified),
        Shape(TaskKind.CLASSIFICATION, ("messages",), _conversation),
        Shape(TaskKind.MULTI_LABEL, (text_field, "labels"), labelled),
        Shape(TaskKind.TOKENS, ("tokens", "tags"), _tagged),
        Shape(TaskKind.TOKENS, (text_field, "spans"), spanned),
        Shape(TaskKind.EMBEDDING, (text_field, "positive"), paired, ("negative",)),
        Shape(TaskKind.LANGUAGE, ("prompt", "completion"), continued),
        Shape(TaskKind.LANGUAGE, (text_field,), plain, explicit=True),
        Shape(TaskKind.LANGUAGE, ("messages",), _chat, explicit=True),
    )


def _conversation(fields: Fields) -> Example:
    """OpenAI's chat form: the user's message is the text, the assistant's the label."""
    contents = {}
    for place, message in enumerate(_list(fields, "messages")):
        if not isinstance(message, dict) or message.keys() != {"role", "content"}:
            raise _wrong(f"messages[{place}] must be an object with role and content, and nothing else")
        role = message["role"]
        if role in ("system", "developer"):
            raise _wrong(f"messages[{place}] is a {role} message: a classifier has no prompt, so leave it out")
        if place > 1 or role != ("user", "assistant")[place]:
            raise _wrong("messages must be one of the user, the text, and then one of the assistant, its label")
        contents[role] = message["content"]
    if len(contents) < 2:
        raise _wrong("messages must be one of the user, the text, and then one of the assistant, its label")
    return Example(_text(contents, "user"), _label(contents["assistant"], "assistant"))


def _chat(fields: Fields) -> ChatExample:
    """OpenAI's chat form: the last message, the assistant's, is trained."""
    messages = []
    for place, message in enumerate(_list(fields, "messages")):
        name = f"messages[{place}]"
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys() <= {"role", "content", "name"}:
            raise _wrong(f"{name} must be an object with role and content, and nothing else")
        role = message["role"]
        if role not in ("system", "developer", "user", "assistant"):
            raise _wrong(f"{name}.role must be system, developer, user or assistant")
        content = _text({f"{name}.content": message["content"]}, f"{name}.content")
        messages.append(("system" if role == "developer" else role, content))
    if len(messages) < 2 or messages[-1][0] != "assistant":
        raise _wrong("messages must end with one of the assistant, the answer to those before it")
    return ChatExample(tuple(messages[:-1]), messages[-1][1])


def _tagged(fields: Fields) -> TaggedExample:
    words, tags = _list(fields, "tokens"), _list(fields, "tags")
    if len(words) != len(tags):
        raise _wrong(f"there are {len(words)} tokens and {len(tags)} tags")
    if not words:
        raise _wrong("tokens is empty")
    spans, end = [], -1
    for place, (word, tag) in enumerate(zip(words, tags, strict=True)):
        name = f"tokens[{place}]"
        start, end = end + 1, end + 1 + len(_text({name: word}, name))
        spans.append(Span(start, end, _label(tag, f"tags[{place}]")))
    return TaggedExample(" ".join(words), tuple(spans), entities=False)


def _spans(raw: list[Any], text: str) -> tuple[Span, ...]:
    spans = []
    for place, each in enumerate(raw):
        name = f"spans[{place}]"
        if not isinstance(each, dict) or each.keys() != {"start", "end", "label"}:
            raise _wrong(f"{name} must be an object with start, end and label, and nothing else")
        start, end = each["start"], each["end"]
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
            raise _wrong(f"{name} must begin before it ends, within the {len(text)} characters of the text")
        if not text[start:end].strip():
            raise _wrong(f"{name} covers nothing but white space")
        label = _label(each["label"], f"{name}.label")
        if fault := label_fault(f"B-{label}"):
            raise _wrong(f"{name}.label {fault}")
        spans.append(Span(start, end, label))
    spans.sort(key=lambda span: span.start)
    for one, after in itertools.pairwise(spans):
        if after.start < one.end:
            raise _wrong(f"spans {one.start}-{one.end} and {after.start}-{after.end} overlap")
    return tuple(spans)


def _text(fields: Fields, name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise _wrong(f"{name} must be a string, not {_type(value)}")
    if not value.strip():
        raise _wrong(f"{name} is empty")
    if not is_text(value):
        raise _wrong(f"{name} holds half a surrogate pair, which is no character")
    return value


def _label(value: object, name: str) -> str:
    """A name without white space around it; integers and booleans become their JSON text."""
    if isinstance(value, bool):
        value = "true" if value else "false"
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str):
        raise _wrong(f"{name} must be a name, not {_type(value)}")
    value = value.strip()
    if not value:
        raise _wrong(f"{name} is empty")
    if fault := label_fault(value):
        raise _wrong(f"{name} {fault}")
    return value


def _list(fields: Fields, name: str) -> list[Any]:
    value = fields[name]
    if not isinstance(value, list):
        raise _wrong(f"{name} must be a list, not {_type(value)}")
    return value


def _type(value: object) -> str:
    names = {
        str: "a string",
        list: "a list",
        dict: "an object",
        float: "a number",
        int: "a number",
        bool: "a truth value",
    }
    return names.get(type(value), "null")


def _wrong(reason: str) -> InvalidInput:
    return InvalidInput(reason, code="invalid_value")
