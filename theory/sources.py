"""The literature behind the rules, as BibTeX."""

from __future__ import annotations

from collections.abc import Iterable

SOURCES: dict[str, dict[str, str]] = {
    "clark2023": {
        "author": "Clark, D. G. and Abbott, L. F. and Litwin-Kumar, A.",
        "title": "Dimension of activity in random neural networks",
        "journal": "Physical Review Letters",
        "volume": "131",
        "pages": "118401",
        "year": "2023",
    },
    "clark2024": {
        "author": "Clark, D. G. and Abbott, L. F.",
        "title": "Theory of coupled neuronal-synaptic dynamics",
        "journal": "Physical Review X",
        "volume": "14",
        "pages": "021001",
        "year": "2024",
    },
    "martin1973": {
        "author": "Martin, P. C. and Siggia, E. D. and Rose, H. A.",
        "title": "Statistical dynamics of classical systems",
        "journal": "Physical Review A",
        "volume": "8",
        "pages": "423",
        "year": "1973",
    },
    "dedominicis1978": {
        "author": "De Dominicis, C.",
        "title": "Dynamics as a substitute for replicas in systems with quenched random impurities",
        "journal": "Physical Review B",
        "volume": "18",
        "pages": "4913",
        "year": "1978",
    },
    "sompolinsky1982": {
        "author": "Sompolinsky, H. and Zippelius, A.",
        "title": "Relaxational dynamics of the Edwards-Anderson model and the mean-field theory of spin-glasses",
        "journal": "Physical Review B",
        "volume": "25",
        "pages": "6860",
        "year": "1982",
    },
    "sompolinsky1988": {
        "author": "Sompolinsky, H. and Crisanti, A. and Sommers, H. J.",
        "title": "Chaos in random neural networks",
        "journal": "Physical Review Letters",
        "volume": "61",
        "pages": "259",
        "year": "1988",
    },
    "schuecker2018": {
        "author": "Schuecker, J. and Goedeke, S. and Helias, M.",
        "title": "Optimal sequence memory in driven random networks",
        "journal": "Physical Review X",
        "volume": "8",
        "pages": "041029",
        "year": "2018",
        "eprint": "1603.01880",
    },
    "price1958": {
        "author": "Price, R.",
        "title": "A useful theorem for nonlinear devices having Gaussian inputs",
        "journal": "IRE Transactions on Information Theory",
        "volume": "4",
        "pages": "69",
        "year": "1958",
    },
    "eissfeller1992": {
        "author": "Eissfeller, H. and Opper, M.",
        "title": "New method for studying the dynamics of disordered spin systems without finite-size effects",
        "journal": "Physical Review Letters",
        "volume": "68",
        "pages": "2094",
        "year": "1992",
    },
    "girko1985": {
        "author": "Girko, V. L.",
        "title": "Circular law",
        "journal": "Theory of Probability and its Applications",
        "volume": "29",
        "pages": "694",
        "year": "1985",
    },
    "helton2018": {
        "author": "Helton, J. W. and Mai, T. and Speicher, R.",
        "title": "Applications of realizations (aka linearizations) to free probability",
        "journal": "Journal of Functional Analysis",
        "volume": "274",
        "pages": "1",
        "year": "2018",
    },
    "feinberg1997": {
        "author": "Feinberg, J. and Zee, A.",
        "title": "Non-hermitian random matrix theory: method of hermitian reduction",
        "journal": "Nuclear Physics B",
        "volume": "504",
        "pages": "579",
        "year": "1997",
    },
    "ajanki2019": {
        "author": 'Ajanki, O. and Erd{\\H o}s, L. and Kr{\\"u}ger, T.',
        "title": "Stability of the matrix {D}yson equation and random matrices with correlations",
        "journal": "Probability Theory and Related Fields",
        "volume": "173",
        "pages": "293",
        "year": "2019",
    },
    "ahmadian2015": {
        "author": "Ahmadian, Y. and Fumarola, F. and Miller, K. D.",
        "title": "Properties of networks with partially structured and partially random connectivity",
        "journal": "Physical Review E",
        "volume": "91",
        "pages": "012820",
        "year": "2015",
        "eprint": "1311.4672",
    },
    "edwards1975": {
        "author": "Edwards, S. F. and Anderson, P. W.",
        "title": "Theory of spin glasses",
        "journal": "Journal of Physics F: Metal Physics",
        "volume": "5",
        "pages": "965",
        "year": "1975",
    },
    "sherrington1975": {
        "author": "Sherrington, D. and Kirkpatrick, S.",
        "title": "Solvable model of a spin-glass",
        "journal": "Physical Review Letters",
        "volume": "35",
        "pages": "1792",
        "year": "1975",
    },
    "dealmeida1978": {
        "author": "de Almeida, J. R. L. and Thouless, D. J.",
        "title": "Stability of the Sherrington-Kirkpatrick solution of a spin glass model",
        "journal": "Journal of Physics A: Mathematical and General",
        "volume": "11",
        "pages": "983",
        "year": "1978",
    },
}


def bibtex(keys: Iterable[str]) -> str:
    """BibTeX entries of the given keys, each once, in order."""
    entries = []
    for key in dict.fromkeys(keys):
        rows = ",\n".join(f"  {name} = {{{value}}}" for name, value in SOURCES[key].items())
        entries.append(f"@article{{{key},\n{rows}\n}}")
    return "\n\n".join(entries)
