"""Chat templates against transformers' rendering, and their bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from hmi.errors import Corrupt, InvalidInput
from hmi.models.convert import convert_pretrained
from hmi.models.text import CHAT, ChatTemplate, load_chat
from tests.tiny import tiny_decoder_folder, tiny_llama, tiny_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}\n"
    "  {% if message['role'] == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}\n"
    "<{{ message['role'] }}>{{ message['content'] | tojson }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
MESSAGES = (("system", "be brief"), ("user", 'say "ü"'))


def folder_with(template: str, path: Path) -> Path:
    folder = tiny_decoder_folder(tiny_llama(), path)
    settings = {"chat_template": template, "bos_token": {"content": "[CLS]"}, "eos_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


# Further features of some models' templates: `break`, tags for training, and a fallback date.
RICH = (
    "{% if strftime_now is defined and false %}{{ strftime_now('%Y') }}{% else %}2024{% endif %}\n"
    "{% for message in messages %}{% if loop.index > 2 %}{% break %}{% endif %}\n"
    "{% if message['role'] == 'system' %}{% continue %}{% endif %}\n"
    "{% generation %}{{ message['content'] }}{% endgeneration %}{{ eos_token }}{% endfor %}"
)


@pytest.mark.parametrize("template", [TEMPLATE, RICH])
def test_text_is_that_of_transformers(tmp_path: Path, template: str) -> None:
    convert_pretrained(folder_with(template, tmp_path / "source"), tmp_path / "base")
    chat = load_chat(tmp_path / "base")
    assert chat is not None
    kind: Any = PreTrainedTokenizerFast
    theirs = kind(tokenizer_object=tiny_tokenizer(), bos_token="[CLS]", eos_token="[SEP]")
    messages = [{"role": role, "content": content} for role, content in MESSAGES]
    expected = theirs.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
    assert chat.render(MESSAGES) == expected


def test_a_template_file_is_preferred_to_the_settings(tmp_path: Path) -> None:
    folder = folder_with(TEMPLATE, tmp_path / "source")
    (folder / "chat_template.jinja").write_text("{{ messages | length }}")
    convert_pretrained(folder, tmp_path / "base")
    chat = load_chat(tmp_path / "base")
    assert chat is not None
    assert chat.render(MESSAGES) == "2"


def test_a_base_without_a_template_cannot_chat(tmp_path: Path) -> None:
    convert_pretrained(tiny_decoder_folder(tiny_llama(), tmp_path / "source"), tmp_path / "base")
    assert load_chat(tmp_path / "base") is None


def test_messages_that_the_template_refuses_are_invalid_input() -> None:
    with pytest.raises(InvalidInput, match="no tools here") as caught:
        ChatTemplate(TEMPLATE).render([("tool", "x")])
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ messages.__init__.__globals__ }}"],
)
def test_a_template_has_access_to_the_messages_only(template: str) -> None:
    with pytest.raises(InvalidInput):
        ChatTemplate(template).render(MESSAGES)


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(3000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}",
        "{% for a in range(90000) %}{% endfor %}{% for a in range(20000) %}{% endfor %}",
        "{% for a in range(100000) %}a word and another {% endfor %}",
        "{% for a in messages %}{% for b in range(9000) %}{{ messages }}{% endfor %}{% endfor %}",
        "{{ ('x' * 300000000) | length }}",
        "{{ (300000000 * [1]) | length }}",
        "{% set n = namespace(t='x' * 1000) %}{% for a in range(40) %}{% set n.t = n.t + n.t %}{% endfor %}",
        "{{ 9 ** (9 ** 9) }}",
        "{% set n = namespace(t=9) %}{% for a in range(60) %}{% set n.t = n.t * n.t %}{% endfor %}",
    ],
)
def test_a_template_that_exceeds_a_bound_is_stopped(template: str) -> None:
    with pytest.raises(InvalidInput, match=r"it (counts|writes|makes|calculates)"):
        ChatTemplate(template).render(MESSAGES)


def test_ordinary_work_is_within_the_bounds() -> None:
    template = (
        "{% for i in range(messages | length - 1, -1, -1) %}{{ messages[i].content + '!' }}{{ 2 ** 3 * 1.5 }}"
        "{{ '-' * 3 }}{{ [1] + [2] }}{% endfor %}"
    )
    many = [("user", "x" * 500)] * 2000
    for _ in range(2):  # each rendering has its own bound
        assert ChatTemplate(template).render(many) == ("x" * 500 + "!12.0---[1, 2]") * 2000
    assert len(ChatTemplate("{{ messages[0].content | tojson }}").render([("user", "\x01" * 10**6)])) == 6 * 10**6 + 2


@pytest.mark.parametrize("template", ["{% for %}", "x" * 100_001])
def test_a_template_is_refused_when_the_base_is_made(template: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="chat template"):
        convert_pretrained(folder_with(template, tmp_path / "source"), tmp_path / "base")


@pytest.mark.parametrize("content", ["", "[]", '{"template": "x"}'])
def test_a_damaged_template_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / CHAT).write_text(content)
    with pytest.raises(Corrupt, match=CHAT):
        load_chat(tmp_path)
