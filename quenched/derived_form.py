"""What is derived from a declaration beside its theory: the steps, and the form that they end in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from quenched.rendering import Lines, derivation_rich
from quenched.theory.errors import QuenchedError, nearest
from quenched.theory.record import Form

if TYPE_CHECKING:
    from quenched.theory.derivation import Derivation
    from quenched.theory.model import Model

F = TypeVar("F", bound=Form)


@dataclass(frozen=True, repr=False)
class DerivedForm(Generic[F]):
    """A derivation that ends in one form.

    Attributes
    ----------
    derivation : Derivation
        The steps from the declaration to the form.
    """

    kind: ClassVar[Any]
    derivation: Derivation

    @property
    def model(self) -> Model:
        """The declaration."""
        return self.derivation.model

    @property
    def form(self) -> F:
        """What the steps end in."""
        found: F | None = self.derivation.find(self.kind)
        assert found is not None
        return found

    @property
    def agreement(self) -> Lines:
        """What this and the theory of the declaration have to agree in: nothing, by default."""
        return Lines(())

    def __repr__(self) -> str:
        return f"{self.form.name} of {self.model.name or 'the model'}\n{self.derivation.text()}"

    def __rich__(self) -> Any:
        return derivation_rich(self.derivation)

    def named(self, parameter: Any) -> str:
        """The name of a parameter of the declaration; another one is an error."""
        name, names = str(parameter), [s.name for s in self.model.parameters]
        if name not in names:
            raise QuenchedError(f"no parameter {name!r}: {nearest(name, names)}")
        return name
