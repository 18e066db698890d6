"""What tells the language of a text quickly: its script, and its most common words.

`services/validate/survey/texts/languages.py` counts the words. A model (`survey/by_model.py`) is asked about texts that
neither is clear about.
"""

from __future__ import annotations

import re

_WORDS = {
    "English": "the and of to is in that it you for was with are this have not be on my your can how what i we "
    "they he she from at or an will would do does please where when which has had there their been "
    "if me but all about by as",
    "German": "der die das und ist nicht ich sie ein eine zu den mit für auf von dem im wir es wie was bitte "
    "kann habe mein meine sich auch wird bei oder aus nach haben sind war wenn aber ihre ihr noch "
    "nur mir",
    "French": "le la les et est une un des pas je vous de du que qui pour dans avec sur au ce il elle nous ne "
    "votre mon ma mes sont être avez plus par mais ou où cette comment pouvez suis bonjour",
    "Spanish": "saber va cuándo fue hay gustaría quiero necesito mis sus el los las y es una un de que no por "
    "para con en se lo mi su como más pero está qué cómo puedo tengo del al me te le hay son muy "
    "este esta o cuando donde gracias",
    "Portuguese": "o os as e é uma um de que não por para com em se meu minha seu sua como mais mas está você do "
    "da no na ao são muito este esta quando onde obrigado posso tenho foi eu vai gostaria fazer pode "
    "ser preciso",
    "Italian": "il lo gli e è una un di che non per con in si mi del della sono come più ma ho questo questa "
    "dei nel alla le i la può posso anche perché dove quando grazie mio mia",
    "Dutch": "de het een en is niet ik van dat in op te met voor zijn je aan er maar om ook als dan naar bij "
    "heb mijn kan wat hoe was wij zij uw nog wel geen deze",
    "Polish": "w i nie się na z do to jest że jak o po co za od czy ale tak mam moje jestem dla są przez może "
    "gdzie proszę można tego",
    "Swedish": "och det att i en jag är som på inte av för med den till har de om ett vi kan du hur var min "
    "mitt från eller men när",
    "Danish": "og det at i en jeg er som på ikke af for med den til har de om et vi kan du hvordan hvor min "
    "mit fra eller men når",
    "Norwegian": "og det å i en jeg er som på ikke av for med den til har de om et vi kan du hvordan hvor min "
    "mitt fra eller men når",
    "Czech": "a je v se na to že s do o jak ale za po jsem jsou pro by ve tak co není můžu prosím kde když který",
    "Turkish": "ve bir bu için ile de da ne mi var yok çok ben sen nasıl daha gibi ama olarak değil mı olan en "
    "kadar lütfen nerede",
    "Finnish": "ja on ei se että en hän ole mitä miten minun minä tämä kuin mutta voi myös sen ovat oli jos kun tai",
    "Indonesian": "yang dan di ini itu saya tidak dengan untuk dari ke ada akan anda bisa pada adalah apa "
    "bagaimana sudah atau karena juga",
    "Vietnamese": "là và của có không tôi cho được trong các một những với này đã bạn người để khi như làm",
    "Romanian": "și de la în nu este un o că cu pe pentru care mai sunt am din ce să se cum vă acest după",
    "Hungarian": "a az és nem hogy egy is van ez de meg csak mint már el ha kell mi én hogyan lehet volt",
}
# First and last code point of a script that one language uses, or that stands for its main one.
_SCRIPTS = (
    (0x3040, 0x30FF, "Japanese"),
    (0xAC00, 0xD7AF, "Korean"),
    (0x4E00, 0x9FFF, "Chinese"),
    (0x0600, 0x06FF, "Arabic"),
    (0x0590, 0x05FF, "Hebrew"),
    (0x0900, 0x097F, "Hindi"),
    (0x0E00, 0x0E7F, "Thai"),
    (0x0370, 0x03FF, "Greek"),
    (0x0400, 0x04FF, "Russian"),
)
_UKRAINIAN = frozenset("іїєґІЇЄҐ")
_OF_SCRIPT = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last, _ in _SCRIPTS) + "]")
_HEAD = 400
"""Characters whose script is looked at."""
WORDS = {language: frozenset(words.split()) for language, words in _WORDS.items()}
"""The words that texts of a language cannot do without. A word of several languages is a part of one for each."""
LATIN_TEXT = 24
"""Words that are looked at: more would not change the answer."""
LEAST, LEAD = 1.2, 1.4
"""A language is clear with so many words of its own, and so many times those of any other."""


def script_of(text: str) -> str | None:
    """The language of a text that is mostly in one script other than the Latin one."""
    text = text[:_HEAD]
    if _OF_SCRIPT.search(text) is None:
        return None
    counts: dict[str, int] = {}
    for character in text:
        if (point := ord(character)) >= 0x370:
            for first, last, language in _SCRIPTS:
                if first <= point <= last:
                    counts[language] = counts.get(language, 0) + 1
                    break
    if 3 * sum(counts.values()) < sum(each.isalpha() for each in text):
        return None
    if "Japanese" in counts:
        return "Japanese"  # it uses Chinese characters, too
    best = max(counts, key=lambda language: (counts[language], language))
    return "Ukrainian" if best == "Russian" and not _UKRAINIAN.isdisjoint(text) else best
