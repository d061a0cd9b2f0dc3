"""Folders as people have them: every file is read, or named with the reason; and names stay when files come and go."""

import gzip
import json
import os
import sys
from pathlib import Path

import pytest
from pages import MAKERS, SAID, epub, html, packed

from sleepkit.errors import SleepkitError
from sleepkit.language.data.documents import load_experiences


@pytest.fixture
def said():
    return []


@pytest.fixture
def load(said):
    return lambda folder, **options: load_experiences(folder, say=said.append, **options)


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def refused(path, **options):
    with pytest.raises(SleepkitError) as error:
        load_experiences(path, say=lambda line: None, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_folder_of_the_issue(tmp_path, load, said):
    row = json.dumps({"context": "Oslo is cold.", "title": "Oslo"})
    texts = {name: f"Text of {name}." for name in ("a.md", "b.txt", "c.markdown", "d.MD", "e.rst", "l.mdown", "m.text", "n.TXT")}
    pages = {"f.html": html(), "g.pdf": MAKERS[".pdf"](), "h.docx": MAKERS[".docx"](), "o.epub": epub(), "p.HTM": html()}
    rows = {"i.jsonl": row, "j.csv": "question,answer\nWhen?,1907.\n", "q.json": f"[{row}]"}
    others = {"k.py": "import os\n", "r.yaml": "a: 1\n", "s.log": "12:00 started\n", "README": "Read me."}
    write(tmp_path, texts | pages | rows | others)
    found = {one.name: one for one in load(tmp_path)}
    assert set(found) == {*texts, *pages, "i.jsonl/Oslo", "j.csv", "q.json/Oslo", *others}
    assert said == []
    assert all(SAID in found[name].documents[0] for name in pages)
    assert found["i.jsonl/Oslo"].titled() == ["Oslo"] and found["d.MD"].titled() == ["d"]
    assert found["j.csv"].notes[0].question == "When?"
    assert found["k.py"].documents == ["import os\n"]


def test_what_is_not_read_is_named_with_the_reason(tmp_path, load, said):
    write(
        tmp_path,
        {"a.md": "Text.", "b.png": b"\x89PNG", "c.zip": b"PK", "d.doc": b"\xd0", "e.xyz": "text", "f.exe": b"MZ", "g.ipynb": "{}"}
        | {
            "h.md": " \n",
            "i.txt": b"\xff\xfa",
            "j.md": "a\0b",
            "k.json": "{",
            "l.jsonl": '{"body": "x"}',
            "program": b"\x7fELF\0",
        },
    )
    assert [one.name for one in load(tmp_path)] == ["a.md"]
    expected = {
        *("b.png is a picture", "c.zip is an archive; unpack it", "g.ipynb is a notebook; save it as .md or .py"),
        *("d.doc is of an office program; save it as .docx, .csv or .pdf", "f.exe is a program or made by one"),
        *(
            "e.xyz is of a kind that is not read (.xyz); save it as .txt if it is text",
            "h.md has an empty text; fill or remove it",
        ),
        "i.txt cannot be read as UTF-8 text; save it as UTF-8 or remove it",
    }
    assert {line.removeprefix("not read: ") for line in said} >= expected and len(said) == 12
    for name, words in (
        ("j.md", "NUL"),
        ("k.json", "is not JSON"),
        ("l.jsonl line 1", "has the columns ['body']"),
        ("program", ""),
    ):
        assert any(line.startswith(f"not read: {name} ") and words in line for line in said)


def test_many_of_a_kind_share_a_line(tmp_path, load, said):
    write(tmp_path, {"a.md": "Text."} | {f"{k}.png": b"" for k in range(12)} | {"x.mp3": b"", "y.mp3": b""})
    load(tmp_path)
    assert sorted(said) == [
        "not read: 12 files (0.png, 1.png, ...), each is a picture",
        "not read: x.mp3 is sound or film",
        "not read: y.mp3 is sound or film",
    ]


def test_only_the_main_process_tells(tmp_path, load, said, monkeypatch):
    write(tmp_path, {"a.md": "Text.", "b.png": b""})
    monkeypatch.setenv("RANK", "1")
    load(tmp_path)
    assert said == []


def test_nothing_that_can_be_read_is_an_error_with_the_reasons(tmp_path):
    write(tmp_path, {"a.md": " ", "b.png": b"", ".hidden.md": "Text."})
    line = refused(tmp_path)
    assert "a.md has an empty text" in line and "b.png is a picture" in line
    many = write(tmp_path / "many", {f"{k}.jsonl": "[" * k for k in range(1, 40)})
    assert "; and 3" in refused(many) and len(refused(many)) < 3000
    (tmp_path / "empty").mkdir()
    assert "empty has no file; give a folder of texts" in refused(tmp_path / "empty")


def test_names_stay_when_files_are_added(tmp_path, load):
    write(tmp_path, {"a.txt": "Text a.", "i.jsonl": json.dumps({"context": "Oslo is cold."})})
    before = load(tmp_path)
    write(tmp_path, {"a.md": "Another.", "a.rst": "A third.", "0.md": "First.", "sub/a.txt": "Below."})
    with (tmp_path / "i.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"context": "Bern has bears."}))
    after = load(tmp_path)
    assert [one for one in after if one.name in {e.name for e in before}] == before
    assert len({one.name for one in after}) == len(after) == 7
    night = load(tmp_path, passages_per_experience=7)[0]
    assert len(set(night.titles)) == 7  # though four are called a


def test_links(tmp_path, load, said):
    notes, outside = tmp_path / "notes", tmp_path / "outside"
    write(notes, {"sub/a.md": "Text a.", ".store/c.md": "Text c."})
    write(outside, {"b.md": "Text b."})
    (outside / "back").symlink_to(outside)
    for name, target in (("again", notes / "sub"), ("up", tmp_path), ("self", notes), ("away", outside)):
        (notes / name).symlink_to(target)
    for name, target in (("z.md", notes / "sub/a.md"), ("kept.md", notes / ".store/c.md"), ("lost.md", tmp_path / "nowhere")):
        (notes / name).symlink_to(target)
    (notes / "loop.md").symlink_to(notes / "loop.md")
    assert [one.name for one in load(notes)] == ["away/b.md", "kept.md", "sub/a.md"]
    told = {line.removeprefix("not read: ") for line in said}
    anyway = "is a link to a folder that is read anyway"
    # four of one reason share a line
    assert f"4 files (again, away/back, ...), each {anyway}" in told
    assert {
        "z.md is a link to a file that is read anyway",
        "lost.md is a link to nothing",
        "loop.md is a link to nothing",
    } <= told


def test_what_is_no_file_and_what_may_not_be_read(tmp_path, load, said, monkeypatch):
    write(tmp_path, {"a.md": "Text.", "b.md": "Secret.", "closed/c.md": "Secret."})
    os.mkfifo(tmp_path / "pipe.txt")
    scan, read = os.scandir, Path.open

    def no_scan(folder):
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    def no_read(path, *args, **options):
        if path.name == "b.md":
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **options)

    monkeypatch.setattr(os, "scandir", no_scan)
    monkeypatch.setattr(Path, "open", no_read)
    assert [one.name for one in load(tmp_path)] == ["a.md"]
    assert set(said) == {
        "not read: pipe.txt is no ordinary file",
        "not read: closed is a folder that may not be read",
        "not read: b.md may not be read; give yourself the permission or leave it out",
    }
    assert "may not be read" in refused(tmp_path / "b.md")


def test_names_that_are_no_text(tmp_path, load, said):
    write(tmp_path, {"a.md": "Text."})
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.md")).write_text("Text.")
    assert [one.name for one in load(tmp_path)] == ["a.md"]
    assert said == ["not read: \\udcff.md has a name that is not UTF-8; rename it"]
    assert "".join(said).encode()
    only = tmp_path / "only"
    only.mkdir()
    Path(os.fsdecode(bytes(only) + b"/\xff.md")).write_text("Text.")
    assert refused(only).encode()
    assert refused(os.fsdecode(b"\xff\xfe.md")).encode()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings(tmp_path, load, encoding):
    (tmp_path / "a.txt").write_bytes("Über\r\nall.".encode(encoding))
    assert load(tmp_path)[0].documents == ["Über\nall."]


def test_a_table_among_documents_is_one(tmp_path, load):
    prices = "item;price\nSoup;4.50\nBread, white;2.00\n"
    write(tmp_path, {"prices.csv": prices})
    assert load(tmp_path)[0].documents == [prices] and load(tmp_path)[0].titled() == ["prices"]
    assert "has the columns ['item', 'price']" in refused(tmp_path / "prices.csv")


def test_a_home_folder_and_places_that_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, {"notes/a.md": "Text."})
    assert load_experiences("~/notes")[0].name == load_experiences("~/notes/")[0].name == "a.md"
    for given, words in (
        ("-", "save it to a file"),
        ("/dev/stdin", "save it to a file"),
        ("", "dataset is empty"),
        ("https://example.org/a.md", "nothing is fetched"),
        ("file:///tmp/a.md", "nothing is fetched"),
        ("https://huggingface.co/datasets/rajpurkar/squad", "give the Hub id rajpurkar/squad"),
        ("~nobody-at-all/x", "cannot be read"),
        ("x" * 5000, "cannot be read"),
        ("nowhere/", "does not exist"),
        ("report.pdf", "does not exist"),
        ("notes/a.html", "does not exist"),
        ("/dev/zero", "is no ordinary file"),
    ):
        assert words in refused(given), given


# Pages


@pytest.mark.parametrize("suffix", MAKERS)
def test_a_single_page_is_a_document(tmp_path, suffix):
    path = tmp_path / f"pier{suffix}"
    path.write_bytes(MAKERS[suffix]())
    (one,) = load_experiences(path)
    assert one.name == "pier" and SAID in one.documents[0]
    assert not any(word in one.documents[0] for word in ("color", "var x", "base64", "picture"))


def test_what_a_web_page_says_is_not_changed(tmp_path):
    (tmp_path / "a.html").write_bytes(html())
    assert load_experiences(tmp_path / "a.html")[0].documents == [f"# Pier\n\n{SAID}\n\n- one_two *three*"]


def test_a_page_of_thousands_of_paragraphs_without_ends(tmp_path):
    (tmp_path / "a.html").write_bytes(b"<p>The pier opened." * 5000)
    assert load_experiences(tmp_path / "a.html")[0].documents[0].count("The pier opened.") == 5000


def test_the_chapters_of_a_book_are_in_order(tmp_path):
    (tmp_path / "a.epub").write_bytes(epub("First.", "Second."))
    assert load_experiences(tmp_path / "a.epub")[0].documents == ["First.\n\nSecond."]


@pytest.mark.parametrize("suffix", MAKERS)
def test_without_the_extra_it_is_named(tmp_path, load, said, monkeypatch, suffix):
    for module in ("bs4", "lxml", "markdownify", "pypdf", "mammoth"):
        monkeypatch.setitem(sys.modules, module, None)
    write(tmp_path, {"a.md": "Text.", f"b{suffix}": MAKERS[suffix]()})
    assert len(load(tmp_path)) == 1
    assert len(said) == 1 and said[0].startswith(f"not read: b{suffix} needs ") and "pip install 'sleepkit[documents]'" in said[0]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pdf", b"no pdf", "cannot be read as .pdf"),
        ("a.pdf", MAKERS[".pdf"]("  "), "has no text, as pages that were scanned"),
        ("a.docx", b"no zip", "cannot be read as .docx"),
        ("a.docx", packed({"a": "b"}), "cannot be read as .docx"),
        ("a.docx", MAKERS[".docx"](" "), "has an empty text"),
        ("a.epub", packed({"mimetype": "x"}), "cannot be read as .epub"),
        ("a.epub", packed({"bomb": b"\0" * (80 << 20)}), "unpacks to more than 64 MiB"),
        ("a.html", b"<div>" * 20_000 + b"deep", "is nested too deeply"),
        ("a.html", b"<script>1</script>", "has an empty text"),
        ("a.html", b"<a " * 30_000, "has an empty text"),
        ("a.html", b"<!--" * 30_000, "has an empty text"),
    ],
)
def test_damaged_pages_are_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert words in refused(tmp_path / name) and name in refused(tmp_path / name)


def test_packed_files(tmp_path, load, said):
    write(tmp_path, {"a.md.gz": gzip.compress(b"Text a."), "b.tar.gz": gzip.compress(b""), "c.html.gz": gzip.compress(html())})
    assert [(one.name, one.documents) for one in load(tmp_path)] == [("a.md.gz", ["Text a."])]
    assert sorted(said) == ["not read: b.tar.gz is an archive; unpack it", "not read: c.html.gz is an archive; unpack it"]


def test_a_bomb_is_not_unpacked(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b" " * (80 << 20)))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"a" * (80 << 20)))
    for name in ("a.jsonl.gz", "b.txt.gz"):
        assert "unpacks to more than 64 MiB" in refused(tmp_path / name)
