# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Small dumps for tests."""

import bz2
from xml.sax.saxutils import escape, quoteattr


def site(database="fiwiki", file="Tiedosto", category="Luokka", talk="Keskustelu"):
    names = {1: talk, 6: file, 14: category}
    spaces = "".join(f'<namespace key="{key}" case="first-letter">{name}</namespace>' for key, name in names.items())
    return (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="fi"><siteinfo>\n'
        f"<sitename>Wikipedia</sitename><dbname>{database}</dbname><case>first-letter</case><namespaces>"
        f'<namespace key="0" case="first-letter" />{spaces}</namespaces></siteinfo>\n'
    )


def page(title, text, namespace=0, redirect=None, model="wikitext", number=1):
    to = f"<redirect title={quoteattr(redirect)} />" if redirect else ""
    body = f'<text bytes="{len(text)}" xml:space="preserve">{escape(text)}</text>' if text else '<text bytes="0" />'
    return (
        f"<page><title>{escape(title)}</title><ns>{namespace}</ns><id>{number}</id>{to}<revision><id>{number}</id>"
        f"<timestamp>2024-01-01T00:00:00Z</timestamp><contributor><username>A</username><id>1</id></contributor>"
        f"<model>{model}</model><format>text/x-wiki</format>{body}<sha1>x</sha1></revision></page>\n"
    )


def write_multistream(path, head, streams):
    """Writes a multistream dump, and its index beside it; `streams` are lists of (id, title, XML of the page)."""
    data, lines = bz2.compress(head.encode()), []
    for stream in streams:
        lines += [f"{len(data)}:{number}:{title}\n" for number, title, _ in stream]
        data += bz2.compress("".join(xml for *_, xml in stream).encode())
    path.write_bytes(data + bz2.compress(b"</mediawiki>\n"))
    index = path.with_name(path.name.replace("multistream.xml", "multistream-index.txt"))
    index.write_bytes(bz2.compress("".join(lines).encode()))
    return index
