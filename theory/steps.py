"""What the derivations of all readings have in common: steps taken from a declaration, kept in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from quenched.theory.errors import QuenchedError
from quenched.theory.record import Form, Line, Rule, Step, row

F = TypeVar("F", bound=Form)


@dataclass(frozen=True)
class Steps:
    """A declaration and the steps taken from it.

    Attributes
    ----------
    model : the declaration
    steps : the record, in order
    refusals : steps that do not apply to this declaration, each (title, reason)
    """

    model: Any
    steps: tuple[Step, ...] = ()
    refusals: tuple[tuple[str, str], ...] = ()

    # -- what a reading says of itself ----------------------------------------------------------------------
    @property
    def declaration(self) -> Form:
        """The form that everything starts from."""
        raise NotImplementedError

    @property
    def solvable(self) -> bool:
        """Whether the steps reached a problem that a solver takes."""
        raise NotImplementedError

    @property
    def equations(self) -> list[Line]:
        """The self-consistency equations, in the last form reached."""
        raise NotImplementedError

    # -- what has been reached ------------------------------------------------------------------------------
    @property
    def form(self) -> Form:
        """The form that the last step reached (the declaration itself before any step)."""
        return self.steps[-1].after if self.steps else self.declaration

    @property
    def refusal(self) -> str | None:
        """Why there is no solvable problem, or None if there is one."""
        if self.solvable:
            return None
        return self.refusals[-1][1] if self.refusals else "the derivation was stopped before a solvable problem"

    def find(self, kind: type[F]) -> F | None:
        """The latest form of a kind, or None."""
        return next((s.after for s in reversed(self.steps) if isinstance(s.after, kind)), None)

    def titles(self) -> list[str]:
        return [s.title for s in self.steps]

    # -- taking steps ---------------------------------------------------------------------------------------
    def apply(self, rule: Rule, before: Form | None = None) -> Self:
        """Take one step with any rule, from the present form unless another is given."""
        step = Step(rule, before if before is not None else self.form)
        _ = step.after  # compute now, so that a refusal is raised here
        return replace(self, steps=(*self.steps, step))

    def refuse(self, title: str, reason: str) -> Self:
        """Record that a step does not apply."""
        return replace(self, refusals=(*self.refusals, (title, reason)))

    def _need(self, kind: type[F], verb: str) -> F:
        found = self.find(kind)
        if found is None:
            raise QuenchedError(
                f"{verb} needs a form that is not reached yet: {kind.name}; steps so far: {self.titles()}"
            )
        return found

    def _take(self, rule: Rule, kind: type[Form], verb: str) -> Self:
        """Take a step from the latest form of a kind."""
        return self.apply(rule, self._need(kind, verb))

    # -- print ----------------------------------------------------------------------------------------------
    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def text(self) -> str:
        """All steps in plain text, numbered from 0 (the declaration)."""
        blocks = ["0. Declaration\n" + "\n".join(f"  {line.text}" for line in self.declaration.lines())]
        blocks += [f"{k}. {step.text()}" for k, step in enumerate(self.steps, start=1)]
        blocks += [f"not applicable: {title}: {reason}" for title, reason in self.refusals]
        return "\n".join(blocks)

    def latex(self) -> str:
        """All steps in LaTeX, ready for a paper."""
        head = "\\paragraph{Declaration.}\n\\begin{align}\n"
        head += " \\\\\n".join(row(line) for line in self.declaration.lines()) + "\n\\end{align}"
        return "\n\n".join([head, *(step.latex() for step in self.steps)])

    def bibtex(self) -> str:
        """The sources of the steps taken, as BibTeX entries."""
        from quenched.theory.sources import bibtex

        return bibtex(key for step in self.steps for key in step.source.split(",") if key)

    def __repr__(self) -> str:
        return self.text()


__all__ = ["Steps"]
