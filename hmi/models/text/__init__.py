"""TODO"""

from __future__ import annotations

from hmi.models.text.chat import CHAT, ChatTemplate, load_chat
from hmi.models.text.tags import BEGIN, INSIDE, OUTSIDE, chunks, is_bio
from hmi.models.text.words import Word, words_of

__all__ = ["BEGIN", "CHAT", "INSIDE", "OUTSIDE", "ChatTemplate", "Word", "chunks", "is_bio", "load_chat", "words_of"]
