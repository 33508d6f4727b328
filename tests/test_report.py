"""Reports: everything in one file, readable by a person and by a machine."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from rich.console import Console

from quenched.theory.errors import QuenchedError
from quenched.theory.record import Line
from quenched.validate.agreement import Agreement, with_error
from quenched.validate.cases import Case, Options
from quenched.validate.mathml import mathml
from quenched.validate.plots import swept_parameter
from quenched.validate.verdict import judge_points

LAGS = np.linspace(0, 10, 21)


@dataclass
class Form:
    body: list[Line]

    def lines(self) -> list[Line]:
        return self.body


@dataclass
class Step:
    title: str
    after: Form
    assumption: str = "the dynamics is causal"
    source: str = "sompolinsky1988"
    dropped: list[Line] = field(default_factory=list)


@dataclass
class Derivation:
    steps: list[Step]
    refusals: tuple[tuple[str, str], ...] = (("Potential", "a filter of fourth order"),)


DERIVATION = Derivation(
    [
        Step("Saddle point", Form([Line("C = g²", r"C_{\phi} = g^{2} \langle \phi(x) \phi(x') \rangle", "N → ∞")])),
        Step("Largest-time rule", Form([]), dropped=[Line("ĥ", r"\frac{g^{2}}{2} \hat{h}", "no later time")]),
    ]
)


def agreement(points: int = 1, wrong: float = 1.0) -> Agreement:
    cases = []
    for k in range(points):
        rng = np.random.default_rng(k)
        curve = 2 * np.exp(-LAGS / 4)
        samples: dict[int, Any] = {}
        for N in (200, 400, 800):
            slow = rng.standard_normal((40, 1))
            samples[N] = {
                "C_x0": 2 + 3 / N + 0.5 / np.sqrt(N) * slow[:, 0] + 0.1 / np.sqrt(N) * rng.standard_normal(40),
                "C_x": curve + 0.5 / np.sqrt(N) * (slow + 0.3 * rng.standard_normal((40, 21))),
            }
        theory = {"C_x0": (2.0 * wrong, 1e-9), "C_x": (curve, np.full(21, 1e-8))}
        cases.append(Case(samples, theory, {"g": 1.5 + k, "s2": 0.1}, lags={"C_x": LAGS}))
    return judge_points(cases, Options(quick=True))


class Outline(HTMLParser):
    """Collects tags, and every attribute that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        # references inside the figure (#clip, #marker) load nothing
        self.loads += [
            v or "" for k, v in attrs if k in {"src", "href", "xlink:href", "srcset"} and not (v or "").startswith("#")
        ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    report = agreement().with_context(
        title="scs <g = 2>",
        declaration=["dx_i/dt = −x_i + Σ_j J_ij tanh(x_j)", "J_ij ~ N(0, g²/N)"],
        derivation=DERIVATION,
        settings={"seed": 7, "dt": 0.05, "sizes": list(range(40)), "duration": {"burn": 100.0, "window": 400.0}},
        notes=["Simulated with Heun's method."],
        references=["H. Sompolinsky, A. Crisanti, H. J. Sommers, PRL 61, 259 (1988)"],
    )
    path = report.save(tmp_path_factory.mktemp("report") / "scs.html")
    return path.read_text(encoding="utf-8")


def test_the_report_needs_nothing_else(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    assert outline.loads == []
    assert "link" not in outline.tags
    assert "@import" not in page
    assert "url(http" not in page


def test_the_report_has_every_part(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    assert {"math", "svg", "table", "mfrac", "msup"} <= set(outline.tags)
    for text in (
        "scs &lt;g = 2&gt;", "agree", "J_ij ~ N(0, g²/N)", "1. Saddle point", "Assuming the dynamics is causal",
        "sompolinsky1988", "dropped:", "no later time", "Not applied: Potential", "C_x(10)", "200, 400, 800", "seed",
        "burn = 100", "numpy", "python", "Simulated with Heun", "PRL 61", "detectable error",
    ):  # fmt: skip
        assert text in page, text
    assert "<g = 2>" not in page


def test_the_report_carries_its_data(page: str) -> None:
    match = re.search(r'<script type="application/json" id="agreement">(.*?)</script>', page, re.DOTALL)
    assert match
    assert json.loads(match.group(1)) == agreement().to_dict()


def test_every_formula_and_figure_is_well_formed(page: str) -> None:
    for tag in ("math", "svg"):
        found = re.findall(rf"<{tag}[ >].*?</{tag}>", page, re.DOTALL)
        assert found
        for element in found:
            ElementTree.fromstring(element)


def test_two_reports_of_one_comparison_are_the_same_file(tmp_path: Path) -> None:
    first, second = (agreement().save(tmp_path / name).read_text() for name in ("a.html", "b.html"))
    assert first == second


def test_json_document(tmp_path: Path) -> None:
    document = json.loads(agreement().save(tmp_path / "a.json").read_text())
    assert document["verdict"] == "agree"
    assert document["exit_code"] == 0
    assert document["observables"]["C_x0"]["value"] == 2.0
    assert document["observables"]["C_x0"]["simulation"]["error"] > 0
    assert document["observables"]["C_x"]["tau"] == [1.0, 2.5, 5.0, 10.0]
    assert len(document["observables"]["C_x"]["error"]) == 4
    assert document["points"][0]["parameters"] == {"g": 1.5, "s2": 0.1}
    assert document["minimal_detectable_error"] == pytest.approx(agreement().detectable)


def test_numbers_that_are_not_finite_are_null_in_json() -> None:
    rng = np.random.default_rng(0)
    samples = {N: {"mean_x": rng.standard_normal(8)} for N in (100, 200, 400)}
    document = json.loads(judge_points([Case(samples, {"mean_x": (0.0, 0.0)})]).to_json())
    assert document["minimal_detectable_error"] is None


def test_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(QuenchedError, match=r"ending in \.html or \.json"):
        agreement().save(tmp_path / "report.pdf")
    with pytest.raises(QuenchedError, match="does not exist"):
        agreement().save(tmp_path / "nowhere" / "report.html")
    assert list(tmp_path.iterdir()) == []
    agreement().save(tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_terminal_and_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    report = agreement(wrong=1.1)
    text = repr(report)
    assert text.startswith("disagree: rejected")
    assert "C_x0" in text
    assert "N = 200, 400, 800, R = 40" in text
    Console(width=160).print(report)
    assert "disagree" in capsys.readouterr().out
    html = report._repr_html_()
    assert "<table" in html
    assert 'class="deviates"' in html


def test_plots_of_a_point_and_of_a_sweep() -> None:
    one = agreement()
    assert [axes.get_ylabel() for axes in one.plot().axes] == ["C_x0 (g = 1.5, s2 = 0.1)", "C_x"]
    sweep = agreement(points=3)
    assert swept_parameter(one) is None
    assert swept_parameter(sweep) == "g"
    panels = sweep.with_context(sweep={"C_x0": ([1.5, 2, 3], [2, 2, 2])}).plot().axes
    assert [axes.get_xlabel() for axes in panels] == ["g", "τ"]
    assert "C_x0 [g = 1.5, s2 = 0.1]" in repr(sweep)


def test_a_declaration_without_theory_has_a_report_too(tmp_path: Path) -> None:
    report = Agreement("inconclusive", "not covered by the theory: J has no law", (), 1.0, 1e-3, 0.02)
    assert repr(report) == "inconclusive: not covered by the theory: J has no law"
    document = json.loads(report.save(tmp_path / "a.json").read_text())
    assert document["observables"] == {}
    assert document["exit_code"] == 3
    page = report.with_context(derivation=DERIVATION).save(tmp_path / "a.html").read_text()
    assert "J has no law" in page
    assert "1. Saddle point" in page
    assert "<svg" not in page
    assert report._repr_html_().count("<table") == 0
    assert report.plot().axes == []


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.92480541, 0.00123, "1.9248 ± 0.0012"),
        (1.92480541, 0.0, "1.92480541"),
        (1.5, 1e-8, "1.5 ± 1.0e-08"),
        (123456.0, 250.0, "123456 ± 250"),
        (0.0, 0.5, "0.00 ± 0.50"),
        (float("nan"), 1.0, "nan"),
    ],
)
def test_numbers_are_printed_to_their_error(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text


# -- formulas ----------------------------------------------------------------------------------------------------------
def shown(latex: str) -> str:
    """The visible characters of a formula."""
    return "".join(ElementTree.fromstring(mathml(latex)).itertext())


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"\Delta''(\tau) = \Delta - g^{2} \langle \phi \rangle", "Δ′′(τ)=Δ−g2⟨ϕ⟩"),
        (r"\frac{a}{b} + \sqrt[3]{x}", "ab+x3"),
        (r"\begin{cases} x & \text{for}\: x > 0 \\0 & \text{otherwise} \end{cases}", "{xforx>00otherwise"),
        (r"\left. f \right|_{x=0}", "f|x=0"),
        (r"\mathcal{N}(0, 1)", "𝒩(0,1)"),
        (r"\mathbb{E} \mathrm{erf}\left(x\right)", "𝔼erf(x)"),
        (r"\unknown{x}", "unknownx"),
        (r"a &= b < c", "a=b<c"),
        (r"\text{a $x$ b}", "a x b"),
    ],
)
def test_latex_as_mathml(latex: str, text: str) -> None:
    assert shown(latex) == text


def test_structure_of_a_formula() -> None:
    root = ElementTree.fromstring(mathml(r"\sum_{ij} \hat{h}_i^a \frac{1}{2}", block=False))
    assert root.get("display") == "inline"
    kinds = {element.tag.split("}")[1] for element in root.iter()}
    assert {"munder", "mover", "msubsup", "mfrac"} <= kinds


@given(some.text(alphabet=r"ab1\{}^_&'()[] " + "φ", max_size=40))
def test_any_text_gives_well_formed_mathml(latex: str) -> None:
    ElementTree.fromstring(mathml(latex))


BROKEN = [
    r"\frac",
    "{",
    "}",
    r"\left",
    r"\right",
    "(",
    r"\begin",
    "{cases}",
    r"\end",
    r"\\",
    "&",
    "x",
    "_",
    "^",
    r"\text",
]


@given(some.lists(some.sampled_from([*BROKEN, r"\sqrt", "["]), max_size=20))
def test_broken_latex_gives_well_formed_mathml(tokens: list[str]) -> None:
    ElementTree.fromstring(mathml("".join(tokens)))
