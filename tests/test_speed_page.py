"""The page of speed says what the benchmarks' committed results say."""

from scripts.figures.speed_page import PAGE, page
from scripts.figures.style import ROOT


def test_the_page_is_the_one_that_the_results_give() -> None:
    """Figures are changed by measuring again, sentences in the template: `make speed-page`."""
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(), "run make speed-page"
