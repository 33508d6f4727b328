"""Engelken, Ingrosso, Khajeh, Goedeke, Abbott, PLoS Comput. Biol. 18, e1010590 (2022), arXiv:2201.09916."""

from sympy import Max, pi, sin, sqrt, symbols

from quenched import Critical, Dynamics, Field, Gaussian, Lyapunov, N, Quenched, Uniform, cov, discretise, mean, t, tau
from quenched.theory.model import Model


def balanced_chaos_suppression(input: str = "common", step: float | None = None) -> Model:
    """Balanced rate network h' = −h + J [h]₊ + √N I_0 + sinusoid, the same for all units or with random phases.

    Options: input = "common", "independent" or "both" (amplitudes I_c and I_1); step: the Euler map at this step.
    """
    g, I0, J0, I1, Ic, f = symbols("g I_0 J_0 I_1 I_c f", positive=True)
    h, phase = Field("h"), Quenched("theta", Uniform(0, 2 * pi))
    J, rate = Gaussian("J", variance=g**2, mean=-J0 * sqrt(N)), Max(h, 0)
    shared, own = sin(2 * pi * f * t), sin(2 * pi * f * t + phase)
    drive = {"common": I1 * shared, "independent": I1 * own, "both": Ic * shared + I1 * own}[input]
    values = {g: 2, I0: 1, J0: 1, I1: 40 if input == "common" else 10, f: 0.2} | ({Ic: 10} if input == "both" else {})
    net = Dynamics({h: -h + J @ rate + sqrt(N) * I0 + drive}, name="balanced-chaos-suppression", defaults=values)
    net.observe(nu=mean(rate), nu_squared=mean(rate) ** 2, m=mean(h), variance=cov(h), c=cov(h(t), h(t + tau)))
    net.observe(lyapunov=Lyapunov(h), I_critical=Critical(I1, Lyapunov(h)))
    return net if step is None else discretise(net, step)
