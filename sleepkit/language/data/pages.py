"""Web pages, PDF, Word and EPUB files as text in Markdown's form, by the optional packages of ``sleepkit[documents]``.

    .html .htm .xhtml    BeautifulSoup, lxml and markdownify, without scripts, styles and pictures
    .pdf                 pypdf: the text of each page, in the order in which the file has it
    .docx                mammoth, which makes a web page of it
    .epub                its chapters in reading order, each a web page

Left out: pictures, and so pages that were scanned.
"""

from __future__ import annotations

import io
import logging
import posixpath
import re
import warnings
import zipfile
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from sleepkit.errors import SleepkitError, first_line
from sleepkit.language.data.unpacking import RATIO, SMALL

__all__ = ["PAGES", "page_text"]

_SELF_CLOSED = re.compile(rb"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr)\b)(\w+)([^<>]*)/>")
_NOT_READ = ("script", "style", "noscript", "template", "svg", "head")


def page_text(data: bytes, suffix: str, name: str) -> str:
    """Return the text of a document whose format needs unpacking, such as PDF.

    Raises:
        SleepkitError: a package is missing (with how to install it), or the file is damaged, locked or too large unpacked.
    """
    try:
        return PAGES[suffix](data, name).replace("\r\n", "\n").replace("\xa0", " ")
    except SleepkitError:
        raise
    except ModuleNotFoundError as error:
        raise SleepkitError(f"{name} needs {error.name} to be read; pip install 'sleepkit[documents]'") from None
    except RecursionError:
        raise SleepkitError(f"{name} is nested too deeply to be read; save it as text") from None
    except Exception as error:  # each of these packages raises its own, of damaged files also others
        raise SleepkitError(f"{name} cannot be read as {suffix} ({first_line(error)}); save it anew, or as text") from None


def _html(data: bytes | str, name: str) -> str:
    import lxml  # noqa: F401, which BeautifulSoup would miss in words of its own
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that chapters of books are XHTML, and that a short page looks like a path
        page = BeautifulSoup(data, "lxml")  # Python's own parser takes minutes for tags that nothing closes
    for part in page.find_all(_NOT_READ):
        part.decompose()
    options: dict[str, Any] = {"escape_asterisks": False, "escape_underscores": False, "escape_misc": False}
    return str(MarkdownConverter(heading_style="ATX", bullets="-", strip=["a", "img"], **options).convert_soup(page)).strip()


def _xhtml(data: bytes, name: str) -> str:
    """Where ``<script/>`` and ``<title/>`` are closed, which in HTML they are not."""
    return _html(_SELF_CLOSED.sub(rb"<\1\2></\1>", data), name)


def _pdf(data: bytes, name: str) -> str:
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it tells of every small flaw
    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise SleepkitError(f"{name} is locked with a password; save it without one")
    text = "\n".join(page.extract_text().strip() for page in reader.pages).strip()
    if not text:
        raise SleepkitError(f"{name} has no text, as pages that were scanned; let a program read its letters (OCR) first")
    return text


def _docx(data: bytes, name: str) -> str:
    import mammoth

    with _opened(data, name):
        pass
    no_picture = mammoth.images.img_element(lambda _: {"src": ""})
    return _html(mammoth.convert_to_html(io.BytesIO(data), convert_image=no_picture).value, name)


def _epub(data: bytes, name: str) -> str:
    with _opened(data, name) as book:
        container = ElementTree.fromstring(book.read("META-INF/container.xml"))
        content = next(file.attrib["full-path"] for file in container.iterfind(".//{*}rootfile"))
        package = ElementTree.fromstring(book.read(content))
        files = {item.attrib["id"]: item.attrib["href"] for item in package.iterfind(".//{*}item")}
        chapters = [unquote(files[part.attrib["idref"]]) for part in package.iterfind(".//{*}itemref")]
        folder = posixpath.dirname(content)
        texts = (_xhtml(book.read(posixpath.normpath(posixpath.join(folder, chapter))), name) for chapter in chapters)
        return "\n\n".join(text for text in texts if text)


def _opened(data: bytes, name: str) -> zipfile.ZipFile:
    """A zip file that does not unpack to more than its size allows."""
    file = zipfile.ZipFile(io.BytesIO(data))
    most = max(SMALL, RATIO * len(data))
    if sum(part.file_size for part in file.infolist()) > most:
        raise SleepkitError(f"{name} unpacks to more than {most >> 20} MiB; unpack it yourself if it is sound")
    return file


PAGES: dict[str, Callable[[bytes, str], str]] = {
    ".html": _html,
    ".htm": _html,
    ".xhtml": _xhtml,
    ".pdf": _pdf,
    ".docx": _docx,
    ".epub": _epub,
}
