"""Training files: every shape that is understood, and every kind of error, with its line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence

import pytest

from hmi.errors import InvalidInput
from hmi.spec import TaskKind
from hmi.training.data import (
    AnyExample,
    Example,
    FileFormat,
    LabelledLimits,
    MultiLabelExample,
    PairExample,
    Span,
    TaggedExample,
    check_labelled,
    read_labelled,
)
from hmi.training.data.labelled import MAX_PROBLEMS
from hmi.training.data.records import Problem


def lines(*records: object) -> io.BytesIO:
    return io.BytesIO("".join(json.dumps(each) + "\n" for each in records).encode())


def read(content: bytes | io.BytesIO, form: FileFormat = FileFormat.JSONL) -> Sequence[AnyExample]:
    return read_labelled(io.BytesIO(content) if isinstance(content, bytes) else content, form).examples


def problem_of(content: bytes, form: FileFormat = FileFormat.JSONL, **options: object) -> Problem:
    """The only one; the reader for the command line raises the same."""
    found = check_labelled(io.BytesIO(content), form, **options).problems  # type: ignore[arg-type]
    with pytest.raises(InvalidInput) as raised:
        read_labelled(io.BytesIO(content), form, name="data", **options)  # type: ignore[arg-type]
    assert raised.value.message == found[0].error("data").message
    assert raised.value.code == found[0].code
    assert len(found) == 1
    return found[0]


def test_each_shape_gives_its_example_when_no_task_is_given() -> None:
    assert read(lines({"text": "a", "label": "x"}, {"text": "b", "label": "y"})) == (
        Example("a", "x"),
        Example("b", "y"),
    )
    assert read(lines({"text": "a", "labels": ["y", "x", "y"]}, {"text": "b", "labels": []})) == (
        MultiLabelExample("a", ("x", "y")),
        MultiLabelExample("b", ()),
    )
    assert read(lines({"tokens": ["Ada", "L."], "tags": ["B-PER", "O"]})) == (
        TaggedExample("Ada L.", (Span(0, 3, "B-PER"), Span(4, 6, "O")), entities=False),
    )
    assert read(lines({"text": "Ada L.", "spans": [{"start": 0, "end": 3, "label": "PER"}]})) == (
        TaggedExample("Ada L.", (Span(0, 3, "PER"),), entities=True),
    )
    assert read(lines({"text": "a", "positive": "b", "negative": "c"}, {"text": "d", "positive": "e"})) == (
        PairExample("a", "b", "c"),
        PairExample("d", "e"),
    )


def test_chat_form_gives_text_and_label_when_it_has_two_messages() -> None:
    def chat(text: str, label: str) -> dict[str, object]:
        return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}]}

    assert read(lines(chat("a", "x"), chat("b", "y"))) == (Example("a", "x"), Example("b", "y"))


def test_json_lines_and_csv_give_the_same_when_they_hold_the_same() -> None:
    of_json = read(
        b'\xef\xbb\xbf{"text": "good, \\"very\\"", "label": "pos"}\r\n\r\n{"text": "two\\nlines", "label": 0}'
    )
    of_csv = read(b'\xef\xbb\xbflabel,text\r\npos,"good, ""very"""\r\n0,"two\nlines"\r\n', FileFormat.CSV)
    assert of_json == of_csv == (Example('good, "very"', "pos"), Example("two\nlines", "0"))


def test_other_names_are_read_when_they_are_given() -> None:
    stream = lines({"review": "a", "stars": 1}, {"review": "b", "stars": True})
    found = read_labelled(stream, text_field="review", label_field="stars").examples
    assert found == (Example("a", "1"), Example("b", "true"))


GOOD = b'{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n'


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        (b'{"text":', "invalid_json_line", "not JSON: Expecting value at column 9"),
        (b"[1]", "invalid_json_line", "not a JSON object"),
        (b'{"text": "caf\xe9", "label": "x"}', "invalid_json_line", "not UTF-8 at byte 13"),
        (b'{"text": "a", "label": NaN}', "invalid_json_line", "NaN is not a JSON value"),
        (b'{"text": "a", "label": "x", "label": "y"}', "invalid_json_line", "field 'label' comes twice"),
        (b'{"text": "a", "label": "x", "more": ' + b"[" * 40 + b"]" * 40 + b"}", "invalid_json_line", "nests deeper"),
        (b'{"text": "a", "label": "x", "more": ' + b"[" * 100_000, "invalid_json_line", "nests deeper"),
        (b'{"text": "a", "label": ' + b"1" * 5000 + b"}", "invalid_json_line", "integer"),
        (b'{"text": "a", "lable": "x"}', "wrong_fields", "fields are text, lable; expected are text, label; or"),
        (b"{}", "wrong_fields", "fields are none"),
        (b'{"text": "", "label": "x"}', "invalid_value", "text is empty"),
        (b'{"text": " \\n\\u00a0", "label": "x"}', "invalid_value", "text is empty"),
        (b'{"text": null, "label": "x"}', "invalid_value", "text must be a string, not null"),
        (b'{"text": ["a"], "label": "x"}', "invalid_value", "text must be a string, not a list"),
        (b'{"text": "\\ud83d", "label": "x"}', "invalid_value", "half a surrogate pair"),
        (b'{"text": "a", "label": ""}', "invalid_value", "label is empty"),
        (b'{"text": "a", "label": null}', "invalid_value", "label must be a name, not null"),
        (b'{"text": "a", "label": 0.5}', "invalid_value", "label must be a name, not a number"),
        (b'{"text": "a", "label": "x\\u0000"}', "invalid_value", "label holds control characters"),
        (b'{"text": "a", "label": "\\udc00"}', "invalid_value", "label holds control characters"),
        (b'{"text": "a", "label": "' + b"x" * 300 + b'"}', "invalid_value", "longer than 256 characters"),
        (b'{"text": "a", "labels": ["x"]}', "mixed_tasks", "for multi_label, and line 1 was for classification"),
        (b'{"tokens": ["a"], "tags": ["x"]}', "mixed_tasks", "for tokens, and line 1"),
        (b'{"text": "a", "label": "x", "messages": []}', "ambiguous_fields", "text, label or messages"),
        (b'{"messages": [{"role": "system", "content": "Be kind."}]}', "invalid_value", "[0] is a system message"),
        (b'{"messages": [{"role": "user", "content": "a"}]}', "invalid_value", "one of the user"),
        (b'{"messages": [{"role": "user", "content": "a", "name": "n"}]}', "invalid_value", "and nothing else"),
        (b'{"messages": "a"}', "invalid_value", "messages must be a list, not a string"),
    ],
)  # fmt: skip
def test_line_and_reason_are_named_when_one_line_is_wrong(line: bytes, code: str, reason: str) -> None:
    found = problem_of(GOOD + line + b"\n")
    assert (found.line, found.code) == (3, code)
    assert reason in found.reason
    assert found.error("f.jsonl").message == f"f.jsonl line 3: {found.reason}"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens and 1 tags"),
        ({"tokens": [], "tags": []}, "tokens is empty"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "tokens[1] is empty"),
        ({"tokens": ["a", 1], "tags": ["O", "O"]}, "tokens[1] must be a string"),
        ({"tokens": ["a"], "tags": [None]}, "tags[0] must be a name, not null"),
        ({"text": "a b", "spans": [{"start": 0, "end": 4, "label": "X"}]}, "within the 3 characters"),
        ({"text": "a b", "spans": [{"start": 1, "end": 1, "label": "X"}]}, "begin before it ends"),
        ({"text": "a b", "spans": [{"start": True, "end": 2, "label": "X"}]}, "begin before it ends"),
        ({"text": "a b", "spans": [{"start": 1, "end": 2, "label": "X"}]}, "nothing but white space"),
        ({"text": "a b", "spans": [{"start": 0, "end": 1}]}, "start, end and label"),
        ({"text": "a b", "spans": [{"start": 0, "end": 1, "label": "X" * 255}]}, "longer than 256"),
        (
            {"text": "abc", "spans": [{"start": 1, "end": 3, "label": "X"}, {"start": 0, "end": 2, "label": "Y"}]},
            "spans 0-2 and 1-3 overlap",
        ),
        ({"text": "a b", "spans": 1}, "spans must be a list, not a number"),
    ],
)
def test_line_and_reason_are_named_when_tags_are_wrong(record: object, reason: str) -> None:
    first = {"tokens": ["a"], "tags": ["X"]}
    found = problem_of(lines(first, record).read())
    assert found.line == 2
    assert reason in found.reason


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"text,label\na\n", 2, "the record has 1 fields, the heading 2"),
        (b"text,label\na,x\nb,y,z\n", 3, "the record has 3 fields"),
        (b"sentence,label\na,x\n", 2, "fields are sentence, label; expected are text, label"),
        (b"text,text\na,x\n", 1, "a column twice"),
        (b'text,label\n"two\nlines",x\n,y\n', 4, "text is empty"),
        (b"text,label\na,x\ncaf\xe9,y\n", 3, "not UTF-8 at byte 3"),
        (b'text,label\na,x\n"never closed,y\n', 3, "not CSV: unexpected end of data"),
        (b"text,label\ra,x\r", 1, "not CSV: new-line character"),
        (b"text,labels\na,x\n", 2, "labels must be a list, not a string"),
        (b"", None, "there are no examples"),
        (b"text,label\n", None, "there are no examples"),
    ],
)
def test_physical_line_is_named_when_csv_is_wrong(content: bytes, line: int | None, reason: str) -> None:
    found = problem_of(content, FileFormat.CSV)
    assert found.line == line
    assert reason in found.reason


def test_field_of_csv_may_be_as_long_as_a_line() -> None:
    long = "w " * 200_000
    content = f"text,label\n{long},a\nb,c\n".encode()
    assert read(content, FileFormat.CSV)[0] == Example(long, "a")
    limits = LabelledLimits(max_line_bytes=300_000)
    assert problem_of(content, FileFormat.CSV, limits=limits).code == "line_too_long"


def test_csv_is_refused_when_a_quote_is_not_closed() -> None:
    rows = b"a,x\n" * 1000
    found = problem_of(b'text,label\n"' + rows, FileFormat.CSV, limits=LabelledLimits(max_line_bytes=500))
    assert found.code == "line_too_long"
    assert "begins on line 2" in found.reason


@pytest.mark.parametrize(
    ("records", "code", "reason"),
    [
        ([], "empty_file", "no examples"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], "one_label", "all 2 examples have the label 'x'"),
        ([{"text": "a", "labels": []}], "no_label", "none of 1 examples"),
        ([{"tokens": ["a", "b"], "tags": ["O", "O"]}], "word_labels", "no example has a labelled word"),
        ([{"tokens": ["a", "b"], "tags": ["X", "X"]}], "word_labels", "only 'X' is there"),
        ([{"text": "a", "spans": []}], "word_labels", "no example has a labelled word"),
        (
            [{"tokens": ["a"], "tags": ["X"]}, {"text": "a", "spans": [{"start": 0, "end": 1, "label": "Y"}]}],
            "word_labels",
            "some examples name parts of the text",
        ),
        (
            [{"text": "a", "spans": [{"start": 0, "end": 1, "label": f"n{number}"}]} for number in range(600)],
            "word_labels",
            "at most 1024 labels, and these examples make 1201",
        ),
        ([{"text": "a", "positive": "b"}, {"text": "c", "positive": "b"}], "one_text", "at least two texts"),
    ],
)
def test_file_is_refused_when_it_lacks_labels_or_examples(records: Sequence[object], code: str, reason: str) -> None:
    found = problem_of(lines(*records).read())
    assert found.code == code
    assert reason in found.reason
    assert found.line == (1 if records else None)
    judging = check_labelled(lines(*records), dev=True)
    assert bool(judging.problems) == (not records)


def test_harmless_peculiarities_are_accepted() -> None:
    content = (
        b'\xef\xbb\xbf\r\n{"label": "x", "text": "nul \\u0000 and \\u2028", "id": 7}\r\n \n{"text": "b", "label": -1}'
    )
    found = read_labelled(io.BytesIO(content))
    assert found.examples == (Example("nul \0 and \u2028", "x"), Example("b", "-1"))
    assert found.warnings == ("fields that are not read: id",)


def test_conflicting_duplicates_give_a_warning() -> None:
    found = check_labelled(lines(*({"text": "a", "label": label} for label in "xyxz")))
    assert found.problems == ()
    assert found.warnings == ("2 examples repeat a text with another label, line 2 that of line 1 first",)
    assert found.labels == {"x": 2, "y": 1, "z": 1}
    assert (found.kind, found.examples, found.characters) == (TaskKind.CLASSIFICATION, 4, 4)


def test_labels_are_read_without_white_space_around_them() -> None:
    plain = lines({"text": "a", "label": " x\u00a0"}, {"text": "b", "label": "y\t"})
    assert read(plain) == (Example("a", "x"), Example("b", "y"))
    assert read(b"text,label\na, x\nb,y \nc,x\n", FileFormat.CSV) == (
        Example("a", "x"),
        Example("b", "y"),
        Example("c", "x"),
    )
    assert problem_of(b'{"text": "a", "label": " \\t"}\n').line == 1


def test_labels_that_look_alike_give_a_warning() -> None:
    names = ("caf\u00e9", "cafe\u0301", "CAF\u00c9", "tea")
    found = read_labelled(lines(*({"text": str(number), "label": name} for number, name in enumerate(names))))
    assert len({each.label for each in found.examples if isinstance(each, Example)}) == 4
    (warning,) = found.warnings
    assert warning.endswith(r": 'caf\xe9', 'cafe\u0301', 'CAF\xc9'")


def test_given_task_decides_when_fields_would_allow_another() -> None:
    record = {"text": "a", "label": "x", "labels": ["x", "y"]}
    assert check_labelled(lines(record)).problems[0].code == "ambiguous_fields"
    found = read_labelled(lines(record), kind=TaskKind.MULTI_LABEL)
    assert found.examples == (MultiLabelExample("a", ("x", "y")),)
    wrong = problem_of(lines({"text": "a", "label": "x"}).read(), kind=TaskKind.TOKENS)
    assert wrong.reason == "its fields are text, label; expected are tokens, tags; or text, spans"


def test_reading_ends_when_there_is_too_much_of_something() -> None:
    many = [{"text": f"t{n}", "label": f"l{n}"} for n in range(50)]
    labels = check_labelled(lines(*many), limits=LabelledLimits(max_labels=10))
    assert [(each.line, each.code) for each in labels.problems] == [(11, "too_many_labels")]
    assert labels.examples == 11
    examples = check_labelled(lines(*many), limits=LabelledLimits(max_examples=20))
    assert [(each.line, each.code) for each in examples.problems] == [(21, "too_many_examples")]
    bad = check_labelled(io.BytesIO(b"{}\n" * 1000))
    assert len(bad.problems) == MAX_PROBLEMS
    assert bad.problems[-1].line == MAX_PROBLEMS


class Endless(io.RawIOBase):
    """A line too long to hold in memory; records how much is read at a time."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.largest = 0

    def readable(self) -> bool:
        return True

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size > 0
        self.largest = max(self.largest, size)
        given = min(size, self._left)
        self._left -= given
        return b"x" * given


@pytest.mark.parametrize("form", FileFormat)
def test_line_of_100_mb_is_refused_without_holding_it(form: FileFormat) -> None:
    stream = Endless(100 * 1024**2)
    found = check_labelled(stream, form)  # type: ignore[arg-type]
    assert [(each.line, each.code) for each in found.problems] == [(1, "line_too_long")]
    assert found.problems[0].reason == "the line is 104857600 bytes long; at most 1048576 are allowed"
    assert stream.largest <= 1024**2 + 2


def test_field_that_comes_twice_is_found_when_there_are_a_hundred_thousand() -> None:
    def fields() -> Iterator[str]:
        yield from (f'"f{n}": 0' for n in range(50_000))
        yield '"f49999": 1'

    found = problem_of(("{" + ", ".join(fields()) + "}\n").encode())
    assert "'f49999' comes twice" in found.reason
