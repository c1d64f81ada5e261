"""Text as models see it, without torch: chat templates, words of a tokenized text, and BIO tags of words."""

from __future__ import annotations

from hmi.models.text.chat import CHAT, ChatTemplate, load_chat
from hmi.models.text.words import BEGIN, INSIDE, OUTSIDE, Word, bio_entities, is_bio, words_of

__all__ = [
    "BEGIN",
    "CHAT",
    "INSIDE",
    "OUTSIDE",
    "ChatTemplate",
    "Word",
    "bio_entities",
    "is_bio",
    "load_chat",
    "words_of",
]
