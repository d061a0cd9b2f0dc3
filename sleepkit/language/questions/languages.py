"""Which language a text is in, told by its script and by its commonest words, without a model or a download.

    language_of("Der Turm wurde 1874 gebaut.")   -> "de"          ISO 639-1; `UNKNOWN` where neither tells
    language_of("Orla Finch", default="de")      -> "de"          nothing there that tells: what it stands in is asked

A script of one language tells alone.  In Latin letters each word votes for the languages that it is a stop word of, and so do
letters that few languages have; English wins a tie, as rules for English exist and most documents are English.  A word with a
capital within a sentence has no vote: it is a name ("La Liga", "Der Spiegel").  A question, which is no name, needs one word
less: short ones have few.  A text of some length with next to no stop word is of a language that is not listed.

Ours.  py3langid and other classifiers of texts were tried: they err on short sentences ("Ann kept bees." is Luxembourgish), which
is what is asked about here.  Left out: languages that share stop words and letters (Norwegian is Danish here).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from sleepkit.reporting.scripts import language_of_script

__all__ = ["ENGLISH", "FEW_WORDS", "STOP_WORDS", "UNKNOWN", "is_in", "language_of"]

ENGLISH, UNKNOWN = "en", ""
FEW_WORDS = 8  # of a text that may be without a stop word
STOP_SHARE = 0.12  # of the words of a longer text: English has .4
LEAST_SHARE = 0.03  # the same where the language around is known

_STOP_WORDS = {
    ENGLISH: (
        "the a an of in on at to for with by and or is are was were be been as from that this it its which who into their his "
        "her they he she not has have had these those there some many most also one two such what but if when while after before "
        "since during until i you we my your our me him them us do does did will would can could should may might must about "
        "over under between through no so than then how why where whose all any each only very more"
    ),
    "de": (
        "der die das den dem des ein eine einen einem einer eines und oder aber nicht ist sind war waren wird wurde wurden "
        "werden hat haben hatte hatten von zu zum zur im in am an auf aus bei mit nach für über unter vor durch als wie auch nur "
        "noch sich es er sie wir ihr sein seine seiner ihre ihrer dass wenn weil damit dann doch dort hier man kein keine bis "
        "seit um dieser diese dieses jeder welche wer was wo wann warum ich du mir dir ihm ihnen welcher welches welchem welchen "
        "während ins vom beim"
    ),
    "es": (
        "a el la los las un una unos unas de del y o pero no cada es son era fue ha han había en con por para sin sobre "
        "entre desde hasta como más muy también su sus se lo le les que quien cuando donde cómo qué quién dónde cuándo al este "
        "esta estos estas ese esa aquel ya si porque yo tú él ella nosotros ellos hay ser"
    ),
    "fr": (
        "le la les l d un une des du de et ou mais ne pas est sont était étaient fut furent a ont avait en dans sur sous avec "
        "sans pour par entre depuis jusqu chez vers comme plus très aussi son sa ses leur leurs se ce cet cette ces qui que qu "
        "quand où comment pourquoi au aux il elle ils elles nous vous je tu on y si été être"
    ),
    "it": (
        "il lo la i gli le l un uno una di del della dello dei degli delle e o ma non è sono era erano fu furono ha hanno aveva "
        "in nel nella nei con per senza su sul sulla tra fra da dal dalla come più molto anche suo sua suoi sue si ci che chi "
        "quando dove perché al alla ai alle questo questa questi egli lei noi loro ed ad stato stata"
    ),
    "pt": (
        "o a os as um uma uns umas de do da dos das e ou mas não é são era eram foi foram há tem tinha em no na nos nas com por "
        "para sem sobre entre desde até como mais muito também seu sua seus suas se que quem quando onde porque ao à aos pelo "
        "pela este esta esse isso ele ela eles nós eu já ser"
    ),
    "nl": (
        "de het een en of maar niet is zijn was waren wordt werd werden heeft hebben had hadden van te in op aan bij met naar "
        "voor over onder door uit als ook nog dan er hij zij ze wij we ik je u dat die deze dit wie wat waar wanneer hoe om tot "
        "geen meer zich hun haar zo omdat toen"
    ),
    "sv": (
        "och att det som en ett i på är var av för med till den de har hade inte om han hon vi jag från men ett sin sina sitt "
        "när där hur vad vem blev blir kan ska skulle eller efter under över också"
    ),
    "da": (
        "og at det som en et i på er var af for med til den de har havde ikke om han hun vi jeg fra men sin sine når hvor "
        "hvordan hvad hvem blev bliver kan skal ville eller efter under over også ble ikke av"
    ),
    "pl": (
        "i w na z ze do nie się jest są był była było byli to że a ale o od po za przez przy dla jak już jego jej ich który "
        "która które kto co gdzie kiedy oraz lub tylko także został została w latach przed pod nad jako"
    ),
    "cs": (
        "a v na z ze do ne se je jsou byl byla bylo byli to že ale o od po za přes při pro jak už jeho její jejich který která "
        "které kdo co kde kdy nebo jen také si s k u i"
    ),
    "ro": (
        "și în la de din pe cu nu este sunt era erau a fost au că care un o unei unui pentru prin dar sau mai după până lui ei "
        "lor se ce cine unde când al ale cel cea"
    ),
    "hu": (
        "a az egy és nem is hogy van volt voltak lesz ez azt de ha mint csak már meg el ki fel be után alatt között által vagy ő "
        "aki ami hol mikor miért lett"
    ),
    "tr": (
        "ve bir bu da de için ile çok ne o olarak daha olan var gibi kadar sonra en ama veya ya mi mı değil oldu ki her şu göre "
        "kim nerede nasıl tarafından"
    ),
    "fi": (
        "ja on oli ei se hän että joka ovat olivat kun mutta tai myös niin kuin sen ne hänen jonka ole vain sitten missä milloin "
        "kuka mitä tämä nyt"
    ),
    "vi": (
        "và của là có không được trong cho với một các những này đó người khi đã sẽ từ đến ở vào ra về như cũng nhưng vì tại năm "
        "ông bà ai gì nào"
    ),
    "id": (
        "dan yang di ke dari untuk dengan ini itu pada adalah tidak dalam akan oleh sebagai juga telah ada karena atau ia dia "
        "mereka kami kita saya apa siapa kapan mana sebuah seorang para"
    ),
    "ru": (
        "и в во на с со не что он она оно они как это по из за от до для к ко у о об же но а бы был была было были его её их или "
        "если когда где кто только также при после перед под над в том уже есть мы вы я ты то так"
    ),
    "uk": "і й в у на з із не що він вона воно вони як це по за від до для о але а був була було були його її їх або коли де хто",
    "el": "ο η το οι τα του της των τον την και σε με για από που δεν είναι ήταν ως στο στη στην στον μια ένα ένας θα να",
    "ar": (
        "في من على إلى عن مع هذا هذه ذلك التي الذي كان كانت هو هي و أو لا ما لم لن أن إن قد كل بعد قبل "
        "عند ثم حتى بين هل أي أين متى كم كيف ماذا لماذا ممن بمن لمن"
    ),
    "fa": "و در به از که این آن را با است بود برای یک تا بر هم نیز او ما شد شده چه کجا کی چگونه کدام چند چرا",
    "ur": "اور میں کی کے کا کو سے نے پر ہے ہیں تھا تھی تھے یہ وہ ایک بھی جو کہ کیا کون کب کہاں کیسے کتنے کس",
    "he": "של את על עם לא הוא היא הם זה זו או כי אשר גם כל אם אל מן בין היה היתה היו מי מה איפה מתי כמה איך איזה איזו למה",
    "hi": (
        "का के की में से को ने पर है हैं था थे थी और या यह वह एक भी जो कि तक लिए साथ हो गया गई इस उस "
        "क्या कौन कब कहाँ कैसे कितने कितना किसने किस किसे"
    ),
    "bn": "এবং ও এই সে তার যে একটি থেকে জন্য করে হয় ছিল ছিলেন না কে কী কখন কোথায় কেন কত কোন",
}
STOP_WORDS = {language: frozenset(words.split()) for language, words in _STOP_WORDS.items()}
_VOTERS = [language for language, words in _STOP_WORDS.items() if not language_of_script(words)]
_LETTERS = {
    "de": "ß", "es": "ñ¿¡", "fr": "œùû", "pt": "ãõ", "pl": "ąęłśźż", "cs": "ěřů", "ro": "ășț", "hu": "őű", "tr": "ğış", "da": "ø",
    "vi": "ơưđạảấầậắằặẹẻếềệịỉọỏốồộớờợụủứừự",
}  # fmt: skip
_SCRIPTS = {"fa": "ar", "ur": "ar", "uk": "ru", "be": "ru", "sr": "ru"}  # what a text without the telling letters is taken for
_WORD = re.compile(r"(?:[.!?] )?[^\W\d_]+")
_BEFORE = ".!? "  # the first word of a sentence, which has a capital for that
_LONGEST = 20_000  # characters that are read of a text


def language_of(text: str, default: str = UNKNOWN) -> str:
    """The language that most of a text is in, in ISO 639-1.

    Args:
        default: what a few words are taken for that do not tell, such as a name: the language of what they stand in.
    """
    text = unicodedata.normalize("NFC", text[:_LONGEST])
    if language := language_of_script(text):
        return language
    words = _WORD.findall(text if not text.isupper() else text.lower())
    words = [word.lstrip(_BEFORE).lower() if word[0] in _BEFORE else word for word in words]
    counts = Counter([*map(str.lower, words[:1]), *words[1:]])
    votes = {language: sum(counts[word] for word in counts.keys() & STOP_WORDS[language]) for language in _VOTERS}
    letters = set(text.lower())
    for language, telling in _LETTERS.items():
        votes[language] += len(letters & set(telling))
    best = max(votes, key=lambda language: (votes[language], language == default))  # English is the first of other equals
    if _is_told(best, votes, len(words), default, text.rstrip().endswith("?")):
        return best
    is_likely = len(words) < FEW_WORDS or votes.get(default, 0) > LEAST_SHARE * len(words)
    return default if is_likely else UNKNOWN


def is_in(text: str, language: str) -> bool:
    """Whether a text may be in a language: nothing in it tells of another.  Of one that is not known, that it is not English."""
    told = language_of(text, language)
    return told != ENGLISH if language == UNKNOWN else told in (language, _SCRIPTS.get(language))


def _is_told(best: str, votes: dict[str, int], words: int, default: str, is_question: bool) -> bool:
    """Whether the votes for a language are enough: two more than for the one around, one of a question; some of many words."""
    if best == default or not votes[best]:
        return votes[best] > LEAST_SHARE * words
    enough = (
        votes[best] > votes[default] + (not is_question) if default in votes else votes[best] > 1 or best == ENGLISH or words > 3
    )
    return enough and (words < FEW_WORDS or votes[best] >= STOP_SHARE * words)
