"""A hook of mkdocs that adds the README, CONTRIBUTING.md and the committed results to the site.

These files stay where they are in the repository. A page of docs/ links to them by their place in the repository; the
hook changes such links to their place in the site. Files that are not pages are named without a link.
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
    """Add the files of `ADDED` at their place in the repository."""
    from mkdocs.structure.files import File

    for pattern in ADDED:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """`markdown` with links that lead to places in the site."""
    source = page.file.src_uri
    known = {file.src_uri for file in files}

    def changed(found: re.Match[str]) -> str:
        text = found[1] or found[3]
        place, hash_, anchor = (found[2] or found[4]).partition("#")
        target = in_site(source, place, known)
        if target is None:
            return str(found[1])
        opening = f"[{text}]" if found[1] else text
        return f"{opening}({target}{hash_}{anchor})"

    return LINK.sub(changed, markdown)


def in_site(source: str, link: str, known: set[str]) -> str | None:
    """
    Args:
        source: place of the page in the site.
        link: as it stands in the page, relative to the page's place in the repository; "" is the page itself.
        known: places of all files in the site.

    Returns:
        The link relative to `source` in the site; None if it leads to no file of the site.
    """
    if not link:
        return ""
    folder = posixpath.dirname(source)
    in_docs = not (ROOT / source).is_file()
    wanted = posixpath.normpath(posixpath.join("docs" if in_docs else "", folder, link))
    place = wanted.removeprefix("docs/")
    for candidate in (place, posixpath.join(place, "README.md")):
        if candidate in known:
            return posixpath.relpath(candidate, folder or ".")
    return None
