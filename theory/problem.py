"""Self-consistency problems: what a derivation hands to the solvers.

A problem is data: sympy expressions in its parameters, nothing numeric and nothing to call. The single-site
problems of this module have Gaussian units: every *argument* u_a (a linear combination of one unit's fields) is a
Gaussian process, fixed by its mean m_a and its covariances C_ab(t, s), and the couplings feed back averages
⟨f(u_a(t)) g(u_b(s))⟩ of named site functions.

One object serves every use of the same equations, because the filters are kept two-sided, as functions of two
commuting symbols `DT`, `DS` (the time derivative of a flow, the shift of a map, acting on either time):

========================  ================================  ===============================
use                       flow                              map
========================  ================================  ===============================
stationary spectrum       DT → iω, DS → −iω                 DT → e^{iθ}, DS → e^{−iθ}
static part               DT = DS = 0                       DT = DS = 1
two copies, growth e^{λ}  DT → λ + iω, DS → λ − iω          DT → e^{λ+iθ}, DS → e^{λ−iθ}
stability of a state      DT → z, DS → conj z               DT → z, DS → conj z
========================  ================================  ===============================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sympy import Expr, S, Symbol

from quenched.theory.spaces import t

#: Operators that act on the first and on the second time of a two-time function.
DT, DS = Symbol("D_t"), Symbol("D_s")
#: Argument of every site function.
U = Symbol("u", real=True)
#: Slots of Gaussian averages: means, variances and covariance of the two arguments.
M1, M2 = Symbol("m_1", real=True), Symbol("m_2", real=True)
V1, V2 = Symbol("v_1", nonnegative=True), Symbol("v_2", nonnegative=True)
C12 = Symbol("c_12", real=True)

Clock = Literal["flow", "map"]


@dataclass(frozen=True)
class SiteFunction:
    """A named scalar function of one Gaussian argument.

    Attributes
    ----------
    name : str
        How it is printed, for example ``phi`` or ``psi_1``.
    expr : Expr
        Its expression in `U`, the parameters and the label symbols of the problem.
    """

    name: str
    expr: Expr

    def diff(self, order: int = 1) -> SiteFunction:
        """The derivative with respect to the argument (distributions are allowed: they live under averages)."""
        if order == 0:
            return self
        return SiteFunction(self.name + "'" * order, self.expr.diff(U, order))


@dataclass(frozen=True)
class OnePoint:
    """⟨f(u_a)⟩; `closed` is its value in `M1`, `V1` where a rule gives one."""

    f: SiteFunction
    a: int
    closed: Expr | None = None


@dataclass(frozen=True)
class TwoPoint:
    """⟨f(u_a(t)) g(u_b(s))⟩; `closed` is its value in `M1, M2, V1, V2, C12` where a rule gives one."""

    f: SiteFunction
    a: int
    g: SiteFunction
    b: int
    closed: Expr | None = None


@dataclass(frozen=True)
class Label:
    """A quenched number per unit that stays inside the averages: its symbol and its law."""

    symbol: Symbol
    law: object


@dataclass(frozen=True)
class Carried:
    """A Gaussian quenched number: its name, population, mean, and covariance with every argument."""

    name: str
    population: str
    mean: Expr
    covariances: tuple[Expr, ...]


@dataclass(frozen=True)
class Argument:
    """One Gaussian argument: printed name, population, and the constant part of its mean.

    The mean is m_a = constant + Σ_k mean_gain[a][k] ⟨f_k⟩. `constant` may contain label symbols.
    """

    name: str
    population: str
    constant: Expr


@dataclass(frozen=True)
class StationaryGaussian:
    """Gaussian units in a statistically stationary state.

    Covariances C_p(τ) of the pairs p = (a, b), C_p(τ) = cov(u_a(t+τ), u_b(t)), labels held fixed, obey

        C_p = Σ_s gain[p][s](D_t, D_s) ⟨f_s(u_a) g_s(u_b)⟩ + noise[p](D_t, D_s) δ(t−s) + static[p]

    with δ(t−s) the Dirac (flow) or Kronecker (map) delta, and static[p] a constant in τ. A static part of the
    two-point averages (their limit τ → ∞) passes through the gain at zero frequency.

    Attributes
    ----------
    clock : "flow" or "map"
    parameters : symbols that need values
    labels : quenched labels that the averages run over (outside the Gaussian average)
    arguments : the Gaussian arguments
    pairs : index pairs (a, b), a ≤ b, of arguments of one population, all that the closure needs
    one_points, two_points : the sources
    mean_gain : matrix (arguments × one_points)
    gain : matrix (pairs × two_points), entries in `DT`, `DS`
    noise, static : one entry a pair
    closure : how many of the leading `pairs` the sources need (the rest are read off afterwards)
    responses : name → transfer function in `DT` of a field to a perturbation of its own equation
    characteristic : polynomials in `DT` whose roots are the modes of a unit left alone; all must decay
        (Re < 0 for a flow, |·| < 1 for a map), otherwise there is no stationary state
    closing : (symbol, ((coefficient, k), …)): numbers in gains and constants that the state itself determines,
        symbol = Σ coefficient·⟨f_k⟩ over one_points; coefficients may contain such numbers
    carried : Gaussian quenched numbers that enter arguments additively: ⟨q f(u_a)⟩ = E q·⟨f⟩ + Cov(q, u_a)·⟨f'⟩
    """

    clock: Clock
    parameters: tuple[Symbol, ...]
    labels: tuple[Label, ...]
    arguments: tuple[Argument, ...]
    pairs: tuple[tuple[int, int], ...]
    one_points: tuple[OnePoint, ...]
    two_points: tuple[TwoPoint, ...]
    mean_gain: tuple[tuple[Expr, ...], ...]
    gain: tuple[tuple[Expr, ...], ...]
    noise: tuple[Expr, ...]
    static: tuple[Expr, ...]
    closure: int
    responses: dict[str, Expr] = field(default_factory=dict, hash=False)
    characteristic: tuple[Expr, ...] = ()
    closing: tuple[tuple[Symbol, tuple[tuple[Expr, int], ...]], ...] = ()
    carried: tuple[Carried, ...] = ()


@dataclass(frozen=True)
class PotentialProblem:
    """A one-argument stationary problem that is a conservative particle (the energy condition).

    (stiffness − inertia ∂_τ²) Δ = Σ_k weights[k] ⟨f_k g_k⟩(Δ; Δ0) + static + 2·kick·δ(τ)

    so Δ'(0⁺) = −kick/inertia and ½·inertia·Δ'² + V(Δ) is conserved with
    V(Δ) = −½·stiffness·Δ² + static·Δ + Σ_k weights[k] ⟨F_k G_k⟩(Δ; Δ0), F' = f, G' = g (Price's theorem).
    The state obeys ½·kick²/inertia + V(Δ0) = V(Δ∞), V'(Δ∞) = 0, with the mean equation of `full`.

    Attributes
    ----------
    full : the problem that this one reduces
    inertia, stiffness, kick, static : expressions in the parameters
    weights : expressions in the parameters, one a source
    sources : ⟨f_k g_k⟩ as `TwoPoint` of argument 0
    potentials : ⟨F_k G_k⟩, same order; an antiderivative without a closed form is an unevaluated `Integral` of `U`
    growth_stiffness : stiffness of the two-copy operator, an expression in the parameters and `LAMBDA`:
        [growth_stiffness(λ) − inertia ∂_τ² − Σ_k weights[k] ⟨f_k' g_k'⟩] ψ = 0
    """

    full: StationaryGaussian
    inertia: Expr
    stiffness: Expr
    kick: Expr
    static: Expr
    weights: tuple[Expr, ...]
    sources: tuple[TwoPoint, ...]
    potentials: tuple[TwoPoint, ...]
    growth_stiffness: Expr


@dataclass(frozen=True)
class SampledUnit:
    """The unit of one population as a stochastic process that has to be sampled.

    Attributes
    ----------
    population : its name
    states, fields, noises : symbols of the states, of the local fields and of the white noises (unit intensity)
    rhs : right-hand side of every state, in these symbols, labels and parameters
    outputs : (symbol, definition in states and labels)
    labels : quenched numbers of the unit
    earlier : (symbol, state, delay): states at earlier times, by a time of a flow or a number of steps of a map
    starts : per state its law or value (in labels and parameters) at time 0, `CORRELATED` where it is neither
    """

    population: str
    states: tuple[Symbol, ...]
    fields: tuple[Symbol, ...]
    noises: tuple[Symbol, ...]
    rhs: tuple[Expr, ...]
    outputs: tuple[tuple[Symbol, Expr], ...]
    labels: tuple[Label, ...]
    earlier: tuple[tuple[Symbol, Symbol, Expr], ...] = ()
    starts: tuple[object, ...] = ()


@dataclass(frozen=True)
class OperatorSymbol:
    """What an operator in a coefficient stands for: the response of an output to a field, at either time."""

    symbol: Symbol
    adjoint: Symbol
    output: str
    field: str


#: Start of a state that is correlated with the couplings, so that no single unit knows its law.
CORRELATED = "correlated with the couplings"
#: What a start of a theory is expected to be.
INDEPENDENT = (
    "expected a law or numbers of each unit that are drawn without them, Normal(0, 1) or a Quenched number"
    " (a simulation can start anywhere)"
)


@dataclass(frozen=True)
class SiteProcess:
    """Units whose law is not Gaussian: the site average runs over trajectories.

    Local fields are h_u(t) = ζ_u(t) + Σ means + Σ memory, with Gaussian ζ:

    Attributes
    ----------
    clock : "flow" or "map"
    parameters : symbols that need values
    units : one a population
    covariance : (u, v, coefficient, a, b): Cov(ζ_u(t), ζ_v(s)) contains coefficient·⟨a(t) b(s)⟩ of outputs a, b
    means : (u, coefficient, a): the mean of h_u contains coefficient·⟨a⟩
    memory : (u, coefficient, a, v, b): h_u(t) contains coefficient·∫ds ⟨δa(t)/δh_v(s)⟩ b(s) over the past
    bonds : (u, coefficient, rate, a, b, c): h_u(t) contains coefficient·∫ds K(t − s) ⟨a(t) b(s)⟩ c(s) over the past,
        with K(τ) = e^{rate·τ} (flow) or rate^{n−1} (map): what dynamic couplings remember. Where the rate depends on
        time, K(t, s) = exp(∫_s^t rate) or Π_{s<l<t} rate(l); a coefficient that does is taken at the earlier time s.
    filters : (u, coefficient, b): h_u contains the coefficient, an operator in time, acting on b
    operators : the responses that occur in coefficients of covariances and filters as operators in time
    advance : what one step of a map adds to t (of a flow: 1)
    """

    clock: Clock
    parameters: tuple[Symbol, ...]
    units: tuple[SampledUnit, ...]
    covariance: tuple[tuple[Symbol, Symbol, Expr, Symbol, Symbol], ...]
    means: tuple[tuple[Symbol, Expr, Symbol], ...]
    memory: tuple[tuple[Symbol, Expr, Symbol, Symbol, Symbol], ...]
    bonds: tuple[tuple[Symbol, Expr, Expr, Symbol, Symbol, Symbol], ...] = ()
    filters: tuple[tuple[Symbol, Expr, Symbol], ...] = ()
    operators: tuple[OperatorSymbol, ...] = ()
    advance: Expr = S.One

    @property
    def timed(self) -> bool:
        """Whether it depends on time explicitly, so that there is no stationary state to look for."""
        bodies = [e for u in self.units for e in (*u.rhs, *(body for _, body in u.outputs))]
        return any(e.has(t) for e in (*bodies, *(e for _, c, r, *_ in self.bonds for e in (c, r))))


#: Growth rate in two-copy problems (per unit time; for a map, per step).
LAMBDA = Symbol("lambda", real=True)
