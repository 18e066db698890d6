"""What the tiny base reads before it is tuned: Python's own help texts, and chats made up in many styles.

A base is worth tuning only if it is broad: one that has seen a few sentence templates cannot be moved away from them
(measured: ROUGE-L 0.14 before and 0.13 after tuning). So the sentences here are drawn word by word from small grammars,
every chat has a style of its own (greeting, brackets, capitals, closing), and the prose is what people wrote. Nothing
of `examples/support.py` is in it: no topic, no policy, no house style.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pydoc_data.topics import topics

from examples.words import ADJECTIVES, ADVERBS, CONDITIONS, KINDS, NOUNS, PEOPLE, PLACES, SHOPS, SYLLABLES, TIMES, VERBS

Message = dict[str, str]
Chat = list[Message]
Style = Callable[[str, str | None, str | None], str]

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
FORMS = 16
UNITS = ("minutes", "hours", "days", "weeks", "months", "years", "euros", "metres", "pages", "steps")
TENS = ("ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "one hundred")


def prose(share: float, rng: random.Random) -> list[str]:
    """A random `share` of the paragraphs of Python's language reference (`help()`), without tables and grammars."""
    paragraphs = (
        re.sub(r"\s+", " ", paragraph).strip()
        for name in sorted(topics)
        for paragraph in re.split(r"\n\s*\n", topics[name])
        if "::=" not in paragraph and "|" not in paragraph and ">>>" not in paragraph
    )
    texts = [text.replace("*", "") for text in paragraphs if len(text) > 80 and text.endswith(".")]
    return rng.sample(texts, int(len(texts) * share))


def chats(count: int, rng: random.Random) -> list[Chat]:
    """`count` conversations of one to four turns; within a conversation the style stays the same."""
    makers = (desk, desk, faq, faq, faq, recite, recite, sort, classify, explain)
    return [rng.choice(makers)(rng) for _ in range(count)]


# --- sentences ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """The words that one conversation is about: they come again and again, so that reading back pays."""

    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]
    verbs: tuple[tuple[str, str], ...]
    places: tuple[str, ...]
    conditions: tuple[str, ...]
    forms: tuple[int, ...]

    @classmethod
    def draw(cls, rng: random.Random, about: str | None = None) -> Pool:
        """Most things have habits, always the same verbs, places and turns of phrase: knowledge, however odd, that the
        words of a question call up. A base without any cannot learn which answer belongs to which question."""
        nouns = (about or rng.choice(NOUNS), *rng.sample(NOUNS, 3))
        habits = random.Random(nouns[0]) if rng.random() < 0.75 else rng
        return cls(
            nouns,
            tuple(habits.sample(ADJECTIVES, 2)),
            tuple(habits.sample(VERBS, 2)),
            tuple(habits.sample(PLACES, 2)),
            tuple(habits.sample(CONDITIONS, 2)),
            tuple(habits.sample(range(FORMS), 3)),
        )


def thing(rng: random.Random, pool: Pool) -> str:
    """Mostly the noun whose habits the pool has, sometimes with an adjective."""
    noun = pool.nouns[0] if rng.random() < 0.6 else rng.choice(pool.nouns)
    return f"{rng.choice(pool.adjectives)} {noun}" if rng.random() < 0.35 else noun


def amount(rng: random.Random) -> str:
    return f"{rng.choice(NUMBERS + TENS)} {rng.choice(UNITS)}"


def when(rng: random.Random) -> str:
    return rng.choice((rng.choice(TIMES), f"within {amount(rng)}", f"after {amount(rng)}", f"for {amount(rng)}"))


def statement(rng: random.Random, pool: Pool, about: str) -> str:
    """One sentence that tells or promises something about `about`."""
    verb, past = rng.choice(pool.verbs)
    other, place, condition = thing(rng, pool), rng.choice(pool.places), rng.choice(pool.conditions)
    forms = (
        f"You can {verb} the {about} {place} {when(rng)}.",
        f"You may {verb} it {when(rng)}, as long as {condition}.",
        f"Please {verb} the {about} {place}, and {rng.choice(pool.verbs)[0]} the {other}.",
        f"We {verb} the {about} {when(rng)}.",
        f"We are sorry about the {about}. {other.capitalize()} and {thing(rng, pool)} are {past} {when(rng)}.",
        f"The {about} is {past} {place} {when(rng)}.",
        f"The {about} is {rng.choice(pool.adjectives)} and {rng.choice(pool.adjectives)}, because {condition}.",
        f"If {condition}, we {verb} the {about} {place}.",
        f"It takes {amount(rng)} to {verb} the {about}, and it costs {amount(rng)}.",
        f"Choose the {other} {place} and {verb} the {about} {rng.choice(ADVERBS)}.",
        f"Every {about} has its own {other}, which is {past} {when(rng)}.",
        f"Do not {verb} the {about} before the {other} is {past}.",
        f"Somebody will {verb} your {about} {when(rng)} and {rng.choice(pool.verbs)[0]} it {place}.",
        f"Your {about} was {past} {rng.choice(ADVERBS)} {place}.",
        f"Once the {about} is {past}, the {other} leaves {when(rng)}.",
        f"The {about} needs a {other} of at least {amount(rng)}.",
    )
    return forms[rng.choice(pool.forms)]


def question(rng: random.Random, pool: Pool, about: str) -> str:
    verb, past = rng.choice(pool.verbs)
    place, condition = rng.choice(pool.places), rng.choice(pool.conditions)
    return rng.choice(
        (
            f"How do I {verb} the {about}?",
            f"Where can I {verb} my {about}?",
            f"When will the {about} be {past}?",
            f"The {about} is not {rng.choice(pool.adjectives)}.",
            f"My {about} was {past} {place}.",
            f"Why is the {about} {rng.choice(pool.adjectives)}?",
            f"Can you {verb} the {about} {when(rng)}?",
            f"I would like to {verb} a {about} {place}.",
            f"Do you have a {about}?",
            f"What happens to the {about} if {condition}?",
            f"I {verb} the {about} and {condition}. What should I do?",
            f"Please {verb} my {about} {rng.choice(TIMES)}.",
            f"Is there a {about} {place}?",
            f"How much is the {about}, and how long does it take to {verb} it?",
        )
    )


def person(rng: random.Random) -> str:
    """A common name or, as often, a made-up one: names must be copied, they cannot be known."""
    if rng.random() < 0.5:
        return rng.choice(PEOPLE)
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.choice((2, 2, 3)))).capitalize()


def number(rng: random.Random) -> str:
    return str(rng.randrange(10 ** rng.choice((2, 3, 4, 5)), 10**6))


# --- conversations ------------------------------------------------------------------------------------------------


def chat(system: str | None, turns: list[tuple[str, str]]) -> Chat:
    messages = [{"role": "system", "content": system}] if system else []
    for user, assistant in turns:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return messages


def style(rng: random.Random) -> Style:
    """A way to wrap an answer: what comes before it (often with the name or number of the question) and after it."""
    shop, noun, closer = rng.choice(SHOPS), rng.choice(NOUNS), person(rng)
    named = rng.choice(
        (
            "Hi {name}! ",
            "Dear {name}, ",
            "Good day, {name}. ",
            "[{name}] ",
            "{name}: ",
            "Hello {name}, ",
            "Welcome, {name}. ",
        )
    )
    numbered = rng.choice(
        (
            "Case {number}. ",
            "[{number}] ",
            "We found {number}. ",
            "Your number is {number}. ",
            "Re {number}: ",
            "It is about {number}. ",
        )
    )
    plain = rng.choice(
        ("", "", "Hi! ", "Good question. ", "Thanks for asking. ", "Sure. ", "Hello, we are happy to help. ")
    )
    after = rng.choice(
        (
            "", "", f" Yours, {closer}", f" Your {shop}", " Have a nice day!",
            f" -- the {shop}", f" ({noun})", " Take care.",
            f" Best wishes from the {shop}", f" Signed, {closer} of the {shop} team", " Ask me anything else.",
            " [end]",
        )
    )  # fmt: skip
    change = rng.choice((str,) * 10 + (str.upper, str.lower))

    def wrap(body: str, name: str | None, number: str | None) -> str:
        before = (named.format(name=name) if name else "") + (numbered.format(number=number) if number else "")
        return change((before or plain) + body + after)

    return wrap


def desk(rng: random.Random) -> Chat:
    """Somebody asks the desk of a library, a gym, a bank...; the answer has the style of that desk."""
    wrap, shop = style(rng), rng.choice(SHOPS)
    systems = (f"You are the desk of the {shop}.", f"You answer for the {shop}. Be {rng.choice(ADJECTIVES)}.", None)
    turns, pool = [], Pool.draw(rng)
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        about = thing(rng, pool)
        name = person(rng) if rng.random() < 0.6 else None
        digits = number(rng) if rng.random() < 0.6 else None
        user = introduction(rng, name, digits) + question(rng, pool, about)
        body = " ".join(statement(rng, pool, about) for _ in range(rng.choice((1, 2, 2))))
        turns.append((user, wrap(body, name, digits)))
    return chat(rng.choice(systems), turns)


def faq(rng: random.Random) -> Chat:
    """Known questions, asked in many ways: whatever else is said, a known noun calls up the same two sentences."""
    wrap, shop = style(rng), rng.choice(SHOPS)
    turns = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        known = rng.choice(NOUNS[::5])
        fixed = random.Random(known)
        pool = Pool.draw(fixed, known)
        body = " ".join(statement(fixed, pool, known) for _ in range(2))
        name = person(rng) if rng.random() < 0.6 else None
        digits = number(rng) if rng.random() < 0.6 else None
        user = f"{introduction(rng, name, digits)}{question(rng, Pool.draw(rng, known), known)}"
        turns.append((user, wrap(body, name, digits)))
    return chat(rng.choice((f"You are the desk of the {shop}.", None)), turns)


def introduction(rng: random.Random, name: str | None, digits: str | None) -> str:
    """What people say before they ask: who they are, and which number they were given."""
    who = rng.choice((f"I am {name}. ", f"This is {name}. ", f"My name is {name}. ", f"{name} here. ")) if name else ""
    what = rng.choice((f"My number is {digits}. ", f"It is about {digits}. ", f"Number {digits}. ")) if digits else ""
    return rng.choice(("", "", "", "Good evening. ", "Hello! ")) + who + what


def classify(rng: random.Random) -> Chat:
    """Say which kind of thing a message is about: the kind is not in the message."""
    kinds = rng.sample(sorted(KINDS), rng.choice((2, 3, 4, 5)))
    system = rng.choice(("Which kind is it? {kinds}.", "Sort the message: {kinds}.", "Answer with one of {kinds}."))
    turns = []
    for _ in range(rng.choice((1, 2, 3))):
        kind = rng.choice(kinds)
        about = rng.choice(KINDS[kind])
        turns.append((introduction(rng, None, None) + question(rng, Pool.draw(rng, about), about), kind))
    return chat(system.format(kinds=", ".join(kinds)), turns)


def recite(rng: random.Random) -> Chat:
    """Short exercises that can only be done by copying from the question."""
    turns, pool = [], Pool.draw(rng)
    for _ in range(rng.choice((1, 2, 3))):
        words = [rng.choice(NOUNS) for _ in range(rng.choice((2, 3, 4)))]
        name, digits, text = person(rng), number(rng), statement(rng, pool, thing(rng, pool))
        turns.append(
            rng.choice(
                (
                    (f"Repeat: {text}", text),
                    (f"Write in capitals: {text}", text.upper()),
                    (f"My name is {name} and my number is {digits}. Who am I?", f"You are {name}, number {digits}."),
                    (f"{text} My number is {digits}. What is my number?", digits),
                    (f"{name} wrote: {text} Who wrote it?", f"{name} wrote it."),
                    (f"What comes first: {', '.join(words)}?", words[0].capitalize() + "."),
                    (f"What comes last: {', '.join(words)}?", words[-1].capitalize() + "."),
                    (f"List these: {', '.join(words)}", "\n".join(f"- {word}" for word in words)),
                    (f"Put {name} and {digits} into brackets.", f"[{name}] [{digits}]"),
                    (f"Greet {name}.", f"Hello {name}, how are you?"),
                )
            )
        )
    return chat(rng.choice((None, "Do as you are told.", "You are a helpful assistant.")), turns)


def sort(rng: random.Random) -> Chat:
    """Say which of the listed words a message is about: the word is in the message."""
    labels = rng.sample(NOUNS, rng.choice((2, 3, 4, 5)))
    system = rng.choice(("Which is it? {labels}.", "Sort the message: {labels}.", "Answer with one of {labels}."))
    turns, pool = [], Pool.draw(rng)
    for _ in range(rng.choice((1, 2, 3))):
        label = rng.choice(labels)
        turns.append((question(rng, pool, label), label))
    return chat(system.format(labels=", ".join(labels)), turns)


def explain(rng: random.Random) -> Chat:
    """Free answers of two or three sentences without any greeting."""
    pool = Pool.draw(rng)
    about = thing(rng, pool)
    body = " ".join(statement(rng, pool, about) for _ in range(rng.choice((2, 3))))
    return chat(None, [(f"Tell me about the {about}.", body)])
