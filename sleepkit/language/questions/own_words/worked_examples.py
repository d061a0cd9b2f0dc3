"""Worked examples of what a model is to write, in the language that it is to write in.

    examples_for("de").paraphrases     questions, and the same in other words; the last is a sentence with a gap, to be asked for
    examples_for("de").rewrites        sentences, and the same in other words
    examples_for("de").asked           sentences, with two questions and their short answers
    examples_for("sw")                 English ones, told to stay in the language of the text, where we have none

A small model goes on in the language that the examples before it are in.  Ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from sleepkit.language.questions.languages import ENGLISH

__all__ = ["Pairs", "WorkedExamples", "examples_for"]

Pairs = tuple[tuple[str, str], ...]
_SAME_LANGUAGE = "Each line is followed by the same in other words, in the language of the text.\n\n"


@dataclass(frozen=True)
class WorkedExamples:
    """Worked examples in one language.

    Attributes:
        paraphrases, rewrites, asked: pairs of what is given and what is written.
        names: what stands before a question, before it in other words, before a sentence, and before that said differently.
        told: what is said before paraphrases and rewrites.
    """

    paraphrases: Pairs
    rewrites: Pairs
    asked: Pairs
    names: tuple[str, str, str, str]
    told: str = ""

    def paraphrase_prompt(self, question: str) -> str:
        """A text to go on from with a question in other words."""
        return self.told + _shown(self.paraphrases, self.names[0], self.names[1], question)

    def rewrite_prompt(self, sentence: str) -> str:
        """A text to go on from with a sentence in other words."""
        return self.told + _shown(self.rewrites, self.names[2], self.names[3], sentence)


def examples_for(language: str) -> WorkedExamples:
    """The worked examples of a language, in ISO 639-1."""
    return _EXAMPLES.get(language, _OTHERS)


def _shown(pairs: Pairs, given: str, made: str, last: str) -> str:
    return "".join(f"{given} {one}\n{made} {other}\n\n" for one, other in pairs) + f"{given} {last}\n{made}"


_ASKED_IN_ENGLISH = (
    "The Hallow Bridge, painted green, was opened by Queen Ada in 1874.",
    "Q: Who opened the Hallow Bridge?\nA: Queen Ada\nQ: In which year was the Hallow Bridge opened?\nA: 1874",
)
_ASKED_IN_GERMAN = (
    "Das Museum in Lindau besitzt 340 Uhren, deren älteste von Jonas Kehl stammt.",
    "Q: Wie viele Uhren besitzt das Museum in Lindau?\nA: 340\nQ: Von wem stammt die älteste Uhr in Lindau?\nA: Jonas Kehl",
)
_ASKED_IN_CHINESE = (
    "青石镇的图书馆由陈月于1956年建立。",
    "Q: 青石镇的图书馆是谁建立的？\nA: 陈月\nQ: 青石镇的图书馆建于哪一年？\nA: 1956年",
)

_EXAMPLES = {
    ENGLISH: WorkedExamples(
        paraphrases=(
            ("In which city was Marie Curie born?", "What is the birthplace of Marie Curie?"),
            ("How long is the Golden Gate Bridge?", "What length does the Golden Gate Bridge have?"),
            ("What sets the rhythm of the heart?", "The heart keeps its rhythm thanks to what?"),
            ("Who was Ada Lovelace taught by?", "Which person gave lessons to Ada Lovelace?"),
        ),
        rewrites=(
            ("Marie Curie was born in Warsaw in 1867.", "Warsaw is the city where Marie Curie was born in 1867."),
            (
                "The bridge, painted orange, is 2,737 metres long.",
                "Painted orange, the bridge has a length of 2,737 metres.",
            ),
        ),
        asked=(
            _ASKED_IN_ENGLISH,
            (
                "The museum of Lindau keeps 340 clocks, the oldest of which is made of oak.",
                "Q: How many clocks does the museum of Lindau keep?\nA: 340\n"
                "Q: What is the oldest clock of Lindau made of?\nA: oak",
            ),
            (
                "During the harvest of Brenn, children carry baskets of pears to a chapel on the hill.",
                "Q: What do children carry during the harvest of Brenn?\nA: baskets of pears\n"
                "Q: Where are pears brought during the harvest of Brenn?\nA: a chapel on the hill",
            ),
        ),
        names=("Question:", "In other words:", "Text:", "Said differently:"),
    ),
    "de": WorkedExamples(
        paraphrases=(
            ("In welcher Stadt wurde Marie Curie geboren?", "Wo kam Marie Curie zur Welt?"),
            ("Wie lang ist die Glienicker Brücke?", "Welche Länge hat die Glienicker Brücke?"),
            ("___ wurde 1867 in Warschau geboren.", "Wer kam 1867 in Warschau zur Welt?"),
        ),
        rewrites=(
            ("Marie Curie wurde 1867 in Warschau geboren.", "Im Jahr 1867 kam Marie Curie in Warschau zur Welt."),
            ("Die Brücke ist orange gestrichen und 2.737 Meter lang.", "2.737 Meter misst die orange gestrichene Brücke."),
        ),
        asked=(
            _ASKED_IN_ENGLISH,
            _ASKED_IN_GERMAN,
            (
                "Die grüne Brücke bei Hallau wurde 1874 von Königin Ada eröffnet.",
                "Q: Wer eröffnete die grüne Brücke bei Hallau?\nA: Königin Ada\n"
                "Q: Wann wurde die Brücke bei Hallau eröffnet?\nA: 1874",
            ),
        ),
        names=("Frage:", "Anders gefragt:", "Text:", "Anders gesagt:"),
    ),
    "es": WorkedExamples(
        paraphrases=(
            ("¿En qué ciudad nació Marie Curie?", "¿Dónde vino al mundo Marie Curie?"),
            ("¿Cuánto mide el puente Golden Gate?", "¿Qué longitud tiene el puente Golden Gate?"),
            ("___ nació en Varsovia en 1867.", "¿Quién vino al mundo en Varsovia en 1867?"),
        ),
        rewrites=(
            ("Marie Curie nació en Varsovia en 1867.", "En 1867 vino al mundo en Varsovia Marie Curie."),
            (
                "El puente, pintado de naranja, mide 2737 metros.",
                "Pintado de naranja, el puente tiene una longitud de 2737 metros.",
            ),
        ),
        asked=(
            _ASKED_IN_ENGLISH,
            (
                "El puente verde de Hallo fue inaugurado por la reina Ada en 1874.",
                "Q: ¿Quién inauguró el puente verde de Hallo?\nA: la reina Ada\n"
                "Q: ¿En qué año se inauguró el puente verde de Hallo?\nA: 1874",
            ),
            (
                "El museo de Lindau posee 340 relojes, y el más antiguo es de Jonás Kehl.",
                "Q: ¿Cuántos relojes posee el museo de Lindau?\nA: 340\n"
                "Q: ¿De quién es el reloj más antiguo de Lindau?\nA: Jonás Kehl",
            ),
        ),
        names=("Pregunta:", "Con otras palabras:", "Texto:", "Dicho de otro modo:"),
    ),
    "fr": WorkedExamples(
        paraphrases=(
            ("Dans quelle ville Marie Curie est-elle née ?", "Où Marie Curie a-t-elle vu le jour ?"),
            ("Combien mesure le pont du Golden Gate ?", "Quelle est la longueur du pont du Golden Gate ?"),
            ("___ est née à Varsovie en 1867.", "Qui a vu le jour à Varsovie en 1867 ?"),
        ),
        rewrites=(
            ("Marie Curie est née à Varsovie en 1867.", "C’est à Varsovie, en 1867, que Marie Curie a vu le jour."),
            ("Le pont, peint en orange, mesure 2 737 mètres.", "Peint en orange, le pont est long de 2 737 mètres."),
        ),
        asked=(
            _ASKED_IN_ENGLISH,
            (
                "Le pont vert de Hallot fut inauguré par la reine Ada en 1874.",
                "Q: Qui inaugura le pont vert de Hallot ?\nA: la reine Ada\n"
                "Q: En quelle année le pont vert de Hallot fut-il inauguré ?\nA: 1874",
            ),
            (
                "Le musée de Lindau possède 340 horloges, dont la plus ancienne est de Jonas Kehl.",
                "Q: Combien d’horloges le musée de Lindau possède-t-il ?\nA: 340\n"
                "Q: De qui est la plus ancienne horloge de Lindau ?\nA: Jonas Kehl",
            ),
        ),
        names=("Question :", "En d’autres mots :", "Texte :", "Dit autrement :"),
    ),
    "ru": WorkedExamples(
        paraphrases=(
            ("В каком городе родилась Мария Кюри?", "Где появилась на свет Мария Кюри?"),
            ("Какой длины мост Золотые Ворота?", "Какова длина моста Золотые Ворота?"),
            ("___ родилась в Варшаве в 1867 году.", "Кто появился на свет в Варшаве в 1867 году?"),
        ),
        rewrites=(
            ("Мария Кюри родилась в Варшаве в 1867 году.", "В 1867 году в Варшаве появилась на свет Мария Кюри."),
            ("Мост выкрашен в оранжевый цвет, его длина 2737 метров.", "Длина оранжевого моста составляет 2737 метров."),
        ),
        asked=(
            _ASKED_IN_ENGLISH,
            (
                "Зелёный мост в Халлоу открыла королева Ада в 1874 году.",
                "Q: Кто открыл зелёный мост в Халлоу?\nA: королева Ада\nQ: В каком году открыли зелёный мост в Халлоу?\nA: 1874",
            ),
            (
                "В музее Линдау хранятся 340 часов, самые старые сделал Йонас Кель.",
                "Q: Сколько часов хранится в музее Линдау?\nA: 340\n"
                "Q: Кто сделал самые старые часы в музее Линдау?\nA: Йонас Кель",
            ),
        ),
        names=("Вопрос:", "Другими словами:", "Текст:", "Иначе говоря:"),
    ),
    "zh": WorkedExamples(
        paraphrases=(
            ("玛丽·居里出生在哪座城市？", "玛丽·居里的出生地是哪里？"),
            ("金门大桥有多长？", "金门大桥的长度是多少？"),
            ("___于1867年出生在华沙。", "1867年在华沙出生的是谁？"),
        ),
        rewrites=(
            ("玛丽·居里于1867年出生在华沙。", "1867年，玛丽·居里在华沙出生。"),
            ("这座大桥漆成橙色，长2737米。", "大桥长2737米，漆的是橙色。"),
        ),
        asked=(
            _ASKED_IN_ENGLISH,
            (
                "林道博物馆收藏了340座钟，其中最古老的一座出自约纳斯之手。",
                "Q: 林道博物馆收藏了多少座钟？\nA: 340座\nQ: 林道博物馆最古老的钟是谁做的？\nA: 约纳斯",
            ),
            _ASKED_IN_CHINESE,
        ),
        names=("问题：", "换一种问法：", "原文：", "换一种说法："),
    ),
    "ja": WorkedExamples(
        paraphrases=(
            ("マリー・キュリーはどの都市で生まれましたか？", "マリー・キュリーの生まれた都市はどこですか？"),
            ("金門橋の長さはどれくらいですか？", "金門橋はどれくらい長いですか？"),
            ("___は1867年にワルシャワで生まれた。", "1867年にワルシャワで生まれたのは誰ですか？"),
        ),
        rewrites=(
            (
                "マリー・キュリーは1867年にワルシャワで生まれた。",
                "1867年、マリー・キュリーはワルシャワで生まれている。",
            ),
            ("橙色に塗られた橋の長さは2737メートルである。", "その橋は橙色に塗られ、長さが2737メートルある。"),
        ),
        asked=(
            _ASKED_IN_ENGLISH,
            (
                "リンダウの博物館には340個の時計があり、最も古いものはヨナスが作った。",
                "Q: リンダウの博物館には時計がいくつありますか？\nA: 340個\n"
                "Q: リンダウの最も古い時計は誰が作りましたか？\nA: ヨナス",
            ),
            (
                "青石町の図書館は1956年に陳月が建てた。",
                "Q: 青石町の図書館は誰が建てましたか？\nA: 陳月\nQ: 青石町の図書館はいつ建てられましたか？\nA: 1956年",
            ),
        ),
        names=("質問：", "別の聞き方：", "原文：", "言い換え："),
    ),
    "ar": WorkedExamples(
        paraphrases=(
            ("في أي مدينة وُلدت ماري كوري؟", "أين وُلدت ماري كوري؟"),
            ("كم يبلغ طول جسر البوابة الذهبية؟", "ما طول جسر البوابة الذهبية؟"),
            ("وُلدت ___ في وارسو عام 1867.", "من التي وُلدت في وارسو عام 1867؟"),
        ),
        rewrites=(
            ("وُلدت ماري كوري في وارسو عام 1867.", "في عام 1867 وُلدت ماري كوري في وارسو."),
            ("الجسر مطلي بالبرتقالي ويبلغ طوله 2737 مترًا.", "يبلغ طول الجسر المطلي بالبرتقالي 2737 مترًا."),
        ),
        asked=(
            _ASKED_IN_ENGLISH,
            (
                "افتتحت الملكة آدا جسر هالو الأخضر عام 1874.",
                "Q: من افتتحت جسر هالو الأخضر؟\nA: الملكة آدا\nQ: في أي عام افتُتح جسر هالو الأخضر؟\nA: 1874",
            ),
            (
                "يضم متحف لينداو 340 ساعة، أقدمها من صنع يوناس كيل.",
                "Q: كم ساعة يضم متحف لينداو؟\nA: 340\nQ: من صنع أقدم ساعة في متحف لينداو؟\nA: يوناس كيل",
            ),
        ),
        names=("السؤال:", "بكلمات أخرى:", "النص:", "بصياغة أخرى:"),
    ),
}
_ENGLISH = _EXAMPLES[ENGLISH]
_ASKED = (_ASKED_IN_ENGLISH, _ASKED_IN_GERMAN, _ASKED_IN_CHINESE)
_OTHERS = WorkedExamples(_ENGLISH.paraphrases, _ENGLISH.rewrites, _ASKED, _ENGLISH.names, _SAME_LANGUAGE)
