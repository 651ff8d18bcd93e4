"""What mkdocs.yml cannot say: pages that may not be there, what lies outside docs/, and no request at read time."""

import os
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
import tables

ROOT = Path(__file__).parent.parent
OUTSIDE = ("CONTRIBUTING.md",)  # pages of the site at the root of the repository, where hosts look for them
METHODS = {"Methods": "methods/index.md"}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)")  # [words](target#anchor), no picture and no URL
LOADS = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=[\"']?(?:https?:)?//|<link\b[^>]*\bhref=[\"']?https?://"
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out of the navigation what is not there (yet), and add the pages of all methods."""
    entries = [entry for entry in config.nav or [] if _exists(entry)]
    config.nav = [{"Methods": tables.navigation()} if entry == METHODS else entry for entry in entries]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in the pages that lie outside docs/."""
    for name in OUTSIDE:
        if (ROOT / name).exists():
            files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in tables; links between pages lead where these are on the site, those to other files become words."""
    folder = Path(page.file.abs_src_path or "").parent

    def replaced(match: re.Match[str]) -> str:
        words, target, anchor = match.groups()
        path = (folder / target).resolve()
        if not path.exists():
            return match[0]  # MkDocs refuses it
        inside = (
            path.relative_to(Path(config.docs_dir)) if path.is_relative_to(config.docs_dir) else path.relative_to(ROOT)
        )
        if files.get_file_from_path(inside.as_posix()) is None:
            return words
        return f"[{words}]({os.path.relpath(inside, Path(page.file.src_uri).parent)}{anchor or ''})"

    return LINK.sub(replaced, tables.filled(markdown))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would load something from elsewhere when it is read."""
    if found := LOADS.search(output):
        raise PluginError(f"{page.file.src_uri} would load {found[0]}… from the network; put it into docs/")
    return output


def _exists(entry: object) -> bool:
    """Whether the page of a navigation's entry, {title: path}, can be built; a section counts as there."""
    path = next(iter(entry.values())) if isinstance(entry, dict) else entry
    if not isinstance(path, str):
        return True
    return (ROOT / path if path in OUTSIDE else ROOT / "docs" / path).exists()
