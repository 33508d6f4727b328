"""Zhou, Jiang, Hou, Chen, Wong, Huang, arXiv:2103.14324 (2021): spectrum of couplings with a Hebbian window."""

from sympy import symbols

from quenched import Circulant, Count, Density, Edge, Iid, Ising, Moment, Population, Spectrum, eye, units


def hebbian_length_spectrum(d: int = 1) -> Spectrum:
    """J = ξᵀXξ without its diagonal: X couples equal patterns by c, those at most d apart by gamma."""
    alpha = symbols("alpha", positive=True)
    c, gamma = symbols("c gamma", real=True)
    patterns = Population("P", fraction=alpha)
    xi = Iid("xi", Ising(), over=(patterns, units))
    window = {0: c} | {r: gamma for k in range(1, d + 1) for r in (k, -k)}
    X = Circulant("X", window, over=(patterns, patterns))
    J = xi.T @ X @ xi - alpha * c * eye
    net = Spectrum(J, name="hebbian-length-spectrum", defaults={alpha: 0.5, c: 1, gamma: 0.3})
    return net.observe(
        m2=Moment(2),
        m3=Moment(3),
        m4=Moment(4),
        window=Count(1, 2.6),
        density=Density(1, width=0.5),
        x_max=Edge("right"),
    )
