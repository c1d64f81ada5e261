"""TODO"""

from __future__ import annotations

from examples.demo.decoder import ChatFigures, ChatStory
from examples.demo.figures import DemoFigures
from examples.demo.interrupts import Interrupts
from examples.demo.making import find_pretrained
from examples.demo.smollm import fetch_smollm
from examples.demo.steps import Steps
from examples.demo.story import Story, read_text
from examples.demo.tenants import DOMAINS, FULL, QUICK, thinned
from examples.demo.text import Part, Sentence, fetch_sentences, read_sentences

__all__ = [
    "DOMAINS",
    "FULL",
    "QUICK",
    "ChatFigures",
    "ChatStory",
    "DemoFigures",
    "Interrupts",
    "Part",
    "Sentence",
    "Steps",
    "Story",
    "fetch_sentences",
    "fetch_smollm",
    "find_pretrained",
    "read_sentences",
    "read_text",
    "thinned",
]
