"""Jiang, Zhou, Hou, Wong, Huang, arXiv 2103.14317: associative memory with an arbitrary Hebbian length."""

from sympy import cos, symbols

from quenched import (
    Circulant,
    Field,
    Gibbs,
    Iid,
    Ising,
    N,
    Population,
    Replicon,
    SpinGlassSusceptibility,
    copies,
    mean,
    total,
    units,
    zero_temperature,
)


def hebbian_length_correlations(
    d: int = 1,
    size: int | None = None,
    distances: int = 1,
    other: int | None = None,
    start: bool = True,
    cold: bool = False,
) -> Gibbs:
    """±1 units whose Hebbian couplings tie each of αN patterns (or of `size`) to its d neighbours in a cycle.

    Observed are overlaps with the pattern of the start and, averaged over both sides, up to some distance from it; with
    the state of another pattern, at the distance `other`; without a start, correlations of units. `cold`: at T = 0.
    """
    (alpha, T), (c, gamma, theta) = symbols("alpha T", positive=True), symbols("c gamma theta", real=True)
    stored = Population("pattern", fraction=alpha) if size is None else Population("pattern", size=size)
    xi = Iid("xi", Ising(), over=(stored, units))
    s = Field("s", initial=xi[0] if start else None)
    window = c + 2 * gamma * sum(cos(r * theta) for r in range(1, int(d) + 1))
    J = xi.T @ Circulant("X", window, over=(stored, stored), angle=theta) @ xi
    energy = -total(s * (J @ s)) / 2 + (alpha * c * N / 2 if size is None else 0)
    defaults = {alpha: 0.02, T: 0.55, c: 1, gamma: 0.05} if size is None else {T: 0.05, c: 1, gamma: 0.6}
    defaults |= {} if start else {T: 2.6, gamma: 0.2} | ({alpha: 0.2} if size is None else {})
    model = Gibbs({s: Ising()}, energy=energy, beta=1 / T, name="hebbian-length-correlations", defaults=defaults)
    model = zero_temperature(model) if cold else model
    if not start:
        return model.observe(chi_SG=SpinGlassSusceptibility(s), q=mean(s[1] * s[2]), e=energy / N, replicon=Replicon())
    seen = {f"m_{k}": mean((xi[k] + xi[-k]) * s) / 2 for k in range(int(distances) + 1)} | {"q": mean(s[1] * s[2])}
    if other is not None:
        return copies(model, 2, initial=[xi[0], xi[int(other)]]).observe(**seen)
    return model.observe(**seen, e=energy / N, replicon=Replicon())
