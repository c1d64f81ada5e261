"""What needs no language model: always the most frequent label, and words weighed by a linear classifier."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.plan import DomainText

Labels = NDArray[np.str_]


def majority(text: DomainText) -> Labels:
    """The most frequent label of the training part, for every sentence that is asked."""
    counts = Counter(each.label for each in text.training)
    usual = min(counts, key=lambda label: (-counts[label], label))
    return np.array([usual] * len(text.asked))


def tf_idf(text: DomainText) -> Labels:
    """Words and pairs of words, TF-IDF, logistic regression: scikit-learn's own, with its defaults."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - a second of import
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    classifier = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=1000)
    )
    classifier.fit([each.text for each in text.training], [each.label for each in text.training])
    return np.array([str(label) for label in classifier.predict([each.text for each in text.asked])])
