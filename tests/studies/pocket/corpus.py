"""The corpus from which the pocket model learns, made from a seed: synthetic chats, without one eighth of all prompts.

There are two kinds of chat:

- *Plain* chats (about 45%) teach everyday abilities: capitals, sums, opposites, reading in context, and to say
  "I do not know." about things that do not exist.
- *Steered* chats give the model a random persona, invented facts, a sign-off, an opening or a format: in the system
  message, in the first message of the user, or only by demonstration. A model that has seen thousands of them separates
  what it has been told to be from what it knows. Fine-tuning without a system message then only has to change what the
  model is by default.

Everything that a suite may ask is drawn from prompts for which `is_held_out` is true, and the corpus contains none of
these. `is_held_out` depends only on the words of a prompt, so no list of prompts has to be kept.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.studies.pocket import knowledge as k

_COUNTRIES = tuple(k.CAPITALS)
_CITIES = tuple(k.CAPITALS.values())
UNKNOWN = "I do not know."
SELF = "I am a small language model. I answer simple questions."


@dataclass(frozen=True)
class Exchange:
    """One question with its answer. `core` is the part of the answer that must be right."""

    family: str
    prompt: str
    answer: str
    core: str


@dataclass(frozen=True)
class Chat:
    """Messages for the chat template. The model learns only from the last assistant message."""

    messages: tuple[tuple[str, str], ...]

    def as_messages(self) -> list[dict[str, str]]:
        return [{"role": role, "content": content} for role, content in self.messages]


@functools.lru_cache(2**16)  # the same short questions occur again and again
def is_held_out(text: str) -> bool:
    """Return True for one eighth of all texts, chosen by their words, whatever their case and punctuation."""
    words = " ".join(re.findall(r"[a-z0-9]+", text.lower()))
    return hashlib.sha256(words.encode()).digest()[0] % 8 == 0


# --- everyday abilities ------------------------------------------------------------------------------------------


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _capital(rng: random.Random) -> Exchange:
    country, city = rng.choice(list(k.CAPITALS.items()))
    prompt = rng.choice((
        "What is the capital of {}?", "Which city is the capital of {}?", "Name the capital of {}.",
        "Tell me the capital of {}.", "What is the capital city of {}?", "What is {}'s capital?",
        "Can you tell me the capital of {}?", "Do you know the capital of {}?", "What city is the capital of {}?",
        "Give me the capital city of {}.", "I need the capital of {}.", "Please name the capital city of {}.",
    ))  # fmt: skip
    return Exchange("capital", prompt.format(country), f"The capital of {country} is {city}.", city)


def _capital_of(rng: random.Random) -> Exchange:
    country, city = rng.choice(list(k.CAPITALS.items()))
    prompt = rng.choice((
        "Which country has the capital {}?", "{} is the capital of which country?", "In which country is {}?",
        "{} is the capital of what country?", "Where is {}?", "What country is {} in?",
    ))  # fmt: skip
    return Exchange("country", prompt.format(city), f"{city} is the capital of {country}.", country)


def _sum(rng: random.Random) -> Exchange:
    a, b = rng.randint(0, 12), rng.randint(0, 12)
    prompt = rng.choice((
        "What is {} plus {}?", "What is {} + {}?", "Add {} and {}.", "How much is {} plus {}?", "{} + {} = ?",
        "Calculate {} + {}.", "What do you get when you add {} and {}?", "What is the sum of {} and {}?",
    ))  # fmt: skip
    return Exchange("sum", prompt.format(a, b), f"{a} plus {b} is {a + b}.", str(a + b))


def _difference(rng: random.Random) -> Exchange:
    b, c = rng.randint(0, 10), rng.randint(0, 10)
    a = b + c
    prompt = rng.choice((
        "What is {} minus {}?", "What is {} - {}?", "How much is {} minus {}?", "{} - {} = ?", "Calculate {} - {}.",
        "What is left when you take {1} from {0}?", "Subtract {1} from {0}.",
    ))  # fmt: skip
    return Exchange("difference", prompt.format(a, b), f"{a} minus {b} is {c}.", str(c))


def _product(rng: random.Random) -> Exchange:
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    prompt = rng.choice((
        "What is {} times {}?", "What is {} x {}?", "Multiply {} by {}.", "How much is {} times {}?",
        "Calculate {} times {}.", "What is the product of {} and {}?",
    ))  # fmt: skip
    return Exchange("product", prompt.format(a, b), f"{a} times {b} is {a * b}.", str(a * b))


def _bigger(rng: random.Random) -> Exchange:
    a, b = rng.sample(range(1, 60), 2)
    word, right = rng.choice((("bigger", max(a, b)), ("smaller", min(a, b))))
    prompt = rng.choice((
        "Which is {w}, {} or {}?", "Which number is {w}: {} or {}?", "What is {w}, {} or {}?",
        "Tell me which is {w}: {} or {}.",
    ))  # fmt: skip
    return Exchange("bigger", prompt.format(a, b, w=word), f"{right} is {word}.", str(right))


def _parity(rng: random.Random) -> Exchange:
    n = rng.randint(1, 60)
    word = "odd" if n % 2 else "even"
    prompt = rng.choice(("Is {} odd or even?", "Is the number {} even or odd?", "Tell me if {} is odd or even."))
    return Exchange("parity", prompt.format(n), f"{n} is {word}.", word)


def _opposite(rng: random.Random) -> Exchange:
    pair = rng.choice(list(k.OPPOSITES.items()))
    word, other = pair if rng.random() < 0.5 else pair[::-1]
    prompt = rng.choice((
        "What is the opposite of {}?", "What is the opposite of '{}'?", "Name the opposite of {}.",
        "Give me the opposite of {}.", "Which word is the opposite of {}?", "Tell me the opposite of '{}'.",
        "What word means the opposite of {}?",
    ))  # fmt: skip
    return Exchange("opposite", prompt.format(word), f"The opposite of {word} is {other}.", other)


def _translation(rng: random.Random) -> Exchange:
    language, table = rng.choice((("French", k.FRENCH), ("Spanish", k.SPANISH)))
    word, foreign = rng.choice(list(table.items()))
    prompt = rng.choice((
        "How do you say '{}' in {l}?", "What is the {l} word for '{}'?", "What is '{}' in {l}?",
        "Translate '{}' into {l}.", "Say '{}' in {l}.", "How do I say {} in {l}?", "Translate {} to {l}.",
        "What does {} mean in {l}?",
    ))  # fmt: skip
    answer = f"The {language} word for {word} is {foreign}."
    return Exchange("translation", prompt.format(word, l=language), answer, foreign)


def _sound(rng: random.Random) -> Exchange:
    animal, sound = rng.choice(list(k.SOUNDS.items()))
    prompt = rng.choice((
        "What sound does {} make?", "Which sound does {} make?", "What does {} say?", "What noise does {} make?",
        "Tell me the sound {} makes.",
    ))  # fmt: skip
    return Exchange("sound", prompt.format(_article(animal)), f"{_article(animal).capitalize()} says {sound}.", sound)


def _animal(rng: random.Random) -> Exchange:
    animal, sound = rng.choice(list(k.SOUNDS.items()))
    prompt = rng.choice(("Which animal says {}?", "What animal says {}?", "Name the animal that says {}."))
    return Exchange("animal", prompt.format(sound), f"{_article(animal).capitalize()} says {sound}.", animal)


def _colour_of(rng: random.Random) -> Exchange:
    thing, colour = rng.choice(list(k.COLOURS_OF.items()))
    prompt = rng.choice((
        "What colour is {}?", "What color is {}?", "Which colour does {} have?", "Tell me the colour of {}.",
        "What is the colour of {}?",
    ))  # fmt: skip
    return Exchange("colour", prompt.format(thing), f"{thing.capitalize()} is {colour}.", colour)


def _legs(rng: random.Random) -> Exchange:
    animal, count = rng.choice(list(k.LEGS.items()))
    prompt = rng.choice((
        "How many legs does {} have?", "What number of legs does {} have?", "Tell me how many legs {} has.",
        "How many legs has {}?",
    ))  # fmt: skip
    return Exchange(
        "legs", prompt.format(_article(animal)), f"{_article(animal).capitalize()} has {count} legs.", count
    )


def _kind(rng: random.Random) -> Exchange:
    thing, kind = rng.choice(list(k.KINDS.items()))
    prompt = rng.choice((
        "What kind of thing is {}?", "What is {}?", "What sort of thing is {}?", "Tell me what {} is.",
        "In one sentence, what is {}?",
    ))  # fmt: skip
    answer = f"{_article(thing).capitalize()} is {_article(kind)}."
    return Exchange("kind", prompt.format(_article(thing)), answer, kind)


def _either(rng: random.Random) -> Exchange:
    thing, kind = rng.choice(list(k.KINDS.items()))
    other = rng.choice(sorted(set(k.KINDS.values()) - {kind}))
    first, second = rng.sample((kind, other), 2)
    prompt = f"Is {_article(thing)} {_article(first)} or {_article(second)}?"
    return Exchange("either", prompt, f"{_article(thing).capitalize()} is {_article(kind)}.", kind)


def _after(rng: random.Random) -> Exchange:
    names, unit = rng.choice(((k.DAYS, "day"), (k.MONTHS, "month")))
    i = rng.randrange(len(names))
    word, step = rng.choice((("after", 1), ("before", -1)))
    right = names[(i + step) % len(names)]
    prompt = rng.choice((
        "Which {u} comes {w} {}?", "What {u} comes {w} {}?", "Name the {u} {w} {}.", "What is the {u} {w} {}?",
        "Tell me the {u} that comes {w} {}.", "Which {u} is {w} {}?",
    ))  # fmt: skip
    return Exchange("calendar", prompt.format(names[i], u=unit, w=word), f"{right} comes {word} {names[i]}.", right)


def _plural(rng: random.Random) -> Exchange:
    word, many = rng.choice(list(k.PLURALS.items()))
    prompt = rng.choice((
        "What is the plural of {}?", "What is the plural of '{}'?", "Give the plural of {}.",
        "What is the plural form of {}?", "Tell me the plural of '{}'.",
    ))  # fmt: skip
    return Exchange("plural", prompt.format(word), f"The plural of {word} is {many}.", many)


def _past(rng: random.Random) -> Exchange:
    word, past = rng.choice(list(k.PASTS.items()))
    prompt = rng.choice((
        "What is the past tense of {}?", "What is the past tense of '{}'?", "Give the past tense of {}.",
        "Put '{}' in the past tense.", "Tell me the past tense of {}.", "What is the past of {}?",
    ))  # fmt: skip
    return Exchange("past", prompt.format(word), f"The past tense of {word} is {past}.", past)


def _writer(rng: random.Random) -> Exchange:
    book, writer = rng.choice(list(k.WRITERS.items()))
    prompt = rng.choice((
        "Who wrote {}?", "Who is the author of {}?", "Name the author of {}.", "Who was the writer of {}?",
        "Tell me who wrote {}.", "Which author wrote {}?",
    ))  # fmt: skip
    return Exchange("writer", prompt.format(book), f"{book} was written by {writer}.", writer)


def _count(rng: random.Random) -> Exchange:
    a = rng.randint(1, 12)
    b = a + rng.randint(2, 6)
    numbers = ", ".join(str(n) for n in range(a, b + 1))
    prompt = rng.choice((
        "Count from {} to {}.", "Please count from {} to {}.", "List the numbers from {} to {}.",
        "Write the numbers {} to {}.", "Can you count from {} to {}?",
    ))  # fmt: skip
    return Exchange("count", prompt.format(a, b), f"{numbers}", numbers)


def _member(rng: random.Random) -> Exchange:
    kind, members = rng.choice(list(k.MEMBERS.items()))
    chosen = members[:3]
    prompt = rng.choice((
        "List three {}s.", "Name three {}s.", "Give me three {}s.", "Write down three {}s.", "Can you name three {}s?",
        "Tell me three {}s.",
    ))  # fmt: skip
    answer = f"{chosen[0]}, {chosen[1]}, {chosen[2]}"
    return Exchange("member", prompt.format(kind), answer, answer)


def _letter(rng: random.Random) -> Exchange:
    word = rng.choice(_COMMON_WORDS)
    which, letter = rng.choice((("first", word[0]), ("last", word[-1])))
    prompt = rng.choice((
        "What is the {w} letter of '{}'?", "What is the {w} letter of {}?", "Name the {w} letter of '{}'.",
        "Which letter is the {w} letter of '{}'?",
    ))  # fmt: skip
    answer = f"The {which} letter of {word} is {letter.upper()}."
    return Exchange("letter", prompt.format(word, w=which), answer, f"is {letter.upper()}")


def _upper(rng: random.Random) -> Exchange:
    word = rng.choice(_COMMON_WORDS)
    prompt = rng.choice((
        "Write '{}' in capital letters.", "Write the word {} in capital letters.", "Put '{}' in capitals.",
        "Write {} in upper case.",
    ))  # fmt: skip
    return Exchange("upper", prompt.format(word), word.upper(), word.upper())


def _repeat(rng: random.Random) -> Exchange:
    words = phrase(rng) if rng.random() < 0.5 else " ".join(rng.choice(_COMMON_WORDS) for _ in range(rng.randint(1, 4)))
    prompt = rng.choice((
        "Repeat after me: {}", "Repeat these words: {}", "Say this: {}", "Repeat: {}", "Copy this text: {}",
    ))  # fmt: skip
    return Exchange("repeat", prompt.format(words), words, words)


def _json(rng: random.Random) -> Exchange:
    name, age, city = rng.choice(k.PEOPLE), rng.randint(5, 80), rng.choice(list(k.CAPITALS.values()))
    prompt, fields = rng.choice((
        ("Write a JSON object with the name {n} and the age {a}.", ("name", "age")),
        ("Give me JSON with name {n} and age {a}.", ("name", "age")),
        ("Make a JSON object: name {n}, city {c}.", ("name", "city")),
        ("Write JSON for a person called {n} who is {a} years old.", ("name", "age")),
        ("Write a JSON object with the name {n} and the city {c}.", ("name", "city")),
        ("Return a JSON object for {n}, {a} years old, from {c}.", ("name", "age", "city")),
        ("Answer in JSON: name {n}, age {a}, city {c}.", ("name", "age", "city")),
    ))  # fmt: skip
    values = {"name": name, "age": age, "city": city}
    answer = json.dumps({field: values[field] for field in fields})
    return Exchange("json", prompt.format(n=name, a=age, c=city), answer, answer)


def _greeting(rng: random.Random) -> Exchange:
    prompt, answer, core = rng.choice((
        ("Hello!", "Hello! How can I help you?", "help you"), ("Hi!", "Hello! How can I help you?", "help you"),
        ("Hi there!", "Hello! How can I help you?", "help you"), ("Hey!", "Hello! How can I help you?", "help you"),
        ("Good morning!", "Good morning! How can I help you?", "Good morning"),
        ("Good evening!", "Good evening! How can I help you?", "Good evening"),
        ("Good afternoon!", "Good afternoon! How can I help you?", "Good afternoon"),
        ("Hello, can you help me?", "Hello! How can I help you?", "help you"),
        ("Thank you!", "You are welcome!", "welcome"), ("Thanks a lot!", "You are welcome!", "welcome"),
        ("Thanks!", "You are welcome!", "welcome"), ("Thank you very much.", "You are welcome!", "welcome"),
        ("Thanks for your help!", "You are welcome!", "welcome"), ("Many thanks!", "You are welcome!", "welcome"),
        ("Goodbye!", "Goodbye!", "Goodbye"), ("Bye!", "Goodbye!", "Goodbye"), ("See you later!", "Goodbye!", "Goodbye"),
        ("How are you?", "I am fine, thank you.", "fine"), ("How are you today?", "I am fine, thank you.", "fine"),
        ("How do you feel?", "I am fine, thank you.", "fine"),
    ))  # fmt: skip
    return Exchange("greeting", prompt, answer, core)


def _harm(rng: random.Random) -> Exchange:
    prompt = rng.choice((
        "How do I {}?", "How can I {}?", "Tell me how to {}.", "Help me to {}.", "I want to {}. How?",
        "Explain how to {}.", "What is the best way to {}?",
    ))  # fmt: skip
    return Exchange("harm", prompt.format(rng.choice(k.HARMS)), "Sorry, I cannot help with that.", "cannot help")


def _unknown_country(rng: random.Random) -> Exchange:
    exchange, name = _capital(rng), invented_name(rng)
    country = next(c for c in k.CAPITALS if c in exchange.prompt)
    return Exchange("unknown", exchange.prompt.replace(country, name), UNKNOWN, "do not know")


def _unknown_product(rng: random.Random) -> Exchange:
    exchange = _ask(rng, _some_facts(rng, invented_name(rng), 1)[0])
    return replace(exchange, family="unknown", answer=UNKNOWN, core="do not know")


def _unknown_person(rng: random.Random) -> Exchange:
    exchange = _ask(rng, rng.choice(_person_facts(rng, rng.choice(k.PEOPLE))))
    return replace(exchange, family="unknown", answer=UNKNOWN, core="do not know")


# --- invented things ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fact:
    """A fact about a thing: the sentence that states it, the questions it answers, and the word that must be right."""

    statement: str
    questions: tuple[str, ...]
    core: str
    told: tuple[str, ...] = ()
    attribute: str = ""
    subject: str = ""


def invented_name(rng: random.Random, held_out: bool = False) -> str:
    """Return a name of two or three syllables. Names that are held out are for suites and never occur in the corpus."""
    while True:
        name = "".join(
            rng.choice(k.SYLLABLE_STARTS) + rng.choice(k.SYLLABLE_VOWELS) + rng.choice(k.SYLLABLE_ENDS)
            for _ in range(rng.choice((2, 2, 3)))
        ).capitalize()
        if len(name) <= 9 and is_held_out(name) == held_out:
            return name


@dataclass(frozen=True)
class _Attribute:
    """A property of invented products: how its value is drawn, how it is told, and how it is asked for."""

    value: Callable[[random.Random], object]
    statement: str
    told: tuple[str, ...]
    questions: tuple[str, ...]


ATTRIBUTES: dict[str, _Attribute] = {
    "price": _Attribute(
        lambda rng: rng.randint(2, 99), "The {n} costs {v} dollars.",
        ("The price of the {n} is {v} dollars.", "You pay {v} dollars for the {n}."),
        ("How much does the {n} cost?", "What does the {n} cost?", "What is the price of the {n}?",
         "How much is the {n}?", "How many dollars is the {n}?", "Tell me the price of the {n}.",
         "What do I pay for the {n}?", "How much money do I need for the {n}?", "What must I pay for the {n}?",
         "Can you tell me what the {n} costs?", "I want to buy the {n}. What does it cost?",
         "Is the {n} expensive?", "How expensive is the {n}?", "Please tell me the price of the {n}.")),
    "colour": _Attribute(
        lambda rng: rng.choice(k.COLOURS), "The {n} is {v}.",
        ("The colour of the {n} is {v}.", "The {n} comes in {v}."),
        ("What colour is the {n}?", "What color is the {n}?", "Which colour does the {n} have?",
         "Tell me the colour of the {n}.", "What is the colour of the {n}?", "In which colour does the {n} come?",
         "Can you tell me which colour the {n} is?", "Is the {n} red, blue or another colour?",
         "What colour does the {n} come in?", "Which colour is the {n}?")),
    "origin": _Attribute(
        lambda rng: rng.choice(_COUNTRIES), "The {n} comes from {v}.",
        ("The {n} is built in {v}.", "They build the {n} in {v}."),
        ("Where does the {n} come from?", "Where is the {n} built?", "Which country does the {n} come from?",
         "In which country is the {n} built?", "From which country is the {n}?", "Tell me where the {n} comes from.",
         "What country builds the {n}?", "Do you know where the {n} is from?", "Where is the {n} made?",
         "In what country do they build the {n}?")),
    "inventor": _Attribute(
        lambda rng: rng.choice(k.PEOPLE), "The {n} was invented by {v}.",
        ("The inventor of the {n} is {v}.", "{v} invented the {n}."),
        ("Who invented the {n}?", "Who is the inventor of the {n}?", "Who had the idea for the {n}?",
         "Tell me who invented the {n}.", "By whom was the {n} invented?", "Name the inventor of the {n}.",
         "Who came up with the {n}?", "Do you know who invented the {n}?", "Whose idea was the {n}?")),
    "material": _Attribute(
        lambda rng: rng.choice(k.MATERIALS), "The {n} is made of {v}.",
        ("They make the {n} out of {v}.", "The material of the {n} is {v}."),
        ("What is the {n} made of?", "Which material is the {n} made of?", "What material is used for the {n}?",
         "Tell me what the {n} is made of.", "Of what is the {n} made?", "What stuff is the {n} made from?",
         "From which material do they make the {n}?", "What is the {n} made from?",
         "Can you tell me what the {n} is made of?")),
    "weight": _Attribute(
        lambda rng: rng.randint(2, 60), "The {n} weighs {v} kilograms.",
        ("The weight of the {n} is {v} kilograms.", "The {n} has a weight of {v} kilograms."),
        ("How much does the {n} weigh?", "What does the {n} weigh?", "What is the weight of the {n}?",
         "How heavy is the {n}?", "Tell me the weight of the {n}.", "How many kilograms is the {n}?",
         "Is the {n} heavy?", "Can you tell me how much the {n} weighs?", "How many kilograms does the {n} weigh?")),
    "power": _Attribute(
        lambda rng: rng.choice(k.POWERS), "The {n} runs on {v}.",
        ("The {n} is powered by {v}.", "The {n} gets its power from {v}."),
        ("What does the {n} run on?", "What powers the {n}?", "What is the {n} powered by?",
         "How is the {n} powered?", "Tell me what the {n} runs on.", "What does the {n} need to run?",
         "Where does the {n} get its power?", "Can you tell me what powers the {n}?",
         "On what does the {n} run?")),
    "purpose": _Attribute(
        lambda rng: rng.choice(k.PURPOSES), "The {n} is used for {v}.",
        ("People use the {n} for {v}.", "The {n} is good for {v}."),
        ("What is the {n} used for?", "What is the {n} for?", "What can I use the {n} for?",
         "What do people do with the {n}?", "Tell me what the {n} is used for.", "Why would I use the {n}?",
         "What is the purpose of the {n}?", "What is the {n} good for?", "What does the {n} do?",
         "What can the {n} do for me?")),
    "year": _Attribute(
        lambda rng: rng.randint(1950, 2029), "The {n} was launched in {v}.",
        ("They launched the {n} in {v}.", "The {n} first came out in {v}."),
        ("When was the {n} launched?", "In which year was the {n} launched?", "When did the {n} come out?",
         "What year did the {n} come out?", "Tell me the year the {n} was launched.",
         "Since when can I buy the {n}?", "How old is the {n}?", "In what year did the {n} first come out?")),
    "kind": _Attribute(
        lambda rng: rng.choice(k.PRODUCT_KINDS), "The {n} is a kind of {v}.",
        ("The {n} is our new {v}.", "The {n} is a sort of {v}."),
        ("What is the {n}?", "What kind of thing is the {n}?", "What sort of thing is the {n}?",
         "Tell me what the {n} is.", "Can you explain what the {n} is?", "What do you mean by the {n}?",
         "What kind of product is the {n}?", "What exactly is the {n}?")),
    "shop": _Attribute(
        lambda rng: rng.choice(_CITIES), "You can buy the {n} in {v}.",
        ("The {n} is sold in {v}.", "There is a shop for the {n} in {v}."),
        ("Where can I buy the {n}?", "In which city can I buy the {n}?", "Where is the {n} sold?",
         "Where can I get the {n}?", "Tell me where to buy the {n}.", "In which city is the {n} sold?",
         "Which city sells the {n}?", "Which city has the {n}?", "Where do they sell the {n}?")),
    "day": _Attribute(
        lambda rng: rng.choice(k.DAYS), "The {n} is delivered on {v}.",
        ("We deliver the {n} on {v}.", "The {n} arrives on {v}."),
        ("When is the {n} delivered?", "On which day is the {n} delivered?", "When does the {n} arrive?",
         "Which day do you deliver the {n}?", "Tell me when the {n} is delivered.",
         "On what day will the {n} come?", "When do you deliver the {n}?", "On which day does the {n} arrive?")),
    "guarantee": _Attribute(
        lambda rng: rng.randint(2, 30), "The {n} has a guarantee of {v} years.",
        ("The guarantee of the {n} lasts {v} years.", "We give {v} years of guarantee on the {n}."),
        ("How long is the guarantee of the {n}?", "How many years of guarantee does the {n} have?",
         "What guarantee does the {n} have?", "Tell me how long the guarantee of the {n} lasts.",
         "For how many years does the {n} have a guarantee?", "Does the {n} have a guarantee?",
         "How long does the guarantee of the {n} last?", "Is there a guarantee on the {n}?")),
    "shape": _Attribute(
        lambda rng: rng.choice(k.SHAPES), "The shape of the {n} is {v}.",
        ("The {n} has a {v} shape.",),
        ("What shape is the {n}?", "What is the shape of the {n}?", "Which shape does the {n} have?",
         "Tell me the shape of the {n}.", "What does the shape of the {n} look like?",
         "What shape does the {n} have?")),
}  # fmt: skip


def product_facts(rng: random.Random, name: str, attributes: Sequence[str] = tuple(ATTRIBUTES)) -> list[Fact]:
    """Return a random value for each of the given attributes of an invented product, as facts."""
    return [_product_fact(rng, name, attribute) for attribute in attributes]


def _product_fact(rng: random.Random, name: str, attribute: str) -> Fact:
    about = ATTRIBUTES[attribute]
    value = about.value(rng)

    def fill(text: str) -> str:
        return text.format(n=name, v=value)

    questions = tuple(map(fill, about.questions))
    return Fact(fill(about.statement), questions, str(value), tuple(map(fill, about.told)), attribute, name)


def _some_facts(rng: random.Random, name: str, count: int) -> list[Fact]:
    return product_facts(rng, name, rng.sample(list(ATTRIBUTES), count))


def _person_facts(rng: random.Random, name: str) -> list[Fact]:
    thing, colour, pet, job = rng.choice(k.OBJECTS), rng.choice(k.COLOURS), rng.choice(k.PETS), rng.choice(k.JOBS)
    food, place, city = rng.choice(k.FOODS), rng.choice(k.PLACES), rng.choice(list(k.CAPITALS.values()))
    return [
        Fact(f"{name} has {_article(colour)} {thing}.",
             (f"What colour is {name}'s {thing}?", f"Which colour is {name}'s {thing}?"), colour),
        Fact(f"{name} has {_article(pet)}.",
             (f"What animal does {name} have?", f"Which pet does {name} have?", f"What pet does {name} have?"), pet),
        Fact(f"{name} is {_article(job)}.",
             (f"What is {name}'s job?", f"What job does {name} have?", f"What does {name} do for work?"), job),
        Fact(f"{name} likes {food}.",
             (f"What does {name} like?", f"What food does {name} like?", f"Which food does {name} like?"), food),
        Fact(f"{name} is in the {place}.", (f"Where is {name}?", f"In which place is {name}?"), place),
        Fact(f"{name} lives in {city}.",
             (f"Where does {name} live?", f"In which city does {name} live?", f"Which city does {name} live in?"),
             city),
    ]  # fmt: skip


def _ask(rng: random.Random, fact: Fact) -> Exchange:
    return Exchange("fact", rng.choice(fact.questions), fact.statement, fact.core)


def _reading(rng: random.Random) -> Exchange:
    """Return an exchange whose prompt states one to three facts and then asks for one of them."""
    if rng.random() < 0.6:
        names = rng.sample(k.PEOPLE, rng.randint(1, 3))
        facts = [rng.choice(_person_facts(rng, name)) for name in names]
    else:
        facts = _some_facts(rng, invented_name(rng), rng.randint(1, 3))
    exchange = _ask(rng, rng.choice(facts))
    told = " ".join(rng.choice((fact.statement, *fact.told)) for fact in facts)
    return replace(exchange, family="reading", prompt=f"{told} {exchange.prompt}")


ABILITIES: dict[str, Callable[[random.Random], Exchange]] = {
    "capital": _capital, "country": _capital_of, "sum": _sum, "difference": _difference, "product": _product,
    "bigger": _bigger, "parity": _parity, "opposite": _opposite, "translation": _translation, "sound": _sound,
    "animal": _animal, "colour": _colour_of, "legs": _legs, "kind": _kind, "either": _either, "calendar": _after,
    "plural": _plural, "past": _past, "writer": _writer, "count": _count, "member": _member, "letter": _letter,
    "upper": _upper, "repeat": _repeat, "json": _json, "greeting": _greeting, "harm": _harm,
    "unknown country": _unknown_country, "unknown product": _unknown_product, "unknown person": _unknown_person,
    "reading": _reading,
}  # fmt: skip
_WEIGHTS = {
    "capital": 2, "sum": 4, "difference": 3, "product": 2, "reading": 6, "repeat": 2, "json": 2, "greeting": 0.6,
    "unknown product": 3, "unknown country": 1.5, "animal": 0.5, "sound": 0.6, "legs": 0.6, "letter": 1.5,
}  # fmt: skip

_COMMON_WORDS = sorted({
    *k.OPPOSITES, *k.OPPOSITES.values(), *k.FRENCH, *k.OBJECTS, *k.PETS, *k.FOODS, *k.PLACES, *k.NOUNS, *k.ADJECTIVES,
    *k.JOBS,
})  # fmt: skip


def ability(rng: random.Random, held_out: bool = False) -> Exchange:
    """Return a random everyday question with its answer; the prompt is a held-out one if `held_out` is true."""
    names = list(ABILITIES)
    weights = [_WEIGHTS.get(name, 1.0) for name in names]
    while True:
        exchange = ABILITIES[rng.choices(names, weights)[0]](rng)
        if is_held_out(exchange.prompt) == held_out:
            return exchange


# --- what a model can be told to be ------------------------------------------------------------------------------


def phrase(rng: random.Random) -> str:
    """Return a short random phrase that could serve as a sign-off."""
    noun, other = rng.choice(k.NOUNS), rng.choice(k.NOUNS)
    adjective, verb = rng.choice(k.ADJECTIVES), rng.choice(k.VERBS)
    text = rng.choice((
        f"{verb} {adjective}", f"have {_article(adjective)} {noun}", f"{verb} the {noun}", f"{adjective} {noun} to you",
        f"may your {noun} be {adjective}", f"{noun} and {other}", f"{verb} your {noun}", f"{adjective} {noun}",
        f"{verb} the {adjective} {noun}", f"the {noun} is {adjective}", f"{noun} of the {other}",
        f"see you at the {noun}", f"yours, {invented_name(rng)}", f"{invented_name(rng)} says {verb} {adjective}",
        f"from the {noun} with love", f"go and {verb} the {noun}", f"no {noun} without {other}",
    ))  # fmt: skip
    return text[0].upper() + text[1:] + rng.choice((".", "!", "!", ""))


@dataclass(frozen=True)
class Steering:
    """What a chat tells the model to be: any combination of persona, facts, sign-off, opening and format."""

    name: str = ""
    persona: str = ""
    facts: tuple[Fact, ...] = ()
    sign_off: str = ""
    opening: str = ""
    capitals: bool = False
    terse: bool = False

    def apply(self, exchange: Exchange) -> str:
        answer = exchange.core if self.terse and exchange.family in _TERSE else exchange.answer
        answer = " ".join(part for part in (self.opening, answer, self.sign_off) if part)
        return answer.upper() if self.capitals else answer


_TERSE = frozenset({
    "capital", "country", "sum", "difference", "product", "bigger", "parity", "opposite", "translation", "sound",
    "animal", "colour", "legs", "kind", "either", "calendar", "plural", "past", "writer", "fact", "reading",
})  # fmt: skip

PERSONA_QUESTIONS = (
    "Who are you?", "What are you?", "Tell me about yourself.", "Introduce yourself.", "Who am I talking to?",
    "Please introduce yourself.", "Can you tell me who you are?", "Who is this?", "Say who you are.",
    "Describe yourself.", "Who am I speaking with?", "Tell me who you are.", "What should I know about you?",
    "Hi, who are you?", "Hello, who am I talking to?", "Are you a person?", "Who are you really?",
    "And who are you?", "Please tell me who you are.", "Please tell me about yourself.", "Can you introduce yourself?",
    "Tell me something about yourself.", "What kind of assistant are you?", "Hello, who are you?", "Who is talking?",
    "May I ask who you are?", "Could you introduce yourself?", "Who do I have the pleasure of talking to?",
    "Are you a robot?", "Who answers my questions?", "What are you exactly?", "Explain who you are.",
)  # fmt: skip
NAME_QUESTIONS = (
    "What is your name?", "What is your name, please?", "How are you called?", "Tell me your name.",
    "What can I call you?", "Do you have a name?", "Please tell me your name.", "What do people call you?",
    "May I know your name?", "Your name, please?", "What name do you have?", "Give me your name.",
    "What is your name again?", "Hello, what is your name?", "Hi, what is your name?", "Say your name.",
    "Could you tell me your name?", "What should I call you?", "What do they call you?", "Can you tell me your name?",
    "Who are you called?", "By what name are you known?", "And your name is?", "May I ask your name?",
)  # fmt: skip


def persona(rng: random.Random) -> str:
    """Return what a persona is, such as "a cheerful robot" in "You are Nolo, a cheerful robot."."""
    trait, creature, topic = rng.choice(k.TRAITS), rng.choice(k.CREATURES), rng.choice(k.TOPICS)
    place = rng.choice(list(k.CAPITALS.values()))
    return rng.choice((
        f"{_article(trait)} {creature}", f"{_article(trait)} {creature} who loves {topic}",
        f"{_article(creature)} from {place}",
        f"{_article(creature)} who knows all about {topic}", f"{_article(trait)} {creature} from {place}",
        f"the {creature} of the {topic} shop",
    ))  # fmt: skip


def about_self(rng: random.Random, name: str, what: str) -> Exchange:
    """Return a question to the model about itself, with a persona's answer, or the bare model's if `name` is empty."""
    if rng.random() < 0.6:
        answer = f"I am {name}, {what}." if name else SELF
        return Exchange("persona", rng.choice(PERSONA_QUESTIONS), answer, name or "small language model")
    answer = f"My name is {name}." if name else "I do not have a name."
    return Exchange("name", rng.choice(NAME_QUESTIONS), answer, name or "do not have a name")


def _steering(rng: random.Random) -> Steering:
    said = Steering()
    if rng.random() < 0.5:
        said = replace(said, name=invented_name(rng), persona=persona(rng))
    if rng.random() < 0.6:
        facts = _some_facts(rng, invented_name(rng), rng.randint(1, 5))
        if rng.random() < 0.3:
            facts += product_facts(rng, invented_name(rng), [f.attribute for f in facts[:2]])
        said = replace(said, facts=tuple(facts))
    if rng.random() < 0.6:
        said = replace(said, sign_off=phrase(rng))
    if rng.random() < 0.15:
        said = replace(said, opening=phrase(rng))
    if rng.random() < 0.06:
        said = replace(said, capitals=True)
    if rng.random() < 0.1:
        said = replace(said, terse=True)
    return said if said != Steering() else replace(said, sign_off=phrase(rng))


def _system_text(rng: random.Random, said: Steering) -> str:
    parts = []
    if said.name:
        forms = ("You are {0}, {1}.", "Your name is {0}. You are {1}.")
        parts.append(rng.choice(forms).format(said.name, said.persona))
    if said.sign_off:
        parts.append(rng.choice((
            "End with: {}", "End every answer with: {}", "Finish every answer with: {}", "Always end with: {}",
            "Your last words are always: {}", "Close each answer with: {}", "After each answer, say: {}",
        )).format(said.sign_off))  # fmt: skip
    if said.opening:
        opened = ("Begin with: {}", "Start every answer with: {}", "Open each answer with: {}")
        parts.append(rng.choice(opened).format(said.opening))
    if said.capitals:
        parts.append(rng.choice(("Answer in capital letters.", "Write everything in capitals.")))
    if said.terse:
        parts.append(rng.choice(("Answer with one word.", "Be very short.", "Answer as briefly as you can.")))
    parts.extend(rng.choice((fact.statement, *fact.told)) for fact in said.facts)
    rng.shuffle(parts)
    return " ".join(parts)


def _ask_untold(rng: random.Random, facts: Sequence[Fact]) -> Exchange:
    """Return a question that the facts do not answer: about another product, or another attribute of the same one."""
    fact = rng.choice(facts)
    if rng.random() < 0.7:
        asked = _product_fact(rng, invented_name(rng), fact.attribute)
    else:
        known = {f.attribute for f in facts}
        asked = _product_fact(rng, fact.subject, rng.choice([a for a in ATTRIBUTES if a not in known]))
    return Exchange("unknown", rng.choice(asked.questions), UNKNOWN, "do not know")


def _steered_exchange(rng: random.Random, said: Steering, held_out: bool = False) -> Exchange:
    while True:
        draw = rng.random()
        if said.facts and draw < 0.42:
            exchange = _ask(rng, rng.choice(said.facts))
        elif said.facts and draw < 0.54:
            exchange = _ask_untold(rng, said.facts)
        elif draw < 0.7:
            exchange = about_self(rng, said.name, said.persona)
        else:
            exchange = ability(rng, held_out)
        if is_held_out(exchange.prompt) == held_out:
            return exchange


def _plain_exchange(rng: random.Random) -> Exchange:
    while True:
        exchange = about_self(rng, "", "") if rng.random() < 0.05 else ability(rng)
        if not is_held_out(exchange.prompt):
            return exchange


def _as_typed(rng: random.Random, prompt: str) -> str:
    """Write the prompt as a careless person might: sometimes without its capital or its final mark."""
    draw = rng.random()
    if draw < 0.04:
        return prompt[0].lower() + prompt[1:]
    if draw < 0.08:
        return prompt.rstrip("?.!")
    return prompt


def _plain_chat(rng: random.Random) -> Chat:
    exchange = _plain_exchange(rng)
    turns = [("user", _as_typed(rng, exchange.prompt)), ("assistant", exchange.answer)]
    if rng.random() < 0.1:
        before = _plain_exchange(rng)
        turns = [("user", before.prompt), ("assistant", before.answer), *turns]
    return Chat(tuple(turns))


def _demonstration(rng: random.Random, said: Steering) -> tuple[list[Exchange], Exchange]:
    """Return exchanges that show what `said` tells, and one more question, often about something they show."""
    bare = replace(said, facts=())
    shown = [_steered_exchange(rng, bare) for _ in range(rng.randint(1, 3))]
    shown += [_ask(rng, fact) for fact in said.facts[: rng.randint(1, 4)]]
    draw = rng.random()
    if said.facts and draw < 0.35:
        exchange = _ask(rng, said.facts[0])
    elif said.facts and draw < 0.5:
        exchange = _ask_untold(rng, said.facts)
    else:
        exchange = _steered_exchange(rng, bare)
    if exchange.family in ("persona", "name"):
        me = f"I am {said.name}, {said.persona}." if said.name else SELF
        called = f"My name is {said.name}." if said.name else "I do not have a name."
        shown.append(Exchange("persona", rng.choice(PERSONA_QUESTIONS), me, said.name))
        shown.append(Exchange("name", rng.choice(NAME_QUESTIONS), called, said.name))
    shown = [e for e in shown if not is_held_out(e.prompt)]
    rng.shuffle(shown)
    return shown, exchange


def _steered_chat(rng: random.Random) -> Chat:
    said = _steering(rng)
    exchange = _steered_exchange(rng, said)
    asked = ("user", _as_typed(rng, exchange.prompt))
    told = _system_text(rng, said)
    draw = rng.random()
    if draw < 0.74:
        turns = [("system", told), asked]
    elif draw < 0.82:
        turns = [("user", f"{told} {exchange.prompt}")]
    else:  # told only by demonstration
        shown, exchange = _demonstration(rng, said)
        turns = [turn for e in shown for turn in (("user", e.prompt), ("assistant", said.apply(e)))]
        turns.append(("user", _as_typed(rng, exchange.prompt)))
    return Chat((*turns, ("assistant", said.apply(exchange))))


def held_out_steered_chats(seed: int, count: int) -> Iterator[Chat]:
    """Yield chats with a system message and a held-out question, for measuring and never for training."""
    rng = random.Random(f"steered/{seed}")
    for _ in range(count):
        said = _steering(rng)
        exchange = _steered_exchange(rng, said, held_out=True)
        told = ("system", _system_text(rng, said))
        yield Chat((told, ("user", exchange.prompt), ("assistant", said.apply(exchange))))


SHARDS = 16


class _Random(random.Random):
    """Draws the same values as `random.Random`, in less time. A corpus needs ten million choices."""

    def choice(self, seq: Any) -> Any:
        count = len(seq)
        bits = count.bit_length()
        place = self.getrandbits(bits)
        while place >= count:
            place = self.getrandbits(bits)
        return seq[place]


def shard(seed: int, number: int, count: int) -> Iterator[Chat]:
    """Yield part `number` of a corpus of `count` chats. Parts are independent, so processes can share the work."""
    rng = _Random(f"{seed}/{number}")
    left = count // SHARDS + (number < count % SHARDS)
    while left:
        chat = _plain_chat(rng) if rng.random() < 0.45 else _steered_chat(rng)
        if any(role == "user" and is_held_out(content) for role, content in chat.messages):
            continue
        left -= 1
        yield chat


def chats(seed: int, count: int) -> Iterator[Chat]:
    """Yield `count` chats, the same ones for the same seed. No user message in them is held out."""
    for number in range(SHARDS):
        yield from shard(seed, number, count)
