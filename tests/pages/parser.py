"""What a page is made of, and what every page must be."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Checks the nesting of tags while reading, and collects what tests look at."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.sections: set[str] = set()
        self.addresses: list[str] = []
        self.without_text: list[str] = []
        self.tags: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "section":
            self.sections.add(str(found["id"]))
        self.addresses += [str(found[key]) for key in ("src", "href") if found.get(key)]
        needs_text = tag in ("img", "video") or found.get("role") == "img"
        if needs_text and not (found.get("alt") or found.get("aria-label")):
            self.without_text.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag, f"</{tag}> closes another element"


def standing_alone(html: str) -> Page:
    """Read a page; fail where it is malformed, mute, ambiguous, or asks for another file."""
    page = Page(html)
    assert page.without_text == []
    assert len(page.ids) == len(set(page.ids))
    for address in page.addresses:
        assert address.startswith(("data:", "#")), address[:80]
    for link in re.findall(r'<a href="#([^"]*)"', html):
        assert link in page.ids
    assert re.search(r"(https?:)?//[a-z]+\.[a-z]", html) is None
    assert "@import" not in html and "url(http" not in html
    assert "#0f00" not in html  # no placeholder of a colour is left
    assert "Content-Security-Policy" in html and "prefers-color-scheme: dark" in html
    return page
