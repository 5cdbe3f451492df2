"""Prepare the arguments of a command for Hydra and for argparse, and print an error as one line with an exit status."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from suites.cli.output import TolerantOutput
from suites.cli.path_arguments import quoted_path
from suites.records.suite_version import CODE
from suites.schema.config import RunConfig
from suites.schema.enums import Rank
from suites.schema.refusals import Refused, did_you_mean, is_file, nearest, shortened
from suites.suite import BadSuite
from suites.text import one_line

REFUSED, INTERRUPTED = 2, 130

PROGRAM = "inference-suites"
"""Name of the installed command; see suites/cli/command.py."""

FLAGS = ("--multirun", "--cfg", "--resolve", "--package", "--info", "--config-dir", "--version", "--wide",
         "-m", "-c", "-p", "-i", "-cd")  # fmt: skip
"""Flags of Hydra, and --wide, which `suites.run` removes before Hydra reads them.

--experimental-rerun is missing because it reads a pickle file, which can run code."""

VALUES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--package": (),
    "--config-dir": (),
}
"""Flags that take a value, with the allowed values. An empty tuple allows any value."""

SHORT = {"-m": "--multirun", "-c": "--cfg", "-p": "--package", "-i": "--info", "-cd": "--config-dir"}

LONGEST = 1500
"""Longest refusal in characters."""


class CommandParser(argparse.ArgumentParser):
    """Parser of a command's arguments. Its help has examples. It raises `Refused` for bad arguments.

    Args:
        command: Name of the command, such as "batch".
        description: One sentence about the command, and details after an empty line.
        examples: Arguments of example commands.
    """

    def __init__(self, command: str, description: str, examples: Sequence[str]) -> None:
        name = program(command)
        super().__init__(
            prog=name,
            description=description,
            epilog="\n".join(["examples:", *(f"  {name} {example}".rstrip() for example in examples)]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
        )
        self._positionals.title = "arguments"
        self.add_argument_group("help").add_argument("-h", "--help", action="help", help="show this help")

    def format_help(self) -> str:
        """Return the help: the description, the usage, then the options in groups and the examples."""
        purpose = (self.description or "").partition("\n\n")[0]
        self._action_groups.sort(key=lambda group: group.title == "help")  # The help option comes last.
        usage, _, rest = super().format_help().partition("\n\n")
        return f"{purpose}\n\n{usage}\n\n{rest.removeprefix(purpose).lstrip()}"

    def error(self, message: str) -> NoReturn:
        """Raise the refusal of arguments that argparse cannot parse."""
        if unrecognized := re.search("unrecognized arguments: (.*)", message, re.DOTALL):
            self.refuse_options(unrecognized.group(1).split())
            raise Refused(f"too many arguments: {unrecognized.group(1)}; see {self.prog} --help")
        if missing := re.search("arguments are required: (.*)", message):
            raise Refused(f"{missing.group(1)} is missing; see {self.prog} --help")
        if invalid := re.search(r"argument (\S+): invalid (int|float) value: '(.*)'", message):
            option, kind, value = invalid.groups()
            raise Refused(f"{option} {value} must be a {'whole number' if kind == 'int' else 'number'}")
        raise Refused(f"{message}; see {self.prog} --help")

    def refuse_options(self, words: Sequence[str]) -> None:
        """Raise `Refused` if a word is an option, because this parser does not have it."""
        helps = {flag: action.help or "" for flag, action in self._option_string_actions.items()}
        for word in words:
            if word.startswith("-"):
                flag = word.partition("=")[0]
                near = nearest(flag.lstrip("-"), [name[2:] for name in helps if name.startswith("--")])
                takes_keys = any(action.metavar == "key=value" for action in self._actions)
                key_hint = _key_hint(flag) if takes_keys else ""
                hint = key_hint or (f"did you mean --{near}? ({helps[f'--{near}']}) " if near else "")
                raise Refused(f"there is no option {shortened(flag)}; {hint}choices: {', '.join(helps)}")


def add_rank_option(parser: argparse.ArgumentParser) -> None:
    """Add --rank, the time by which rows are compared."""
    parser.add_argument(
        "--rank", choices=[*Rank.__members__], default=RunConfig.rank.name,
        help="time by which the fastest row is found: gpu (a step on the GPU, on a CPU host time) or request (from "
        "token ids to the answer in host memory); default %(default)s",
    )  # fmt: skip


def program(command: str) -> str:
    """Return the command as this process was started, such as "python -m suites.advise", for its help."""
    if os.path.basename(sys.argv[0]) == PROGRAM:
        return f"{PROGRAM} {command}"
    return f"python -m suites.{command.replace('-', '_')}"


def overrides(arguments: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
    """Return `arguments` as Hydra must read them.

    Flags move to the front, because Hydra ignores all words after a flag between overrides. `backend=null` is quoted,
    because Hydra reads null as a missing value. Paths are quoted.

    Raises:
        Refused: A flag is not in `flags`, has no value or contradicts another flag, or an override could run code.
    """
    values, words = _flags(arguments, flags)
    sweeping = "--multirun" in values
    for word in words:
        _check_no_code(word)
    flag_words = [word for name, value in values.items() for word in ([name] if value is None else [f"{name}={value}"])]
    return [*flag_words, *(quoted_path(_quoted(word), sweeping) for word in words)]


def _flags(arguments: Sequence[str], allowed_flags: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """Return the flags by their long names with their values, and all other words."""
    values: dict[str, str | None] = {}
    words: list[str] = []
    remaining = list(arguments)
    while remaining:
        word = remaining.pop(0)
        if not word.startswith("-"):
            words.append(word)
            continue
        flag, equal, value = word.partition("=")
        if flag not in allowed_flags:
            hint = _key_hint(flag) or did_you_mean(flag, allowed_flags)
            raise Refused(f"there is no flag {shortened(word)}; {hint}choices: {', '.join(allowed_flags)}")
        name = SHORT.get(flag, flag)
        values[name] = _value(flag, value if equal else None, remaining) if name in VALUES else None
        if equal and name not in VALUES:
            raise Refused(f"{flag} takes no value; leave out ={shortened(value)}")
    modes = [name for name in ("--multirun", "--cfg", "--info") if name in values]
    if len(modes) > 1:
        if modes[:2] == ["--multirun", "--cfg"]:
            raise Refused("--cfg shows the configuration of one cell; leave out -m")
        raise Refused(f"{modes[0]} and {modes[1]} exclude one another; leave one out")
    if is_file(Path(values.get("--config-dir") or "") / "run.yaml"):
        raise Refused(
            f"--config-dir={values['--config-dir']} has a run.yaml, which would replace the project's; rename it"
        )
    if "--resolve" in values and "--cfg" not in values:
        raise Refused("--resolve works with --cfg only, e.g. --cfg job --resolve")
    return values, words


def _value(flag: str, value: str | None, remaining: list[str]) -> str:
    """Return the value of a flag. The value may be the next word."""
    allowed = VALUES[SHORT.get(flag, flag)]
    if value is None and remaining and (remaining[0] in allowed or not (allowed or remaining[0].startswith("-"))):
        return remaining.pop(0)
    if value is None and "all" in allowed and SHORT.get(flag, flag) == "--info":
        return "all"
    if not value or (allowed and value not in allowed):
        choices = f"one of {', '.join(allowed)}" if allowed else "a value"
        raise Refused(f"{flag} needs {choices}, e.g. {flag} {allowed[0] if allowed else 'VALUE'}")
    return value


MOST_MEANT = 3
"""Largest number of keys in one question."""


def _key_hint(flag: str) -> str:
    """Return a question with the keys of the configuration that `flag` may name; "" if it names none, or too many."""
    from suites.cli.schema_keys import known_keys
    from suites.schema.run_schema import run_schema

    name = flag.lstrip("-").replace("-", "_")
    keys = [key for key in known_keys(run_schema()) if name in (key, key.rpartition(".")[2])]
    meant = [name] if name in keys else keys
    return f"did you mean {' or '.join(f'{key}=VALUE' for key in meant)}? " if 0 < len(meant) <= MOST_MEANT else ""


def _check_no_code(word: str) -> None:
    """Refuse an override of Hydra's own settings, because these can name functions to import and call."""
    key = re.sub(r"^[+~]+", "", word).partition("=")[0].strip()
    if re.match(r"hydra\b", key) or "@" in key:
        raise Refused(f"{shortened(key)} cannot be set here: Hydra's own settings can make it run code")
    if re.search(r"(^|[.{,\s])_target_\s*[:=]", word):
        raise Refused(f"{shortened(word)}: _target_ cannot be set here, because Hydra can run the code that it names")


def _quoted(word: str) -> str:
    return re.sub(r"(?<=[=,])null(?=,|$)", '"null"', word) if word.startswith("backend=") else word


def run_guarded(work: Callable[[], int]) -> int:
    """Run `work` and return its exit status. An exception is printed in one line and mapped to its exit status."""
    with TolerantOutput() as output:
        status = _guarded(work)
    return output.status(status)


def _guarded(work: Callable[[], int]) -> int:
    # These signals count as an interrupt. The worker of a cell must end with this process and free the device.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1) ignores SIGHUP.
            signal.signal(number, signal.default_int_handler)
    # Hydra then raises an exception instead of printing several lines with advice on tracebacks.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    for stream in (sys.stdout, sys.stderr):
        # Tables contain letters such as the Greek mu. A terminal without UTF-8 cannot show them.
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError):
                stream.reconfigure(errors="backslashreplace")
    try:
        return work()
    except (Refused, BadSuite) as reason:
        message = str(reason)
    except KeyboardInterrupt:
        print("interrupted: measured cells are kept; run the same command to continue", file=sys.stderr)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        from suites.cli.dependencies import not_installed  # Importing it ends this process if it can name the library.

        if error.name is None or error.name.partition(".")[0] in CODE:
            raise
        message = not_installed(error.name)
    except Exception as error:
        from suites.cli.hydra_errors import composition_errors, explain

        if isinstance(error, composition_errors()):
            message = explain(error)
        elif isinstance(error, OSError) and error.filename is not None and not isinstance(error, BrokenPipeError):
            message = f"{error.filename}: {error.strerror}; check that it exists and that you have permission to use it"
        else:
            raise
    print(f"refused: {one_line(shortened(message, LONGEST))}", file=sys.stderr)
    return REFUSED
