"""Check figures and verdicts of the documents against the data that bear them: `make claims`.

The claims are in `docs/claims.toml`, whose head says how they are written.
"""

import functools
import json
import operator
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.evaluation.statistics import bootstrap_interval, summarize

NUMBER = re.compile(r"(?<![\w.\-,])-?\d[\d,]*(?:\.\d+)?(?!\w)")
_NO_FIGURES = re.compile(r"\]\([^)]*\)|`[^`]*`|95% interval|seeds? \d+")
"""Numbers that a reader does not take for figures: in links' targets, code and names of runs."""
_DRIVES = re.compile(
    r"(?P<name>[\w-]+)(@(?P<first>\d+)-(?P<last>\d+))?(!(?P<but>\d+))?"
    r"(\?(?P<other>[\w-]+)(?P<sign><|>=)(?P<limit>\d+))?"
)
_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}

STATISTICS: dict[str, Callable[..., Any]] = {
    "mean": np.mean,
    "se": lambda values: values.std(ddof=1) / len(values) ** 0.5,
    "median": np.median,
    "iqm": lambda values: summarize(values).iqm,
    "min": np.min,
    "max": np.max,
    "count": len,
    "below": lambda values, limit: (values < limit).sum(),
    "at_least": lambda values, limit: (values >= limit).sum(),
    "ci_low": lambda values: (bootstrap_interval(values) or (np.nan,))[0],
    "ci_high": lambda values: (bootstrap_interval(values) or (np.nan,))[-1],
}
"""Statistic -> function of returns (E,) and further numbers."""


class Claims:
    """The claims of a checkout, and the data behind them."""

    def __init__(self, root: Path) -> None:
        """Read `docs/claims.toml` of a checkout."""
        content = tomllib.loads((root / "docs/claims.toml").read_text(encoding="utf-8"))
        self.root = root
        self.sources: dict[str, str] = content.pop("sources", {})
        self.covered: dict[str, list[str]] = content.pop("covered", {})
        self.by_document: dict[str, list[dict[str, Any]]] = content
        self.value = functools.cache(self._value)  # intervals are slow, and asked for twice

    def faults(self) -> Iterator[str]:
        """What is wrong, a line each."""
        for name, claims in self.by_document.items():
            path = self.root / name
            document = path.read_text(encoding="utf-8") if path.is_file() else ""
            for claim in claims:
                for fault in self._wrong(claim, document):
                    yield f"{name}: {fault} [{claim['text']}]"
            for heading in self.covered.get(name, ()):
                yield from (f"{name}: {fault}" for fault in uncovered(document, heading, claims))

    def _wrong(self, claim: Mapping[str, Any], document: str) -> Iterator[str]:
        shown, expressions = re.findall(r"\{([^}]*)\}", claim["text"]), claim.get("is", [])
        if (times := len(re.findall(pattern(claim), document))) != 1:
            yield f"the text is there {times} times"
        if len(shown) != len(expressions):
            yield f"{len(shown)} figures in braces, {len(expressions)} expressions"
        if not expressions and "test" not in claim:
            yield "neither data nor a test bears it"
        if "test" in claim:
            file, _, test = claim["test"].partition("::")
            path = self.root / file
            if not path.is_file() or f"def {test}(" not in path.read_text(encoding="utf-8"):
                yield f"there is no test {claim['test']}"
        for figure, expression in zip(shown, expressions, strict=False):
            try:
                value = self.evaluate(expression)
            except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
                yield f"{expression} has no value: {type(error).__name__} {error}"
            else:
                if not rounds_to(value, figure):
                    yield f"it says {figure}, but {expression} is {value:.6g}"

    def evaluate(self, expression: str) -> float:
        """The value of an expression."""
        first, *rest = re.split(r" ([-+*/]) ", expression)
        result = self.value(first)
        for sign, term in zip(rest[::2], rest[1::2], strict=True):
            result = _OPERATORS[sign](result, self.value(term))
        return float(result)

    def _value(self, term: str) -> float:
        figure, *words = term.split()
        if NUMBER.fullmatch(term):
            return float(term)
        if figure in STATISTICS:
            drives = [self.returns(name) for name in words[0].split("&")]
            returns = np.array([r for by_track in drives for r in by_track.values()])
            return float(STATISTICS[figure](returns, *map(float, words[1:])))
        if figure.startswith("gain_"):
            theirs = self.returns(words[1])  # which must have every track of ours
            gains = [r - theirs[track] for track, r in self.returns(words[0]).items()]
            return float(STATISTICS[figure[5:]](np.array(gains)))
        found = self.read(words[0])
        if figure == "value":
            return float(_part(found, words[1]))
        if figure == "frames":
            return float(sum(found["totals"][kind] for kind in words[1:]))
        if figure == "minutes":
            test = words[1:] == ["test"]
            rows = [r for r in found if r["stage"] == "stage" and (r["name"] == "test") == test]
            return float(sum(row["seconds"] for row in rows) / 60)
        if figure == "cell":
            cell = found.split("|")[int(words[1]) + 1].replace(",", "")
            return float(re.findall(r"-?\d+(?:\.\d+)?", cell)[0])
        raise LookupError(f"there is no figure {figure}")

    def returns(self, given: str) -> dict[int, float]:
        """Track -> return of a source, or of some of its tracks."""
        drives: Any = _DRIVES.fullmatch(given)  # None, and so a TypeError, for anything else
        found = self.read(drives["name"])
        if "episodes" in found:
            found = {key: [e[key[:-1]] for e in found["episodes"]] for key in ("seeds", "returns")}
        start = found.get("first_seed", 0)
        tracks = found.get("seeds") or range(start, start + len(found["returns"]))
        kept = dict(zip(tracks, found["returns"], strict=True))
        if drives["first"]:
            kept = {t: kept[t] for t in range(int(drives["first"]), int(drives["last"]) + 1)}
        if drives["but"]:
            del kept[int(drives["but"])]
        if drives["other"]:
            other, limit = self.returns(drives["other"]), float(drives["limit"])
            kept = {t: r for t, r in kept.items() if (other[t] < limit) == (drives["sign"] == "<")}
        return kept

    def read(self, name: str) -> Any:
        """The data of a source."""
        file, mark, part = re.findall(r"^([^#|]+)([#|]?)(.*)$", self.sources[name])[0]
        folder = self.root / ("docs" if file.endswith(".md") else "benchmarks") / "results"
        lines = (folder / file).read_text(encoding="utf-8").splitlines()
        if mark == "|":
            (row,) = [line for line in lines if line.startswith(f"| {part} |")]
            return row
        if file.endswith(".jsonl"):
            return [json.loads(line) for line in lines if line]
        whole = json.loads("\n".join(lines))
        found = _part(whole, part)
        if isinstance(found, list) and isinstance(found[0], (int, float)):
            first = whole.get("first_seed", 0) if isinstance(whole, dict) else 0
            return {"first_seed": first, "returns": found}
        return found


def _part(content: Any, keys: str) -> Any:
    """A part of a JSON: keys and positions, joined by dots."""
    for key in filter(None, keys.split(".")):
        content = content[int(key) if isinstance(content, list) else key]
    return content


def pattern(claim: Mapping[str, Any]) -> str:
    """Regular expression for the text of a claim as it stands in a document, however wrapped."""
    return r"\s+".join(map(re.escape, re.sub(r"[{}]", "", claim["text"]).split()))


def rounds_to(value: float, shown: str) -> bool:
    """Whether a value, rounded to the digits that are shown, is what is shown."""
    digits = shown.replace(",", "")
    unit = 1000.0 if shown.endswith(",000") else 10.0 ** -len(digits.partition(".")[2])
    return abs(value - float(digits)) <= unit / 2 * (1 + 1e-9)


def uncovered(document: str, heading: str, claims: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Numbers of a section that stand in no claim's text, line by line."""
    until = rf"^{re.escape(heading)}\n.*?(?=^#{{1,{len(heading.split()[0])}}} |\Z)"
    found = re.search(until, document, re.MULTILINE | re.DOTALL)
    if found is None:
        yield f"there is no section {heading!r}"
        return
    section = found[0].removeprefix(heading)
    for text in sorted(map(pattern, claims), key=len, reverse=True):
        section = re.sub(text, " ", section)
    for line in _NO_FIGURES.sub("", section).splitlines():
        if numbers := NUMBER.findall(line):
            yield f"no claim has {', '.join(numbers)} in: {line[:90]}"


def main() -> None:
    """Check this checkout, say what is wrong, and end with 1 if anything is."""
    claims = Claims(Path(__file__).resolve().parents[1])
    faults = list(claims.faults())
    number = sum(map(len, claims.by_document.values()))
    print(*faults, f"{number} claims, {len(faults)} faults", sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
