"""Forty general questions with short answers. They have nothing to do with any task, so they show what a model forgot
while it was tuned: the base and the tuned model are both asked all of them."""

from __future__ import annotations

from services.evaluator.domain.questions.prompts import Prompt
from services.evaluator.domain.replies import Reply
from shared.events import FrozenModel
from shared.scoring.words import words

MAX_TOKENS = 48
"""Of an answer. It is enough for a sentence around the right word."""


class GeneralQuestion(FrozenModel):
    """A question, and the answers of which one must be in the reply, word for word."""

    text: str
    right: tuple[str, ...]


def right(question: GeneralQuestion, reply: Reply) -> float:
    """1.0 if the reply holds a right answer as whole words, else 0.0; case and punctuation do not matter."""
    said = f" {' '.join(words(reply.text))} "
    return float(any(f" {' '.join(words(answer))} " in said for answer in question.right))


def as_prompt(question: GeneralQuestion, *, completion: bool) -> Prompt:
    """The request, in the format of the dataset."""
    if completion:
        return Prompt(text=f"Question: {question.text}\nAnswer:", stop=("\nQuestion:",))
    return Prompt(messages=({"role": "user", "content": question.text},))


def _asked(text: str, *answers: str) -> GeneralQuestion:
    return GeneralQuestion(text=text, right=answers)


GENERAL_QUESTIONS: tuple[GeneralQuestion, ...] = (
    _asked("What is the capital of France?", "Paris"),
    _asked("What is the capital of Japan?", "Tokyo"),
    _asked("Which country is Cairo the capital of?", "Egypt"),
    _asked("On which continent is Brazil?", "South America"),
    _asked("Which ocean lies between Europe and North America?", "Atlantic"),
    _asked("What is the longest river of South America?", "Amazon"),
    _asked("What is 7 plus 8?", "15", "fifteen"),
    _asked("What is 12 times 3?", "36", "thirty six"),
    _asked("What is 100 minus 45?", "55", "fifty five"),
    _asked("What is half of 90?", "45", "forty five"),
    _asked("How many sides has a triangle?", "3", "three"),
    _asked("How many days has a leap year?", "366"),
    _asked("How many minutes are in two hours?", "120", "one hundred and twenty", "one hundred twenty"),
    _asked("Which number comes next: 2, 4, 6, 8, …?", "10", "ten"),
    _asked("What is the chemical formula of water?", "H2O", "H₂O"),
    _asked("Which planet is closest to the sun?", "Mercury"),
    _asked("Which gas do plants take from the air for photosynthesis?", "carbon dioxide", "CO2", "CO₂"),
    _asked("At how many degrees Celsius does water boil at sea level?", "100"),
    _asked("Which organ pumps blood through the body?", "heart"),
    _asked("How many legs has a spider?", "8", "eight"),
    _asked("Which animal says meow?", "cat"),
    _asked("Who wrote Romeo and Juliet?", "Shakespeare"),
    _asked("Who painted the Mona Lisa?", "Leonardo", "da Vinci"),
    _asked("In which year did the Second World War end?", "1945"),
    _asked("What is the opposite of hot?", "cold"),
    _asked("What is the opposite of big?", "small", "little", "tiny"),
    _asked("What is the plural of mouse, the animal?", "mice"),
    _asked("What is the past tense of go?", "went"),
    _asked("Translate the word dog to Spanish.", "perro"),
    _asked("Translate the word thank you to French.", "merci"),
    _asked("Was heißt das Wort Haus auf Englisch?", "house"),
    _asked("Which colour do you get by mixing blue and yellow?", "green"),
    _asked("What colour is a ripe banana?", "yellow"),
    _asked("Which day comes after Monday?", "Tuesday"),
    _asked("Which month comes before March?", "February"),
    _asked("Is 17 a prime number? Answer with yes or no.", "yes"),
    _asked("Reply with the single word OK.", "OK"),
    _asked("Write the word stone in capital letters.", "STONE"),
    _asked("Which is heavier: a feather or a brick?", "brick"),
    _asked("Anna is taller than Ben, and Ben is taller than Carl. Who is the shortest?", "Carl"),
)
