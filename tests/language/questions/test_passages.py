"""What is asked about and what is quoted: prose of several languages, and what people have besides."""

import pytest

from sleepkit.language.questions.passages import Passage, flowing, passages

PIER = "The pier opened in 1907."

QUOTED = {
    "python": "import os\n\ndef book(name, seats=2):\n    if seats > 8:\n        return None\n    return os.path.join(name)\n",
    "python with comments": "# The keeper was Orla Finch.\nclass Light:\n    height = 43\n    def lit(self):\n        return 1\n",
    "javascript": "const book = (name) => {\n  console.log(name);\n  return `Booked ${name}`;\n};\n",
    "c": '#include <stdio.h>\nint main(void) {\n  printf("hello\\n");\n  return 0;\n}\n',
    "sql": "SELECT name FROM keepers WHERE year > 1900;\nUPDATE keepers SET name = 'Orla';\n",
    "shell": '#!/bin/bash\nset -e\nfor f in *.md; do\n  echo "$f"\ndone\ncd /tmp && ls\n',
    "yaml": "name: sleepkit\nport: 8080\nservers:\n  - host: a.example\n    size: 4\n",
    "ini": "[server]\nport = 8080\nhost = example.org\n",
    "json": '{\n "name": "Ada",\n "year": 1907\n}\n',
    "html": "<html>\n<body>\n<p>The pier opened in 1907.</p>\n</body></html>\n",
    "traceback": 'Traceback (most recent call last):\n  File "a.py", line 3, in <module>\n    main()\nValueError: bad value\n',
    "markdown table": "| dish | small | large |\n|---|---|---|\n| Soup | 4.50 | 7.25 |\n",
    "columns": "Soup        7.25   22.00   4.50\nBread       4.90   11.00   2.50\n",
    "tabs": "Soup\t7.25\nBread\t4.90\n",
    "csv": "item,price,year\nSoup,4.50,1907\nBread,2.00,1911\n",
    "semicolons": "name;role\nOrla Finch;keeper\nMilo Hart;ferryman\n",
    "numbers": "7.25 22.00 4.50 4.90\n1.25 20.00 4.00 4.10\n",
    "whatsapp": "[12.03.24, 18:22] Ada: hello\n[12.03.24, 18:23] Ben: The ferry leaves at nine.\n",
    "whatsapp, other": "12/03/2024, 18:22 - Ada: hello there\n12/03/2024, 18:25 - Ben: The ferry leaves at nine.\n",
    "american": "3/12/24, 6:22 PM - Ada: The ferry leaves at nine.\n",
    "telegram": "Ada, [12.03.24 18:22]\nThe ferry leaves at nine.\n",
    "slack": "Ada Lovelace  [6:22 PM]\nThe ferry leaves at nine.\n",
    "irc": "<ada> hello there\n<ben> The ferry leaves at nine.\n",
    "subtitles": "00:01.000 --> 00:04.000\nThe pier opened in 1907.\n",
    "log": "2024-03-12 18:22:01,123 INFO server: started.\n2024-03-12 18:22:02,001 ERROR db: connection refused.\n",
    "levels": "INFO: The server started.\n[ERROR] The server stopped.\n",
    "syslog": "Mar 12 18:22:01 host sshd[123]: Accepted password for ada.\n",
    "entries": "Keeper: Orla Finch\nBuilt: 1907\nOpening hours: 9 to 5\n",
    "dialogue": "Ada: The pier opened in 1907.\nBen: Ida Brook is the captain.\n",
    "script": "ADA LOVELACE: The pier opened in 1907.\n",
    "list": "- salt\n- two loaves of bread\n* Orla Finch\n1. Salt and pepper\n",
    "headings": "# History\n\n## The pier that opened in 1907\n\nChapter Two\n",
    "poem": "The tide came in and took the stone\nThat bore her name above the bay\nAnd Orla Finch went home alone\n"
    "And never spoke of it a day.\n",
    "short poem": "the lamp\nis out now\nthe keeper\nhas gone home.\n",
    "question": "Who opened the pier in 1907?\n",
    "letter": "Dear Ben,\n\nBest wishes,\nAda\n",
}

PROSE = {
    "english": [PIER, "Its first captain was Ida Brook, who came from Bergen."],
    "german": ["Der Leuchtturm von Skarrow wurde 1874 gebaut.", "Die erste Wärterin war Maud Pellinor, eine frühere Seilerin."],
    "french": ["Le phare fut construit en 1874.", "La première gardienne s'appelait Maud Pellinor."],
    "speech": ["“The pier opened in 1907,” said Ada.", "He said: come here.", "There is one rule: never open the gate at night."],
    "figures": [
        "At 18:22 the ferry left.",
        "12 people were on board, of whom 3 were children.",
        "It cost 4,50 Euro and 3,20 Euro.",
    ],
    "signs": [
        "See https://example.org/a_b?x=1 for more.",
        "The pier (built 1907) is 43 m long & 3 m wide.",
        "The `lamp` was **green**.",
    ],
    "short": ["Ann keeps bees.", "Bob has a boat.", "She came in 1907!"],
}


@pytest.mark.parametrize("kind", QUOTED)
def test_what_is_no_prose_is_quoted_letter_for_letter(kind):
    text = QUOTED[kind]
    found = passages(text)
    assert found and not any(passage.is_prose for passage in found)
    assert all(passage.text in text for passage in found)
    said = "".join(text.split())
    quoted = "".join("".join(passage.text.split()) for passage in found)
    assert quoted == said  # nothing is lost


@pytest.mark.parametrize("kind", PROSE)
@pytest.mark.parametrize("between", [" ", "\n", "\n\n", "\n- "])
def test_prose_is_asked_about_sentence_by_sentence(kind, between):
    sentences = PROSE[kind]
    found = passages(between.join(["", *sentences]).strip("\n"))
    assert [passage.text for passage in found if passage.is_prose] == sentences
    assert all(passage.is_prose for passage in found)


def test_languages_without_spaces():
    text = "码头于1907年开放。第一任船长是艾达·布鲁克，\n她来自卑尔根。\n\n桟橋は千九百七年に開いた。"
    found = passages(text)
    assert len(found) == 3 and all(passage.is_prose for passage in found)
    assert flowing(found[1].text) == "第一任船长是艾达·布鲁克，她来自卑尔根。"


def test_a_line_that_says_something_without_a_full_stop():
    assert [
        one.is_prose for one in passages("- Orla Finch was the first keeper of the light\n- the first keeper of the light")
    ] == [
        True,
        False,
    ]


def test_wrapped_lines_are_one_sentence():
    text = "The pier of Tarn was opened in 1907 by the office of the harbour, which had money that\nreturn fares had brought."
    (found,) = passages(text)
    assert found.is_prose and found.text == text and "that return" in flowing(found.text)


def test_lists_of_contracts_are_no_code():
    items = "(a) the Borrower shall pay all costs of the loan;\n(b) the Lender was named in the deed of 1907;\n"
    found = passages(f"The deed says this.\n\n{items}\n- red lamps;\n- green lamps;\n")
    assert found[0].is_prose and "".join("".join(passage.text.split()) for passage in found[1:]).startswith("(a)the")
    assert passages("1.\tThe keeper was Orla Finch.\n2.\tShe came in 1907.\n")[1] == Passage("She came in 1907.", True)


def test_a_line_of_figures_in_a_wrapped_sentence_belongs_to_it():
    text = "The pier was closed for repairs by the office of the harbour in\n1907, 1911, 1923 and 1931. It was opened again."
    assert [passage.is_prose for passage in passages(text)] == [True, True]
    assert "1911" in passages(text)[0].text


def test_prose_beside_other_things():
    table = "| dish | price |\n|---|---|\n| Soup | 4.50 |\n| Bread | 2.00 |\n| Fish | 9.00 |"
    code = "```python\nimport os\n\nprint(os.getcwd())\n```"
    found = passages(f"# Menu\n\n{PIER}\n\n{table}\n\nInstall it like this:\n\n{code}\n\nThe lamp was green.\n")
    assert [passage.text for passage in found if passage.is_prose] == [PIER, "The lamp was green."]
    assert [passage.text for passage in found if not passage.is_prose] == [
        "# Menu",
        table,
        "Install it like this:",
        "import os",
        "print(os.getcwd())",
    ]


def test_all_of_a_code_file_is_quoted():
    code = 'def pay(price):\n    """Return the price with tax."""\n    return price * 1.19\n\n\n# The tax was raised in 2007.\n'
    found = passages(code + "x = pay(3)\ny = pay(x)\nz = {x: y}\n")
    assert not any(passage.is_prose for passage in found)
    assert any("    return price * 1.19" in passage.text for passage in found)


def test_pieces_have_a_length_that_can_be_recited():
    long = ",".join(f"value{k}" for k in range(20_000))
    lines = "".join(f"x{k} = {k}\n" for k in range(100))
    for text in (long, lines, "z" * 5000 + " = 1", "Er war " + "sehr " * 600 + "alt."):
        found = passages(text)
        assert not any(passage.is_prose for passage in found)
        assert all(passage.text in text and len(passage.text) <= 600 and passage.text.count("\n") < 6 for passage in found)
        assert "".join("".join(passage.text.split()) for passage in found) == "".join(text.split())


def test_nothing_to_say():
    assert passages("") == passages(" \n\n") == passages("---\n***\n| - |\n") == []


@pytest.mark.parametrize(
    "greeting", ["Hello!", "Good morning to you all.", "Thanks, see you tomorrow!", "Guten Tag.", "早上好！"]
)
def test_a_greeting_in_a_chat_is_not_learned(greeting):
    assert [one.text for one in passages(f"User: {greeting} {PIER}")] == [PIER]
    assert len(passages(f"{greeting} {PIER}")) == 2  # a text is quoted with all that it says


def test_speakers_of_a_transcript_are_told_apart():
    found = passages(f"System: Be kind.\nUser: {PIER}\nAssistant: I know that pier.")
    assert found == [Passage(PIER, True, "User"), Passage("I know that pier.", True, "Assistant")]
