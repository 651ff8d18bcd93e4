"""What the texts of pages have in common: the scripts that a page may have, and the policy that lets no others run."""

import base64
import hashlib
import re

SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script>", re.DOTALL)


def scripts_of(page: str) -> list[str]:
    """The texts of a page's scripts, each of which its policy allows, as it does no other."""
    texts = [text for attributes, text in SCRIPT.findall(page) if "src" not in attributes]
    assert page.count("<script") == page.count("</script>") == len(texts)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none';")
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    assert re.findall(r"script-src ([^;]*)", policy) == [" ".join(f"'sha256-{each}'" for each in hashes)]
    return texts


def own(room: str = "reports") -> list[str]:
    """The texts of the scripts that the pages of a room have, and no others."""
    from anomaly_lab.reports.html import scripts

    return [script.text for script in scripts(room)]
