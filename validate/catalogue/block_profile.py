"""Aljadeff, Stern, Sharpee, PRL 114, 088101 (2015), arXiv:1407.2297."""

from sympy import symbols

from quenched import Count, Gaussian, Population, Radius, Spectrum


def block_profile() -> Spectrum:
    """Two populations with a standard deviation g_ab/√N a block: radius √ρ(g_ab² f_b)."""
    f, g11, g12, g21, g22 = symbols("f g_11 g_12 g_21 g_22", positive=True)
    A, B = Population("A", f), Population("B", 1 - f)
    spread = {(A, A): g11, (A, B): g12, (B, A): g21, (B, B): g22}
    blocks = {(p, q): Gaussian(f"J{p.name}{q.name}", variance=g**2, over=(p, q)) for (p, q), g in spread.items()}
    net = Spectrum(blocks, name="block-profile", defaults={f: 0.3, g11: 0.5, g12: 1.2, g21: 0.8, g22: 0.6})
    return net.observe(radius=Radius(), half=Count(disc=0.5), most=Count(disc=0.65))
