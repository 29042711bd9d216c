"""Options as dataclasses: values, defaults, help and refusals, whatever the types of the fields."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec.cli.parsing import parse
from encdec.types import InputError


@dataclass(frozen=True)
class Base:
    """A dataclass that another one inherits from."""

    rate: float | None = None
    """Inherited help."""


@dataclass(frozen=True)
class Inner(Base):
    """Options of the second paragraph's group.

    This is not shown.
    """

    names: tuple[str, ...] = ("a",)
    """Help that goes on
    in a second line."""
    columns: tuple[int, int] = (1, 2)
    amount: int | float = 3
    kind: Literal["one", "two"] = "one"

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise InputError(f"amount = {self.amount} cannot be used")


@dataclass(frozen=True)
class Options:
    """All options of a command."""

    run: Annotated[Positional[Path], arg(metavar="RUN", help="Own help.")]
    inner: Annotated[Inner, OmitArgPrefixes] = field(default_factory=Inner)
    bounds: tuple[int, int] | None = None
    flag: bool = False


def parsed(*arguments: str, default: Options | None = None) -> Options:
    return parse(Options, arguments, "encdec test", "Tests.", default)


def test_fields_have_their_types_and_defaults() -> None:
    assert parsed("here") == Options(Path("here"))
    assert parsed(
        *("here", "--names", "x", "y", "--columns", "3", "1", "--amount", "0.5", "--rate", "2"),
        *("--kind", "two", "--bounds", "4", "5", "--flag"),
    ) == Options(Path("here"), Inner(2.0, ("x", "y"), (3, 1), 0.5, "two"), (4, 5), True)
    amount = parsed("here", "--amount", "7").inner.amount
    assert (amount, type(amount)) == (7, int)


def test_an_instance_gives_other_defaults() -> None:
    default = Options(Path("there"), Inner(names=("z",), amount=9))
    assert parsed(default=default) == default
    assert parsed("--names", "x", default=default).inner == Inner(names=("x",), amount=9)


def test_help_comes_from_docstrings_and_marks(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parsed("--help")
    assert not stop.value.code
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for text in (
        *("Own help.", "Inherited help.", "Help that goes on in a second line."),
        *("Options of the second paragraph's group.", "(default: 1 2)", "{one,two}"),
    ):
        assert text in shown
    assert "This is not shown." not in shown
    assert "--rate FLOAT" in shown
    assert "--bounds INT INT" in shown
    for nothing in ("None", "(default: )"):
        assert nothing not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["here", "--colums", "1", "2"], "unknown option --colums; did you mean --columns?"),
        (["--colums", "1"], "unknown option --colums"),
        (["here", "--zebra", "1"], "--zebra (--help, --rate, --names"),
        (["here", "--amount", "x"], "--amount 'x' cannot be used: it must be a number"),
        (["here", "--columns", "1", "x"], "--columns '1' 'x' cannot be used: it must be INT INT"),
        (["here", "there"], "unexpected argument 'there'"),
        (["here", "--columns", "1"], "--columns"),
        (["here", "--kind", "three"], "three"),
        (["here", "--amount", "-1"], "amount = -1 cannot be used"),
        ([], "RUN"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parsed(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
