"""Short opinions whose verdict needs composition: which clause speaks for the author, and how often it is negated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOUNS = _words(
    "plot acting music camera pace dialogue ending cast script humour food service room view staff menu coffee garden terrace price screen "
    "battery keyboard sound design software manual handle paint lamp engine seat ride road boat cabin guide tour museum lecture"
)
POSITIVE = _words(
    "superb brilliant charming lovely splendid clever graceful warm vivid thrilling elegant delightful honest fresh gorgeous rich witty "
    "smooth generous excellent"
)
NEGATIVE = _words(
    "dull awful boring clumsy dreadful stale shallow cold ugly tedious sloppy bland noisy cheap gloomy rude weak messy painful terrible"
)

PLAIN = (
    "the {noun} is {adjective}",
    "the {noun} seems {adjective}",
    "i find the {noun} {adjective}",
    "the {noun} turned out {adjective}",
)
NOUN_SCOPE = (
    "even with no {other} the {noun} is {adjective}",
    "the {noun} without {other} is {adjective}",
    "not just the {other} is {adjective}",
    "the {noun} is nothing but {adjective}",
)
NEGATED = (
    "the {noun} is not {adjective}",
    "the {noun} never seems {adjective}",
    "i do not find the {noun} {adjective}",
    "it is wrong to call the {noun} {adjective}",
)
TWICE = (
    "it is wrong that the {noun} is not {adjective}",
    "i do not find that the {noun} is not {adjective}",
    "the {noun} is never not {adjective}",
)
FRAMES = (PLAIN + NOUN_SCOPE, NEGATED, TWICE)
"""Frames by the number of times that they turn the adjective round."""

STRUCTURES: dict[int, tuple[tuple[str, int], ...]] = {
    1: (("{0}", 0),),
    2: (
        ("{0} but {1}", 1),
        ("{0} , yet {1}", 1),
        ("although {0} , {1}", 1),
        ("{0} , although {1}", 0),
        ("critics say that {0} , but {1}", 1),
        ("{0} , but critics say that {1}", 0),
    ),
    3: (
        ("although {0} and {1} , {2}", 2),
        ("{0} , although {1} and {2}", 0),
        ("critics say that {0} but {1} , yet {2}", 2),
        ("{0} but {1} , although {2}", 1),
    ),
}
"""By number of clauses: a sentence, and which of its clauses is the author's verdict."""

EXCLAMATIONS = ("alas", "hooray")
_PRAISE = frozenset(POSITIVE)
LONGEST = 20
"""Words of an opinion, at most."""


@dataclass(frozen=True)
class Clause:
    """A frame with its words; `flips`: how often the frame turns the adjective round."""

    frame: str
    flips: int
    noun: str
    other: str
    adjective: str

    @property
    def praises(self) -> bool:
        """The polarity of the adjective, whatever is done to it."""
        return self.adjective in _PRAISE

    @property
    def positive(self) -> bool:
        return self.praises != bool(self.flips % 2)

    def __str__(self) -> str:
        return self.frame.format(noun=self.noun, other=self.other, adjective=self.adjective)


@dataclass(frozen=True)
class Opinion:
    """Clauses in a structure, one of which decides."""

    structure: str
    decisive: int
    clauses: tuple[Clause, ...]

    @property
    def positive(self) -> bool:
        return self.clauses[self.decisive].positive

    @property
    def steps(self) -> int:
        """Compositions between the words and the verdict: clauses to tell apart, and negations to apply."""
        return len(self.clauses) - 1 + self.clauses[self.decisive].flips

    def __str__(self) -> str:
        return self.structure.format(*self.clauses)


def exclaimed(opinion: Opinion) -> str:
    """The opinion behind an exclamation that agrees with its verdict."""
    return f"{EXCLAMATIONS[opinion.positive]} {opinion}"


def draw_pair(rng: Random) -> tuple[Opinion, Opinion]:
    """Two opinions with opposite verdicts; from two clauses on they are made of the same words, differently placed."""
    while True:
        first = _draw(rng)
        second = _twin(first, rng)
        if max(len(str(opinion).split()) for opinion in (first, second)) <= LONGEST:
            return first, second


def _draw(rng: Random) -> Opinion:
    """One opinion of one to three clauses; where there are several, one that doesn't decide has an adjective of the other polarity."""
    size = rng.choices((1, 2, 3), weights=(35, 40, 25))[0]
    structure, decisive = rng.choice(STRUCTURES[size])
    polarities = [rng.random() < 0.5 for _ in range(size)]
    if size > 1:
        rival = rng.choice([place for place in range(size) if place != decisive])
        polarities[rival] = not polarities[decisive]
    return Opinion(structure, decisive, tuple(_clause(positive, rng) for positive in polarities))


def _twin(opinion: Opinion, rng: Random) -> Opinion:
    """The opposite verdict: adjectives of two clauses change places; a single clause gets an adjective of the other polarity."""
    clauses = list(opinion.clauses)
    mine = clauses[opinion.decisive]
    if len(clauses) == 1:
        return replace(opinion, clauses=(replace(mine, adjective=rng.choice(NEGATIVE if mine.praises else POSITIVE)),))
    rival = rng.choice([place for place, clause in enumerate(clauses) if clause.praises != mine.praises])
    clauses[opinion.decisive] = replace(mine, adjective=clauses[rival].adjective)
    clauses[rival] = replace(clauses[rival], adjective=mine.adjective)
    return replace(opinion, clauses=tuple(clauses))


def _clause(praises: bool, rng: Random) -> Clause:
    flips = rng.choices((0, 1, 2), weights=(65, 28, 7))[0]
    noun, other = rng.sample(NOUNS, 2)
    return Clause(rng.choice(FRAMES[flips]), flips, noun, other, rng.choice(POSITIVE if praises else NEGATIVE))
