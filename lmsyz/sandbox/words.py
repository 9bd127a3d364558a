"""The word lists that the rules use, apart from VADER's lexicon."""

from __future__ import annotations

__all__ = [
    "COUNTRIES",
    "LANGUAGES",
    "LEADING",
    "NEGATIVE",
    "NEUTRAL",
    "NO_MATCH",
    "POSITIVE",
    "SAYS_NOTHING",
    "STOP",
    "SURE_POLES",
    "TONE_NAMES",
    "words",
]


def words(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


# Poles of tone, as the values of an enum name them.
POSITIVE = words(
    "positive pos good great favourable favorable optimistic bullish happy pro supportive up better improved improving"
    " strong satisfied constructive upbeat approve agree praise win gain increase expansionary confident"
)
NEGATIVE = words(
    "negative neg bad poor unfavourable unfavorable pessimistic bearish unhappy con critical down worse worsened"
    " worsening weak dissatisfied adverse downbeat disapprove disagree complaint loss decrease hostile angry"
)
NEUTRAL = words("neutral neither none ambiguous balanced objective unchanged stable flat factual")
# Those that can mean nothing else, so that an enum that has one is about tone whatever the field is called.
SURE_POLES = words(
    "positive negative pos neg good bad bullish bearish hawkish dovish favourable favorable optimistic pessimistic"
)
TONE_NAMES = words("sentiment tone polarity valence mood attitude outlook feeling stance score rating stars")

# An enum's own words for "none of these", best first.
NO_MATCH = (
    "other",
    "none",
    "unknown",
    "unclear",
    "not stated",
    "not mentioned",
    "n/a",
    "na",
    "not applicable",
    "no mention",
    "unspecified",
    "general",
    "neutral",
    "irrelevant",
    "no match",
    "nothing",
)

# Words of a boolean's or an enum's name or description that no text needs to hold.
SAYS_NOTHING = words(
    "is are was were has have had does do did can could will would should be been the a an of to in for on at by and or"
    " any if it its this that whether text row rows review sentence paragraph document passage article flag bool"
    " boolean true false relevant valid ok result value answer mention mentions mentioned mentioning contain contains"
    " contained include includes included refer refers reference references discuss discusses discussed about concern"
    " concerns regard regards talk talks one some explicitly there something anything author speaker company firm with"
    " from says said say states state stated describes described"
)

# Words that are never key words.
STOP = words(
    "the and for that with this from have has had were was are not but they their them will would been its our your his"
    " her who what which when where into than then there these those over under about after before more most some such"
    " only also very just because while during said can could should may might must all any each other upon every"
)

# Capitals that begin a sentence rather than a name.
LEADING = words(
    "The A An In On At For But And It We He She They This That Our Its When While After Before As If Shares Yesterday"
    " Today I You There Last"
)

LANGUAGES = {
    "en": words("the of and to in is that was for with it this are be has not you we"),
    "de": words("der die das und ist nicht ein eine mit von den wird zu auf für im dem hat"),
    "fr": words("le la les des est et une dans pour que qui sur pas avec du au nous"),
    "es": words("el los las del y es una por que con para no se su como más"),
    "it": words("il gli di che è una per con non sono della nel si ha più anche"),
    "pt": words("o os as do da e é uma por que com para não se em mais foi"),
    "nl": words("de het een van en is niet met voor dat op zijn aan er wordt"),
}

COUNTRIES = (
    "United States|United Kingdom|Germany|France|Italy|Spain|Portugal|Netherlands|Belgium|Switzerland|Austria|Sweden|"
    "Norway|Denmark|Finland|Poland|Ireland|Greece|Turkey|Russia|Ukraine|China|Japan|South Korea|North Korea|India|"
    "Pakistan|Indonesia|Vietnam|Thailand|Singapore|Malaysia|Philippines|Taiwan|Hong Kong|Australia|New Zealand|Canada|"
    "Mexico|Brazil|Argentina|Chile|Colombia|Peru|Cuba|Venezuela|South Africa|Nigeria|Kenya|Egypt|Morocco|Israel|Iran|"
    "Iraq|Afghanistan|Saudi Arabia|United Arab Emirates|Qatar|Great Britain|Soviet Union"
)
