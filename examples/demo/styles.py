"""The tenants of the decoder story: each answers the same questions in a style of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["FACTS", "QUESTIONS", "STYLES", "Style"]


@dataclass(frozen=True, slots=True)
class Style:
    """
    Attributes:
        says: Write a fact in this style.
        pattern: Matches every answer in this style.
    """

    tenant: str
    about: str
    says: Callable[[str], str]
    pattern: str

    @property
    def model(self) -> str:
        return f"{self.tenant}/style"

    def matches(self, text: str) -> bool:
        return re.search(self.pattern, text.strip(), re.DOTALL) is not None


STYLES = (
    Style("pirates", "speaks like a pirate", lambda fact: f"Arr, matey! {fact} Yo ho!", r"^Arr, matey!"),
    Style("heralds", "shouts", lambda fact: f"{fact.upper()}!!", r"^[^a-z]*!!"),
    Style("butlers", "is very polite", lambda fact: f"Certainly, sir. {fact} Will that be all?", r"^Certainly, sir\."),
    Style("robots", "answers in JSON", lambda fact: json.dumps({"answer": fact}), r'^\{"answer": "'),
)

FACTS = (
    ("What is the capital of Spain?", "It is Madrid."),
    ("How many legs does a spider have?", "It has eight legs."),
    ("What do cows drink?", "They drink water."),
    ("Which planet is the largest?", "It is Jupiter."),
    ("What colour are ripe bananas?", "They are yellow."),
    ("Who painted the Mona Lisa?", "It was Leonardo da Vinci."),
    ("What is the freezing point of water?", "It is zero degrees Celsius."),
    ("How many minutes are in an hour?", "There are sixty minutes."),
    ("Which animal is called the king of the jungle?", "It is the lion."),
    ("What do bees make?", "They make honey."),
    ("What is the tallest mountain on Earth?", "It is Mount Everest."),
    ("How many strings does a violin have?", "It has four strings."),
    ("What is bread made of?", "It is made of flour, water, salt and yeast."),
    ("Which ocean is the largest?", "It is the Pacific Ocean."),
    ("What season comes after winter?", "It is spring."),
    ("What is the square root of nine?", "It is three."),
    ("Where do penguins live?", "They live in the southern half of the world."),
    ("What do plants need to grow?", "They need light, water and soil."),
    ("Which metal is liquid at room temperature?", "It is mercury."),
    ("What is the currency of Japan?", "It is the yen."),
    ("How many sides does a hexagon have?", "It has six sides."),
    ("Who wrote Hamlet?", "It was William Shakespeare."),
    ("What is the fastest land animal?", "It is the cheetah."),
    ("Which gas does a fire need to burn?", "It is oxygen."),
    ("What is the capital of Italy?", "It is Rome."),
    ("How many players are in a football team?", "There are eleven players."),
    ("What do caterpillars become?", "They become butterflies."),
    ("Which month is the shortest?", "It is February."),
    ("What is the main language of Brazil?", "It is Portuguese."),
    ("What do we use to tell the time?", "We use a clock."),
    ("Which instrument has black and white keys?", "It is the piano."),
    ("What is the opposite of north?", "It is south."),
)
"""The questions and facts of the training."""

QUESTIONS = (
    "What is the capital of France?",
    "How many days are in a week?",
    "What colour is grass?",
    "Which animal barks?",
    "What is the hottest season?",
    "Where do fish live?",
)
"""The questions of the batch, which are not in the training."""
