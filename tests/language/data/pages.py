"""Small files of each kind that holds pages, as bytes, each of which says what `SAID` is."""

import io
import zipfile

SAID = "The pier of Tarn opened in 1907."


def html(said: str = SAID) -> bytes:
    head = "<head><title>T</title><style>p { color: red }</style><script>var x = 1;</script></head>"
    text = f"<h1>Pier</h1><p>{said}</p><ul><li>one_two *three*</li></ul><img src='data:image/png;base64,AAAA' alt='picture'>"
    return f"<!DOCTYPE html><html>{head}<body>{text}</body></html>".encode()


def pdf(said: str = SAID) -> bytes:
    content = f"BT /F1 12 Tf 72 720 Td ({said}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    file, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    start = len(file)
    file += b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    return file + b"trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % start


def docx(said: str = SAID) -> bytes:
    w = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    kinds = "http://schemas.openxmlformats.org/package/2006/content-types"
    links = "http://schemas.openxmlformats.org/package/2006/relationships"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    paragraph = f'<w:document xmlns:w="{w}"><w:body><w:p><w:r><w:t>{said}</w:t></w:r></w:p></w:body></w:document>'
    return packed(
        {
            "[Content_Types].xml": f'<Types xmlns="{kinds}"><Default Extension="rels" ContentType="application/xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{main}"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{links}"><Relationship Id="r1" Type="{office}" Target="word/document.xml"/>'
            "</Relationships>",
            "word/document.xml": paragraph,
        }
    )


def epub(*chapters: str) -> bytes:
    chapters = chapters or (SAID,)
    items = "".join(f'<item id="c{k}" href="text/part%20{k}.xhtml" media-type="x"/>' for k in range(len(chapters)))
    spine = "".join(f'<itemref idref="c{k}"/>' for k in range(len(chapters)))
    root, opf = '<rootfile full-path="OPS/book.opf"/>', "http://www.idpf.org/2007/opf"
    files: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": f'<container xmlns="urn:c"><rootfiles>{root}</rootfiles></container>',
        "OPS/book.opf": f'<package xmlns="{opf}"><manifest>{items}</manifest><spine>{spine}</spine></package>',
    }
    for k, said in enumerate(chapters):
        head = '<head><title/><script src="a.js"/></head>'
        files[f"OPS/text/part {k}.xhtml"] = f"<html>{head}<body><br/><p>{said}</p></body></html>"
    return packed(files)


def packed(files: dict[str, str | bytes]) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return found.getvalue()


MAKERS = {".html": html, ".pdf": pdf, ".docx": docx, ".epub": epub}
