"""The steps of the core on declarations whose results are known in closed form, and on replica copies."""

from __future__ import annotations

import pytest
from sympy import Integral, Rational, S, Symbol, erf, exp, log, pi, simplify, sqrt, symbols, tanh

from quenched.theory.average import average
from quenched.theory.couplings import Gaussian, Iid
from quenched.theory.derivation import Derivation, derive, start
from quenched.theory.distributions import Ising, Normal
from quenched.theory.doubled import Schroedinger
from quenched.theory.errors import QuenchedError
from quenched.theory.fields import Field, Quenched, WhiteNoise
from quenched.theory.laws import law_of
from quenched.theory.lower import CopiedAction, SiteField, Use
from quenched.theory.model import Dynamics, Map
from quenched.theory.observables import mean
from quenched.theory.problem import DS, DT, LAMBDA, U
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.saddle import NameOrderParameters, SiteProblem, saddle
from quenched.theory.spaces import N, Population, units
from quenched.theory.terms import Factor, Term, canonical, collect, colour_classes

g, s2, eta, mu, k, a, delta = symbols("g s2 eta mu k a delta", nonnegative=True)
x, y = Field("x"), Field("y")


def process(model: Dynamics | Map) -> EffectiveProcess:
    found = derive(model).find(EffectiveProcess)
    assert found is not None
    return found


def the_site(d: Derivation) -> SiteProblem:
    found = d.find(SiteProblem)
    assert found is not None
    return found


# -- the same steps on other copies ------------------------------------------------------------------------
def test_steps_do_not_know_what_a_copy_is() -> None:
    """Sherrington–Kirkpatrick: replicas go through the functions that times go through, up to the saddle."""
    beta, j, j0 = symbols("beta J J_0", positive=True)
    law = law_of(Gaussian("J", variance=j**2, mean=j0, symmetry=1))
    spin = SiteField("s", "state", units, Symbol("s"))
    action = CopiedAction("none", {"s": spin}, (), (Use("J", beta / 2, (("s", 0),), (("s", 0),)),), (law,))
    functional = average(action)
    expected = {
        (Factor("units", (("s", 0),)),) * 2: beta * j0 / 2,
        (Factor("units", (("s", 0), ("s", 1))),) * 2: beta**2 * j**2 / 4,
    }
    assert {t.factors: t.coef for t in functional.terms} == expected
    assert len(NameOrderParameters()(functional).parameters) == 2
    site = {t.atoms: t.coef for t in saddle(functional).terms}
    assert site == {(("s", 0),): beta * j0, (("s", 0), ("s", 1)): beta**2 * j**2 / 2}


def test_bipartite_patterns_give_both_site_sums() -> None:
    """A rectangular matrix used once in either direction couples rows and columns."""
    alpha = Symbol("alpha", positive=True)
    modes = Population("mode", fraction=alpha)
    xi = Iid("xi", Ising(), over=(modes, units))
    act = start(
        Dynamics(
            {
                x: -x + xi.T @ Field("m", population=modes),
                Field("m", population=modes): -Field("m", population=modes) + xi @ tanh(x),
            }
        )
    )
    terms = act.average().form.terms  # type: ignore[attr-defined]
    assert all(t.coef.has(alpha) for t in terms)
    assert {tuple(sorted(f.population for f in t.factors)) for t in terms} == {("mode", "units")}


# -- effective processes -----------------------------------------------------------------------------------
def test_covariance_and_memory_of_partial_symmetry() -> None:
    p = process(Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta, mean=mu) @ tanh(x)}))
    ((cov,),) = [v for v in p.covariance.values()]
    ((memory,),) = [v for v in p.memory.values()]
    ((average_,),) = [v for v in p.mean.values()]
    assert (cov.coef, memory.coef, average_.coef) == (g**2, eta * g**2, mu)
    assert memory.output == "phi"


def test_transpose_swaps_the_ends() -> None:
    """x' = J φ(x) + Jᵀ χ(x): fields of J and Jᵀ remember each other even for η = 0."""
    j = Gaussian("J", variance=g**2)
    p = process(Dynamics({x: -x + j @ tanh(x) + j.T @ erf(x)}))
    assert set(p.covariance) == {("h_1", "h_1"), ("h_2", "h_2")}
    carried = {h: sorted(c.output for c in parts) for h, parts in p.memory.items()}
    assert {tuple(v) for v in carried.values()} == {("phi_1",), ("phi_2",)}
    assert all(c.coef == g**2 for parts in p.memory.values() for c in parts)


def test_one_matrix_used_twice_correlates_its_fields() -> None:
    j = Gaussian("J", variance=g**2)
    p = process(Dynamics({x: -x + (j @ tanh(x)) / (1 + exp(-(j @ x)))}))
    assert len(p.covariance) == 3
    q = process(Dynamics({x: -x + (j @ tanh(x)) / (1 + exp(-(Gaussian("K", variance=g**2) @ x)))}))
    assert len(q.covariance) == 2


def test_correlated_matrices() -> None:
    j = Gaussian("J", variance=g**2)
    rho = Symbol("rho", real=True)
    other = Gaussian("K", variance=k**2, correlation={j: rho})
    p = process(Dynamics({x: -x + j @ tanh(x) + other @ erf(x)}))
    ((cross,),) = [v for key, v in p.covariance.items() if key[0] != key[1]]
    assert simplify(cross.coef - rho * g * k) == 0


def test_populations_enter_with_their_fractions() -> None:
    f = Rational(4, 5)
    exc, inh = Population("E", f), Population("I", 1 - f)
    xe, xi = Field("x", population=exc), Field("x", population=inh)
    jei = Gaussian("J_EI", variance=g**2, over=(exc, inh))
    p = process(Dynamics({xe: -xe + jei @ tanh(xi), xi: -xi}))
    ((cov,),) = p.covariance.values()
    assert cov.coef == g**2 * (1 - f)


def test_powers_of_n_are_kept_or_refused() -> None:
    strong = process(Dynamics({x: -x + Gaussian("J", variance=g**2, mean=-mu * sqrt(N)) @ tanh(x) + sqrt(N)}))
    ((part,),) = strong.mean.values()
    assert part.coef == -mu * sqrt(N)
    with pytest.raises(QuenchedError, match="diverges"):
        derive(Dynamics({x: -x + Gaussian("J", variance=g**2, mean=N) @ tanh(x)}))


def test_mean_in_an_equation_is_a_mean_field() -> None:
    p = process(Dynamics({x: -x + mean(tanh(x))}))
    ((part,),) = p.mean.values()
    assert part.coef == 1
    assert not p.covariance


def test_dropped_terms_are_listed_with_reasons() -> None:
    d = derive(Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta) @ tanh(x)}))
    step = next(s for s in d if s.dropped)
    assert all(line.comment for line in step.dropped)
    assert all(any(i.startswith("hat") for i, _ in t.atoms) for t in the_site(d).terms)


# -- closures ----------------------------------------------------------------------------------------------
def scs(phi=tanh) -> Dynamics:  # type: ignore[no-untyped-def]
    return Dynamics({x: -x + Gaussian("J", variance=g**2) @ phi(x) + sqrt(2 * s2) * WhiteNoise("xi")})


def test_random_network_to_potential_and_schroedinger() -> None:
    d = derive(scs())
    p, q = d.problem, d.potential
    assert p is not None
    assert q is not None
    assert simplify(p.gain[0][0] - g**2 / ((1 + DT) * (1 + DS))) == 0
    assert simplify(p.noise[0] - 2 * s2 / ((1 + DT) * (1 + DS))) == 0
    assert (q.inertia, q.stiffness, q.kick, q.static, q.weights) == (1, 1, s2, 0, (g**2,))
    assert simplify(q.growth_stiffness - (1 + LAMBDA) ** 2) == 0
    top = d.find(Schroedinger)
    assert top is not None
    assert simplify(top.energy - (1 - (1 + LAMBDA) ** 2)) == 0
    assert simplify(top.rate - (sqrt(1 - Symbol("E_0", real=True)) - 1)) == 0


def test_erf_closes_in_the_arcsine() -> None:
    p = derive(scs(lambda u: erf(sqrt(pi) * u / 2))).problem
    assert p is not None
    closed = p.two_points[0].closed
    assert closed is not None
    v, c = symbols("v c", positive=True)
    from sympy import asin

    values = {s: v for s in closed.free_symbols if s.name.startswith("v")} | {
        s: c for s in closed.free_symbols if s.name == "c_12"
    }
    target = 2 / pi * asin(pi / 2 * c / (1 + pi * v / 2))
    point = {v: 1.3, c: 0.7}
    assert abs(complex((closed.xreplace(values) - target).subs(point))) < 1e-12


def test_two_laws_and_two_nonlinearities_share_one_potential() -> None:
    j1, j2 = Gaussian("J_1", variance=g**2), Gaussian("J_2", variance=k**2)
    q = derive(Dynamics({x: -a * x + j1 @ tanh(x) + j2 @ erf(x)})).potential
    assert q is not None
    assert q.stiffness == a**2
    assert set(q.weights) == {g**2, k**2}
    assert simplify(q.growth_stiffness - (a + LAMBDA) ** 2) == 0


def test_fourth_order_filter_has_no_potential() -> None:
    d = derive(Dynamics({x: -x - y + Gaussian("J", variance=g**2) @ tanh(x), y: k * (x - y)}))
    assert d.potential is None
    assert d.problem is not None
    assert any("order 4" in reason for _, reason in d.refusals)


def test_map_has_no_potential_but_a_problem() -> None:
    d = derive(Map({x: (1 - delta) * x + delta * (Gaussian("J", variance=g**2) @ tanh(x))}))
    assert d.problem is not None
    assert any("map" in reason for _, reason in d.refusals)
    assert simplify(d.problem.gain[0][0] - delta**2 * g**2 / ((DT - 1 + delta) * (DS - 1 + delta))) == 0


def test_unknown_nonlinearity_keeps_its_integrals() -> None:
    q = derive(scs(lambda u: tanh(u) / (1 + exp(-u) * tanh(u) ** 2))).potential
    assert q is not None
    assert q.sources[0].closed is None
    assert q.potentials[0].f.expr.has(Integral)


def test_quenched_inputs_gaussian_and_other() -> None:
    j = Gaussian("J", variance=g**2)
    gauss = derive(Dynamics({x: -x + j @ tanh(x) + Quenched("I", Normal(mu, k**2))})).problem
    assert gauss is not None
    assert gauss.static[0] == k**2
    assert gauss.arguments[0].constant == mu
    assert not gauss.labels
    signs = derive(Dynamics({x: -x + j @ tanh(x) + k * Quenched("s", Ising())})).problem
    assert signs is not None
    assert [str(label.symbol) for label in signs.labels] == ["s"]
    assert signs.static[0] == 0


def test_outputs_of_a_linear_combination_of_fields() -> None:
    p = derive(Dynamics({x: -x + Gaussian("J", variance=g**2) @ tanh(x - a * y), y: k * (x - y)})).problem
    assert p is not None
    assert p.two_points[0].f.expr == tanh(U)
    assert len(p.arguments) == 3


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta) @ tanh(x)}), "remembers"),
        (Dynamics({x: -(x**3) + Gaussian("J", variance=g**2) @ tanh(x)}), "not affine"),
        (Dynamics({x: -x + tanh(Gaussian("J", variance=g**2) @ x)}), "not affine"),
        (Dynamics({x: -x + Gaussian("J", variance=g**2) @ (x * y), y: -y + x}), "several fields"),
    ],
)
def test_sites_that_are_not_gaussian_say_why(model: Dynamics, words: str) -> None:
    d = derive(model)
    assert d.problem is None
    assert d.process is not None
    assert any(words in reason for _, reason in d.refusals)


def test_fixing_a_parameter_first_simplifies_the_site() -> None:
    net = Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta) @ tanh(x)})
    assert derive(net).problem is None
    assert derive(net, eta=0).problem is not None


# -- the record --------------------------------------------------------------------------------------------
def test_the_record_prints_and_verbs_can_be_steered() -> None:
    d = derive(scs())
    text = d.text()
    for words in ("Average over the couplings", "dropped", "energy condition", "Largest-time rule"):
        assert words in text
    assert "\\begin{align}" in d.latex()
    assert "@article{sompolinsky1988" in d.bibtex()
    assert all(step.title and step.text() and step.latex() for step in d)
    half = start(scs()).average().order_parameters()
    assert len(half.steps) == 3
    assert half.saddle().largest_time().read_off().units().close().ansatz().problem is not None
    with pytest.raises(QuenchedError, match="not reached"):
        start(scs()).schroedinger()


def test_derivations_are_reproducible() -> None:
    assert derive(scs()).text() == derive(scs()).text()


# -- canonical form ----------------------------------------------------------------------------------------
def test_canonical_form_ignores_the_names_of_copies() -> None:
    ring = [Factor("units", (("a", i), ("b", (i + 1) % 5))) for i in range(5)]
    moved = [Factor("units", tuple((n, (3 * c + 1) % 5) for n, c in f.atoms)) for f in reversed(ring)]
    one, two = (canonical(Term(S.One, S.Zero, tuple(fs))) for fs in (ring, moved))
    assert one == two
    assert len(collect([Term(g, S.Zero, tuple(ring)), Term(-g, S.Zero, tuple(moved))])) == 0


def test_colours_separate_copies_that_play_different_parts() -> None:
    factors = (Factor("units", (("a", 0), ("b", 1))), Factor("units", (("a", 0), ("b", 2))))
    assert colour_classes(factors, (), [0, 1, 2]) in ([[0], [1, 2]], [[1, 2], [0]])


def test_log_weights_use_natural_logs() -> None:
    q = derive(scs()).potential
    assert q is not None
    assert q.potentials[0].f.expr.has(log)


def test_names_of_the_declaration_do_not_collide_with_derived_ones() -> None:
    h, phi = Field("h"), Field("phi")
    d = derive(Dynamics({h: -h + Gaussian("J", variance=g**2) @ tanh(h), phi: -phi + h}))
    plain = derive(Dynamics({x: -x + Gaussian("J", variance=g**2) @ tanh(x), y: -y + x}))
    assert d.problem is not None
    assert plain.problem is not None
    assert [a.name for a in d.problem.arguments] == ["h", "phi"]
    assert d.problem.gain == plain.problem.gain


def test_powers_of_n_stay_in_the_saddle_as_a_parameter() -> None:
    p = derive(Dynamics({x: -x + Gaussian("J", variance=g**2, mean=-mu * sqrt(N)) @ tanh(x) + sqrt(N)})).problem
    assert p is not None
    assert N in p.parameters
    assert p.mean_gain[0][0] == -mu * sqrt(N)
    assert derive(scs()).problem.parameters == (g, s2)  # type: ignore[union-attr]


def test_copies_share_their_couplings_but_keep_their_names() -> None:
    """Two copies with the same J: their local fields are correlated by the outputs of both."""
    from quenched.theory.transforms import copies

    two = copies(Dynamics({x: -x + Gaussian("J", variance=g**2) @ tanh(x)}), 2)
    p = process(two)
    assert [name for name, _ in p.action.equations] == ["x_1", "x_2"]
    assert len(p.covariance) == 3
    assert all(c.coef == g**2 for parts in p.covariance.values() for c in parts)
