"""What the YAML parser complains of, in words that say what to do."""

from __future__ import annotations

from typing import Any

from idi.declaration.mistakes import Mistake

_REMEDIES = (
    ("tab character", "a tab stands where YAML wants spaces; indent with spaces."),
    (
        "mapping values are not allowed",
        "':' cannot stand here; check the indentation, or quote the text that holds ': '.",
    ),
    ("unexpected end of stream", "the quote that opens here is never closed."),
    (
        "unknown escape",
        "this escape is unknown in double quotes; use single quotes, or write \\\\ for a backslash.",
    ),
    (
        "escape",
        "this escape is not valid in double quotes; use single quotes, or write \\\\ for a backslash.",
    ),
    (
        "did not find expected ',' or ']'",
        "the list that opens here with '[' is never closed, or a ',' is missing.",
    ),
    (
        "did not find expected ',' or '}'",
        "the map that opens here with '{' is never closed, or a ',' is missing.",
    ),
    ("expected ',' or ']'", "the list that opens here with '[' is never closed, or a ',' is missing."),
    ("expected ',' or '}'", "the map that opens here with '{' is never closed, or a ',' is missing."),
    (
        "expected '-' indicator",
        "a list's items all begin with '- ' at the same indentation; this line does not.",
    ),
    (
        "did not find expected key",
        "this line does not fit the map above; its indentation must be that of the other keys.",
    ),
    (
        "expected <block end>",
        "this line does not fit the map above; its indentation must be that of the other keys.",
    ),
    ("could not find expected ':'", "a ':' is missing after this key."),
    ("expected node content", "a value was expected here; quote the text if it is meant as one."),
)
_AT_CONTEXT = ("never closed",)


def explain(error: Any, source: str, file: str) -> Mistake:
    """One mistake for what stopped the parser (a yaml.YAMLError)."""
    problem = str(getattr(error, "problem", None) or error).replace("\n", " ")
    context = str(getattr(error, "context", None) or "")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    opened = getattr(error, "context_mark", None)
    if mark is None:
        return Mistake(file, 1, 1, f"this is not valid YAML: {problem}.")
    line, column = mark.line + 1, mark.column + 1
    lines = source.split("\n")
    here = lines[line - 1] if line <= len(lines) else ""
    indentation = here[: len(here) - len(here.lstrip())]
    if "\t" in indentation:
        return Mistake(file, line, indentation.index("\t") + 1, _REMEDIES[0][1])
    if "alias" in context:
        place = (opened.line + 1, opened.column + 1) if opened else (line, column)
        return Mistake(file, *place, "'*' starts an alias in YAML; quote it: \"*\".")
    if "anchor" in context:
        place = (opened.line + 1, opened.column + 1) if opened else (line, column)
        return Mistake(file, *place, "'&' starts an anchor in YAML; quote the text that begins with it.")
    if "cannot start any token" in problem:
        sign = here[column - 1 : column]
        if sign == "\t":
            return Mistake(file, line, column, _REMEDIES[0][1])
        return Mistake(file, line, column, f"text cannot begin with '{sign}' in YAML; quote it.")
    if "directive" in context:
        line, column = (opened.line + 1, opened.column + 1) if opened else (line, column)
        return Mistake(file, line, column, "a line cannot begin with '%' in YAML; quote the text.")
    if "tag" in context or "tag" in problem:
        return Mistake(
            file,
            line,
            column,
            "tags ('!') have no place in a declaration; quote the text if it begins with '!'.",
        )
    if "block scalar" in context:
        return Mistake(
            file,
            line,
            column,
            "after '|' or '>' only a line break can follow; quote the text if it begins with one.",
        )
    if "<block end>" in problem and "collection" in context:
        problem = "expected '-' indicator"
    if "expected ','" in problem and opened is not None:
        reference = _reference(lines, opened.line, mark.line)
        if reference:
            return Mistake(
                file,
                *reference,
                "'${...}' must be quoted inside { } and [ ]: YAML takes its braces for a map.",
            )
    for words, remedy in _REMEDIES:
        if words in problem:
            if any(at in remedy for at in _AT_CONTEXT) and opened is not None:
                line, column = opened.line + 1, opened.column + 1
            return Mistake(file, line, column, remedy)
    return Mistake(file, line, column, f"this is not valid YAML: {problem}.")


def _reference(lines: list[str], first: int, last: int) -> tuple[int, int] | None:
    """The place of a bare `${` in the lines of what never closed."""
    for number in range(first, min(last + 1, len(lines))):
        before, found, _ = lines[number].partition("${")
        if found and before.count('"') % 2 == 0 and before.count("'") % 2 == 0:
            return number + 1, len(before) + 1
    return None
