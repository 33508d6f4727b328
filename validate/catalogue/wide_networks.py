"""Segadlo, Epping, van Meegen, Dahmen, Krämer, Helias, arXiv:2112.05589: deep and recurrent networks of large width."""

from collections.abc import Callable

from sympy import Expr, erf, pi, sqrt, symbols

from quenched import (
    Field,
    Fluctuation,
    Gaussian,
    Layers,
    Normal,
    Overlap,
    Population,
    Quenched,
    QuenchedError,
    Shift,
    mean,
    units,
)

#: What is drawn afresh in which architecture.
REDRAW = {"dnn": "layer", "rnn": None, "rnn_in": None}


def phi_erf(u: Expr) -> Expr:
    """erf with slope one at zero."""
    return erf(sqrt(pi) * u / 2)


def wide_networks(
    arch: str = "dnn", phi: Callable[[Expr], Expr] = phi_erf, depth: int = 4, shift: bool = False
) -> Layers:
    """Deep (dnn), recurrent (rnn) and driven recurrent (rnn_in) networks: kernels, 1/N variances and mean shifts."""
    g, g0, sb, c = symbols("g g_0 sigma_b c", nonnegative=True)
    sample, pixel = Population("sample", size=2), Population("pixel", size=2)
    if arch not in REDRAW:
        raise QuenchedError(f"arch of wide-networks is one of {', '.join(REDRAW)}, got {arch!r}")
    redraw = REDRAW[arch]
    x = Quenched("x", Overlap([[1, c], [c, 1]]), over=pixel, each=sample)
    W_in, W = Gaussian("W_in", variance=g0**2 / 2, over=(units, pixel)), Gaussian("W", variance=g**2, redraw=redraw)
    b = Quenched("b", Normal(0, sb**2), redraw=redraw)
    h = Field("h", each=sample, initial=W_in @ x + b)
    drive = W_in @ x if arch == "rnn_in" else 0
    defaults = {g: sqrt(1.6), g0: 1, sb: sqrt(0.2), c: 0.3}
    net = Layers({h: W @ phi(h) + b + drive}, depth, f"wide-networks ({arch})", defaults)
    last, half = (mean(phi(h[1](a)) * phi(h[1](depth))) for a in (depth, depth // 2))
    if shift:  # needs many small networks, kernels and variances larger ones
        return net.observe(shift=Shift(half))
    cross = mean(phi(h[1](depth)) * phi(h[2](depth)))
    net.observe(Q=last, Q_cross=cross, Q_layers=half)
    return net.observe(V=Fluctuation(last), V_cross=Fluctuation(cross), V_layers=Fluctuation(half))
