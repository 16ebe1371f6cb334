"""The pages as Markdown renders them: code blocks, links, anchors."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Page:
    """A Markdown file of the repository."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def _tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.path.read_text())

    @property
    def _inline(self) -> Iterator[Token]:
        for token in self._tokens:
            yield from token.children or ()

    def blocks(self, language: str) -> list[str]:
        """The code blocks in a language; indented ones are in none."""
        return [token.content for token in self._tokens if token.type == "fence" and token.info == language] + [
            token.content for token in self._tokens if token.type == "code_block" and not language
        ]

    def spans(self) -> list[str]:
        """The texts in backticks."""
        return [token.content for token in self._inline if token.type == "code_inline"]

    def links(self) -> list[str]:
        """Targets of links and pictures."""
        found = [token.attrGet("href") or token.attrGet("src") for token in self._inline]
        return [str(target) for target in found if target]

    def anchors(self) -> set[str]:
        """The anchors that GitHub makes of the headings."""
        tokens, made = self._tokens, set[str]()
        for opening, inline in pairwise(tokens):
            if opening.type == "heading_open":
                text = "".join(child.content for child in inline.children or ())
                slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
                number = next(n for n in range(100) if (f"{slug}-{n}" if n else slug) not in made)
                made.add(f"{slug}-{number}" if number else slug)
        return made

    def sections(self) -> dict[str, str]:
        """The text under each heading of the second level, in the order of the page."""
        parts = re.split(r"^## (.+)\n", self.path.read_text(), flags=re.MULTILINE)[1:]
        return dict(zip(parts[::2], parts[1::2]))

    def missing(self, target: str) -> str:
        """Why a link is broken, or an empty string. Links to other sites are not followed."""
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            return ""
        path = (self.path.parent / unquote(parts.path)).resolve() if parts.path else self.path
        if not path.exists():
            return f"there is no {path.relative_to(ROOT)}"
        if parts.fragment and path.suffix == ".md" and parts.fragment not in Page(path).anchors():
            return f"{path.relative_to(ROOT)} has no heading #{parts.fragment}"
        return ""


README = Page(ROOT / "README.md")
DOCS = {path.stem: Page(path) for path in sorted((ROOT / "docs").glob("*.md"))}
EXAMPLES = [*map(Page, sorted((ROOT / "examples").glob("*/README.md")))]
PAGES = [
    *map(Page, sorted(ROOT.glob("*.md"))),
    *(Page(ROOT / name / "README.md") for name in ("tests", "terraform", "k8s", "docs/dashboards", "examples")),
    *DOCS.values(),
    *EXAMPLES,
]
