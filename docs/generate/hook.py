"""A hook of mkdocs that adds the README, CONTRIBUTING.md and the committed results to the site.

These files are not copied in the repository. A page of docs/ links to them by their path in the repository. The hook
changes such a link to the path in the site. A link to a file that is not a page becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
ADDED = ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md",
         "results/reference/**/*.md", "results/reference/**/*.svg")  # fmt: skip
LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\((?!https?:|#)([^)\s]+)\)|(!\[[^\]]*\])\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the files of `ADDED` to the site, with their path in the repository."""
    from mkdocs.structure.files import File

    for pattern in ADDED:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return `markdown` with its links changed to paths in the site."""
    source = page.file.src_uri
    known = {file.src_uri for file in files}

    def changed(link: re.Match[str]) -> str:
        text = link[1] or link[3]
        place, hash_, anchor = (link[2] or link[4]).partition("#")
        target = in_site(source, place, known)
        if target is None:
            return str(link[1])
        opening = f"[{text}]" if link[1] else text
        return f"{opening}({target}{hash_}{anchor})"

    return LINK.sub(changed, markdown)


def in_site(source: str, link: str, known: set[str]) -> str | None:
    """Return a link relative to `source` in the site; None if its target is not in the site.

    Args:
        source: path of the page in the site.
        link: the link as written in the page, relative to the page's path in the repository; "" is the page itself.
        known: paths of all files in the site.
    """
    if not link:
        return ""
    folder = posixpath.dirname(source)
    in_docs = not (ROOT / source).is_file()
    in_repository = posixpath.normpath(posixpath.join("docs" if in_docs else "", folder, link))
    place = in_repository.removeprefix("docs/")
    for candidate in (place, posixpath.join(place, "README.md")):
        if candidate in known:
            return posixpath.relpath(candidate, folder or ".")
    return None
