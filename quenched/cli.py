"""The command line: `quenched VERB NAME ...`.

Exit codes: 0 agree or success, 1 disagree, 2 bad input, 3 inconclusive or not converged (and 70 for a fault of ours).
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from quenched import __version__
from quenched.cli_output import BAD_INPUT, INCONCLUSIVE, INTERNAL, INTERRUPTED, SUCCESS
from quenched.theory.errors import ConvergenceError, QuenchedError

_NAME_HELP = "a name of the catalogue, or path.py:model"


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        raise QuenchedError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        options = _parser().parse_args(arguments)
        from quenched import cli_verbs

        code = cli_verbs.VERBS[options.verb](options)
        sys.stdout.flush()
        return code
    except ConvergenceError as error:
        return _fail(error, INCONCLUSIVE)
    except QuenchedError as error:
        return _fail(error, BAD_INPUT)
    except KeyboardInterrupt:
        return _fail("stopped; finished realisations are kept, the same command resumes", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SUCCESS
    except Exception as error:
        if os.environ.get("QUENCHED_TRACEBACK"):
            traceback.print_exc()
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}:{place.lineno}"
        hint = "QUENCHED_TRACEBACK=1 shows where"
        return _fail(f"internal error: {type(error).__name__}: {error} ({where}; {hint})", INTERNAL)


def _fail(problem: object, code: int) -> int:
    print("quenched: " + " ".join(str(problem).split()), file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="quenched", description="Theories of disordered models: derive, solve, simulate, validate.")
    parser.add_argument("--version", action="version", version=f"quenched {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _list(verbs.add_parser("list", help="the systems of the catalogue"))
    _derive(verbs.add_parser("derive", help="derive the theory, step by step"))
    _solve(verbs.add_parser("solve", help="solve the theory at one parameter point"))
    _sweep(verbs.add_parser("sweep", help="solve the theory along a parameter"))
    _simulate(verbs.add_parser("simulate", help="simulate finite systems"))
    _validate(verbs.add_parser("validate", help="compare theory and simulation: a verdict"))
    _export(verbs.add_parser("export", help="write the solver as a file of its own"))
    return parser


def _system(verb: argparse.ArgumentParser, json: bool = True) -> None:
    verb.add_argument("name", metavar="NAME", help=_NAME_HELP)
    _common(verb, json)


def _common(verb: argparse.ArgumentParser, json: bool = True) -> None:
    verb.add_argument(
        "-p",
        "--param",
        dest="params",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter (g=1.5, g=1,2,3, g=1.1:3:20) or an option of the system (phi=erf(sqrt(pi)*x/2))",
    )
    if json:
        verb.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _realisations(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--seed", type=_natural, default=0, help="seed of all realisations (default 0)")
    verb.add_argument("--scheduler", metavar="ADDRESS", help="address of a running Dask cluster")
    verb.add_argument("--fresh", action="store_true", help="ignore stored realisations")
    told = "a setting of the simulation, as in Python (route=messages, sweeps=800, sizes=100,200,400)"
    verb.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help=told)


def _list(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _derive(verb: argparse.ArgumentParser) -> None:
    _system(verb, json=False)
    form = verb.add_mutually_exclusive_group()
    for name in ("latex", "markdown", "html"):
        form.add_argument(f"--{name}", dest="form", action="store_const", const=name, help=f"print as {name}")
    verb.add_argument("--verify", action="store_true", help="compare the numeric meanings before and after each step")
    verb.add_argument("-o", "--output", metavar="FILE", help="write to a file instead of stdout")
    verb.set_defaults(form="text")


def _solve(verb: argparse.ArgumentParser) -> None:
    _system(verb)
    verb.add_argument("-o", "--output", metavar="FILE", help="save the solution as NetCDF")


def _sweep(verb: argparse.ArgumentParser) -> None:
    _system(verb)
    verb.add_argument("-o", "--output", metavar="FILE", help="save the sweep as NetCDF")


def _simulate(verb: argparse.ArgumentParser) -> None:
    _system(verb)
    verb.add_argument("-N", dest="size", type=_positive, default=1000, help="number of units (default 1000)")
    verb.add_argument("--trials", type=_positive, default=8, help="number of realisations (default 8)")
    verb.add_argument("--duration", type=_duration, help="measured time, in the declaration's unit")
    verb.add_argument("--dt", type=_duration, help="time step of the integrator")
    _realisations(verb)
    verb.add_argument("-o", "--output", metavar="FILE", help="save the observables as NetCDF")


def _validate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("names", nargs="*", metavar="NAME", help=_NAME_HELP)
    _common(verb)
    verb.add_argument("--all", action="store_true", help="every system of the catalogue")
    tier = "about a minute on two cores, more where networks scatter (5 %% instead of 2 %%)"
    verb.add_argument("--quick", action="store_true", help=tier)
    verb.add_argument("--mutant", metavar="NAME", help="test a deliberately wrong theory")
    _realisations(verb)
    verb.add_argument("--report", metavar="FILE.html", help="write the report")


def _export(verb: argparse.ArgumentParser) -> None:
    _system(verb, json=False)
    verb.add_argument("-o", "--output", metavar="FILE", required=True, help="the file to write")


def _positive(text: str) -> int:
    value = _natural(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def _natural(text: str) -> int:
    if not text.strip().isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def _duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
