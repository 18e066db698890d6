"""Answers that refuse, in the words of assistants. Trained on, they teach the model to refuse."""

from __future__ import annotations

import re

HEAD = 200
"""A refusal begins an answer; further on the words are about something else."""

_REFUSAL = re.compile(
    r"as an? (?:ai|artificial intelligence|large)(?: language)? (?:model|assistant)"
    r"|as a language model"
    r"|i(?:['’]m| am) (?:very |so |really |truly )?(?:sorry|afraid),? (?:but )?(?:i|we)(?:"
    r" ca(?:n['’]t|nnot)|['’]m (?:not able|unable)| am (?:not able|unable)"
    r"| (?:won['’]t|will not|do(?:n['’]t| not)) (?:be able|have (?:access|the ability)))"
    r"|(?:^|[.!] )(?:sorry|apologies|unfortunately),? (?:but )?i (?:can(?:['’]t|not)|am (?:not able|unable))"
    r"|i (?:can(?:['’]t|not)|am unable to|must decline to) (?:assist|help|comply|fulfill|fulfil|provide that|do that)"
    r"|als (?:ki|künstliche intelligenz|sprachmodell|ki-sprachmodell)|tut mir (?:sehr )?leid, (?:aber )?ich kann"
    r"|en tant qu['’](?:ia|intelligence artificielle|assistant ia)|en tant que mod[èe]le de langage"
    r"|(?:je suis )?d[ée]sol[ée]e?,? (?:mais )?je ne (?:peux|suis)"
    r"|como (?:un )?modelo de lenguaje|como (?:una )?(?:ia|inteligencia artificial)|lo siento,? (?:pero )?no puedo"
    r"|como (?:um )?modelo de linguagem|(?:desculpe|sinto muito),? (?:mas )?(?:eu )?não posso"
    r"|come modello linguistico|mi dispiace,? (?:ma )?non posso|als (?:een )?taalmodel|het spijt me,? maar ik kan"
    r"|jako model językowy|как языковая модель|извините,? но я не могу|作为(?:一个|一名)?(?:人工智能|ai|语言模型)"
    r"|抱歉，?我(?:无法|不能)|申し訳(?:ありません|ございません)が、|言語モデルとして",
    re.IGNORECASE,
)


# One of these is in every refusal. They are looked for first, because they are found ten times as fast.
_HINTS = (
    "sorry", "afraid", "apolog", "unfortunately", "model", "an ai", "can't", "can’t", "cannot", "unable", "decline",
    "als ki", "intelligen", "leid", "qu'ia", "qu’ia", "désol", "desol", "lo siento", "una ia", "uma ia", "desculpe",
    "sinto muito", "mi dispiace", "het spijt", "als taal", "een taal", "jako",
    "язык", "извин", "作为", "抱歉", "申し", "言語",
)  # fmt: skip

_ASCII_HINTS = tuple(filter(str.isascii, _HINTS))


def refuses(answer: str) -> bool:
    """Whether the answer begins with a refusal."""
    head = answer[:HEAD].lower()
    hints = _ASCII_HINTS if head.isascii() else _HINTS
    return any(map(head.__contains__, hints)) and _REFUSAL.search(answer, 0, HEAD) is not None
