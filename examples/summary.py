"""The work of `service.py`: pick a text's most telling sentences (TextRank, in plain Python).

Some 10 ms for a page or two. A module of its own, so that workers import this, and not the web framework as well.
"""

import math
import re
from collections import Counter

MOST = 1000  # sentences that are looked at: the work grows with the square of their number

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"[a-z]{4,}")


def rank(bags: list[Counter[str]], rounds: int = 20) -> list[float]:
    """Return how central each sentence is: it is similar to sentences that are central themselves."""
    weights = [[0.0] * len(bags) for _ in bags]
    for i, one in enumerate(bags):
        for j in range(i):
            if common := one.keys() & bags[j].keys():
                weights[i][j] = weights[j][i] = len(common) / (math.log(1 + len(one)) + math.log(1 + len(bags[j])))
    sums = [sum(row) or 1.0 for row in weights]
    ranks = [1.0] * len(bags)
    for _ in range(rounds):
        shares = [rank / total for rank, total in zip(ranks, sums, strict=True)]
        ranks = [0.15 + 0.85 * sum(map(float.__mul__, row, shares)) for row in weights]
    return ranks


def summarise(text: str, count: int) -> tuple[list[str], list[str]]:
    """Return so many sentences, in the text's order, and the five words that are most frequent in them."""
    sentences = _SENTENCE.split(text.strip())[:MOST]
    bags = [Counter(_WORD.findall(sentence.lower())) for sentence in sentences]
    ranks = rank(bags)
    best = sorted(sorted(range(len(bags)), key=ranks.__getitem__, reverse=True)[:count])
    words = sum((bags[number] for number in best), Counter[str]())
    return [sentences[number] for number in best], [word for word, _ in words.most_common(5)]
