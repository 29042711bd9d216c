"""Every paper that the library cites is in the list of papers."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LISTED = set(
    re.findall(r"^- \*\*(.+?)\*\*: ", (ROOT / "PAPERS.md").read_text(encoding="utf-8"), re.M)
)
CITATION = re.compile(r"\b([A-ZŁŠ][\w-]+(?: and [A-Z]\w+)? (?:19|20)\d\d)\b(?!-)")
MONTHS = {"April", "Mai", "May"}  # of dates in examples


def test_every_citation_is_listed() -> None:
    cited = {
        name: file.name
        for file in [*(ROOT / "encdec").rglob("*.py"), ROOT / "README.md"]
        for name in CITATION.findall(" ".join(file.read_text(encoding="utf-8").split()))
        if name.split()[0] not in MONTHS
    }
    assert len(cited) > 30
    assert not {name: file for name, file in cited.items() if name not in LISTED}
