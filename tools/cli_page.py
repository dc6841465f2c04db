"""The generated blocks of `docs/cli.md`: every command with its arguments, from the parser of `primectl`.

The page does not use argparse's own help text, which differs between versions of Python and with the terminal's width.
"""

import argparse
from collections.abc import Iterator, Mapping

from primectl.main import build_parser
from tools.markdown import code, table


def cli_blocks() -> dict[str, str]:
    """Name to text of each generated block.

    Raises:
        ValueError: an argument has no help text, or one that does not name its default.
    """
    commands = _commands(build_parser())
    contents = table(
        ("command", "does"),
        [(f"[`{name}`](#primectl-{name})", each.description or "") for name, each in commands.items()],
    )
    return {"contents": contents, "commands": "\n\n".join(_section(name, each) for name, each in commands.items())}


def _commands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    [commands] = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    return commands.choices


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    actions = [each for each in parser._actions if not isinstance(each, argparse._HelpAction)]
    rows = [(_shown(each), _help(name, each)) for each in actions]
    description = parser.description or ""
    parts = [
        f"## `primectl {name}`",
        f"{description[:1].upper()}{description[1:]}{'' if description.endswith('?') else '.'}",
        f"    primectl {' '.join([name, *_usage(actions)])}",
    ]
    if rows:
        parts.append(table(("argument", "meaning"), rows))
    return "\n\n".join(parts)


def _usage(actions: list[argparse.Action]) -> Iterator[str]:
    """What must be given, in order, and whether there is more."""
    for each in actions:
        if not each.option_strings:
            yield _value(each)
        elif each.required:
            yield f"{each.option_strings[-1]} {_value(each)}"
    if any(each.option_strings and not each.required for each in actions):
        yield "[options]"


def _shown(action: argparse.Action) -> str:
    value = _value(action)
    return code(" ".join([*action.option_strings[-1:], *([value] if value else [])]))


def _value(action: argparse.Action) -> str:
    """An argument's value as a usage line writes it: `FILE`, `FILE ...`, `[key=value ...]`; empty for a switch."""
    if action.nargs == 0:
        return ""
    name = f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.metavar or action.dest.upper()
    match action.nargs:
        case "*":
            return f"[{name} ...]"
        case "+":
            return f"{name} ..."
        case _:
            return str(name)


def _help(command: str, action: argparse.Action) -> str:
    argument = action.option_strings[-1] if action.option_strings else action.dest
    if not action.help:
        raise ValueError(f"primectl {command} {argument} has no help text; give it one")
    if action.default and "%(default)" not in action.help:
        raise ValueError(f"the help text of primectl {command} {argument} must name its default, by %(default)s")
    text = action.help % vars(action)
    return f"{text} (required)" if action.option_strings and action.required else text
