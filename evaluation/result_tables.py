"""Tables of results: every cell with its confidence interval, significance and context, beside the published numbers."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..utils.files import read_table
from .resampling import Estimate, bootstrap, paired_p_values
from .systems import ScoredSystem

PUBLISHED_FILE = Path(__file__).parent / "published.csv"
"""The file of published numbers."""

COLUMNS = {
    "Accuracy_S": "S/precision",
    "Recall_S": "S/recall",
    "Avg": "S/avg",
    "F_S": "S/f",
    "M-avg": "M-avg",
    "EW": "EW/f",
    "Labels per answer": "labels",
}
"""The corpus figure of each column. Scores are shown in per cent; the last column shows how verbose a system is, which
recall rewards."""


@dataclass(frozen=True)
class Published:
    """A published number; the columns of `published.csv`.

    Attributes:
        system (`str`): The name of the system.
        metric (`str`): One of [`COLUMNS`].
        value (`float`): The number, in per cent.
        source (`str`): Where it is printed.
        n (`int` or `None`): The number of clips; `None` if it is not published.
        grouping (`str`): How synonyms were grouped.
        setting (`str`): One of [`SETTINGS`]; empty if it is not stated.
        note (`str`): What else a reader must know.
    """

    system: str
    metric: str
    value: float
    source: str
    n: int | None
    grouping: str
    setting: str
    note: str


@dataclass(frozen=True)
class Cell:
    """Holds one figure of one row of a table.

    Attributes:
        estimate ([`Estimate`] or `None`):
            The value and its 95 % confidence interval, in per cent (labels per answer: a count). `None` if the row is
            only published.
        p (`float` or `None`):
            The two-sided p-value against the chosen row of the table. `None` for that row itself, and where the clips
            differ.
        context (`tuple[str, str, str]` or `None`): The grouping, the setting and the sample set of the estimate.
        published ([`Published`] or `None`): The published number beside it.
        difference (`str`): How the published number was made otherwise, such as "other split and grouper".
    """

    estimate: Estimate | None
    p: float | None
    context: tuple[str, str, str] | None
    published: Published | None = None
    difference: str = ""


@dataclass(frozen=True)
class ResultTable:
    """Holds a table of results; [`result_table`] makes it.

    Attributes:
        columns (`tuple[str, ...]`): The headings, some of [`COLUMNS`].
        rows (`list[tuple[str, str, list[Cell]]]`): The system, its mark and its cells, for each row.
        against (`str` or `None`): The row that p-values are computed against.
        draws (`int`): The number of bootstrap resamples and of random swaps.
        warnings (`list[str]`): What a reader must know, such as the number of answers without groups.
    """

    columns: tuple[str, ...]
    rows: list[tuple[str, str, list[Cell]]]
    against: str | None
    draws: int
    warnings: list[str] = field(default_factory=list)

    def render(self, form: str) -> str:
        """Returns the table as text.

        Args:
            form (`str`): One of `"markdown"`, `"latex"` and `"csv"`.

        Returns:
            `str`: The table with a legend; CSV has one line for each cell instead.

        Raises:
            ValueError: if the form is unknown.
        """
        renderers = {"markdown": _markdown, "latex": _latex, "csv": _csv}
        if form not in renderers:
            raise ValueError(f"form {form!r}: expected one of {', '.join(renderers)}")
        return renderers[form](self)


def read_published(path: str | Path = PUBLISHED_FILE, table: int | None = None) -> list[Published]:
    """Reads published numbers of the paper and of the tables that it is compared with.

    Args:
        path (`str` or `Path`, *optional*): A file with the columns of `published.csv`, which is the default.
        table (`int`, *optional*): The number of the paper's table, 1 or 2. By default all numbers are read.

    Returns:
        `list[Published]`: The numbers.

    Raises:
        ValueError: if the file cannot be read.

    Example:

    ```python
    >>> from microemo.evaluation.result_tables import read_published

    >>> {entry.metric for entry in read_published(table=1) if entry.system == "MicroEmo"} >= {"Accuracy_S", "Recall_S"}
    True
    ```"""
    entries = []
    for row in read_table(Path(path)):
        if table is None or row["table"] == str(table):
            n = int(row["n"]) if row["n"] else None
            entry = {key: row[key] for key in ("system", "metric", "source", "grouping", "setting", "note")}
            entries.append(Published(value=float(row["value"]), n=n, **entry))
    return entries


def result_table(
    systems: Sequence[ScoredSystem],
    against: str | None = None,
    published: Sequence[Published] = (),
    columns: Sequence[str] = tuple(COLUMNS),
    draws: int = 1000,
    seed: int = 0,
) -> ResultTable:
    """Makes a table of results with bootstrap confidence intervals and significance.

    Args:
        systems (`Sequence[ScoredSystem]`): The rows, in order.
        against (`str`, *optional*): The name of the row that every other row is tested against.
        published (`Sequence[Published]`, *optional*):
            Published numbers. Those of a system without a row get a row of their own.
        columns (`Sequence[str]`, *optional*): The headings, some of [`COLUMNS`]. By default all.
        draws (`int`, *optional*, defaults to 1000): The number of bootstrap resamples and of random swaps.
        seed (`int`, *optional*, defaults to 0): The seed of both.

    Returns:
        [`ResultTable`]: The table.

    Raises:
        ValueError: if a column is unknown, or if `against` is not the name of exactly one row.

    Example:

    ```python
    >>> from microemo.evaluation.emotion_wheel import wheel_scores
    >>> from microemo.evaluation.result_tables import result_table
    >>> from microemo.evaluation.systems import ScoredSystem

    >>> sheet = wheel_scores(["clip_1"], truth=["happy"], predicted=["joyful"])
    >>> table = result_table([ScoredSystem("My model", "subtitle", "my clips", sheet)], columns=["EW"])
    >>> print(table.render("markdown").splitlines()[2])
    | My model | 100.0 [100.0, 100.0] (a) |
    ```"""
    if unknown := [column for column in columns if column not in COLUMNS]:
        raise ValueError(f"columns {', '.join(unknown)}: expected some of {', '.join(COLUMNS)}")
    base = None
    if against is not None:
        named = [system for system in systems if system.system.lower() == against.lower()]
        if len(named) != 1:
            have = ", ".join(system.system for system in systems)
            raise ValueError(f"against {against!r}: {len(named)} rows have that name, expected one; there are {have}")
        base = named[0]
    rows: list[tuple[str, str, list[Cell]]] = []
    warnings: list[str] = []
    for system in systems:
        estimates = bootstrap(system.sheet, draws, seed)
        other = None if base is None or system is base else base
        same_clips = other is not None and set(system.sheet.names) == set(other.sheet.names)
        p_values = paired_p_values(system.sheet, other.sheet, draws, seed) if other is not None and same_clips else {}
        cells = []
        for column in columns:
            context = _context(system, column)
            entry = _find(published, system, column)
            difference = _difference(entry, context[0], len(system.sheet.names)) if entry else ""
            estimate = _in_percent(estimates[COLUMNS[column]], column)
            cells.append(Cell(estimate, p_values.get(COLUMNS[column]), context, entry, difference))
        rows.append((system.system, system.mark, cells))
        warnings += [*system.sheet.notes.get("differs", ()), *_warnings(system)]
        if other is not None and not same_clips:
            warnings.append(f"{system.system}: not the clips of {other.system}, so no significance")

    def differences(entry: Published | None) -> str:
        """Returns how a number without a row of its own differs from the table's first row."""
        if entry is None or not systems:
            return ""
        return _difference(entry, _context(systems[0], entry.metric)[0], len(systems[0].sheet.names))

    shown = {system.system.lower() for system in systems}
    for name in dict.fromkeys(entry.system for entry in published if entry.system.lower() not in shown):
        entries = {entry.metric: entry for entry in published if entry.system == name}
        if not entries.keys() & set(columns):
            continue
        cells = [Cell(None, None, None, entries.get(column), differences(entries.get(column))) for column in columns]
        rows.append((name, "published only", cells))
    return ResultTable(tuple(columns), rows, base.system if base else None, draws, list(dict.fromkeys(warnings)))


def _in_percent(estimate: Estimate, column: str) -> Estimate:
    scale = 1.0 if column == "Labels per answer" else 100.0
    return Estimate(estimate.value * scale, estimate.low * scale, estimate.high * scale)


def _context(system: ScoredSystem, column: str) -> tuple[str, str, str]:
    notes = system.sheet.notes
    figure = COLUMNS[column]
    grouping = "count" if figure == "labels" else notes["grouping"] if figure.startswith("S/") else notes["wheels"]
    if notes.get("extraction", "as listed") != "as listed":
        grouping = f"{grouping}; labels by {notes['extraction']}"
    return str(grouping), system.setting, f"{system.samples}, {len(system.sheet.names)} clips"


def _find(published: Sequence[Published], system: ScoredSystem, column: str) -> Published | None:
    wanted = (system.system.lower(), column)
    fits = (e for e in published if (e.system.lower(), e.metric) == wanted and e.setting in ("", system.setting))
    return next(fits, None)


def _difference(entry: Published, grouping: str, n: int) -> str:
    other = [what for what, differs in (("split", entry.n != n), ("grouper", entry.grouping != grouping)) if differs]
    return f"other {' and '.join(other)}" if other else "same split and grouper"


def _warnings(system: ScoredSystem) -> list[str]:
    notes, name = system.sheet.notes, f"{system.system} ({system.setting})"
    counted = {
        "ungrouped": "samples without a readable grouping answer",
        "unmerged": "pairs of answers without a readable merged text, taken as empty",
        "unreadable": "answers without readable labels from the model, taken as empty",
        "empty_truth": "samples without a truth label, not scored",
    }
    warnings = [f"{name}: {len(notes[key])} {what}" for key, what in counted.items() if notes.get(key)]
    warnings.append(
        f"{name}: outside the vocabulary {notes['out_of_vocabulary_predicted']:.1%} of the predicted and "
        f"{notes['out_of_vocabulary_truth']:.1%} of the truth labels"
    )
    return warnings


LegendKey = tuple[str, ...]
"""What a letter stands for: the context of a cell, or "published" and the source of a number."""


def _stars(p: float | None) -> str:
    return "" if p is None or math.isnan(p) else "**" if p < 0.01 else "*" if p < 0.05 else ""


def _letters(table: ResultTable) -> dict[LegendKey, str]:
    """Returns a letter for each context and each published source, in order of appearance."""
    letters: dict[LegendKey, str] = {}
    for _, _, cells in table.rows:
        for cell in cells:
            keys: list[LegendKey] = [cell.context] if cell.context else []
            if cell.published:
                keys.append(_source(cell.published))
            for key in keys:
                if key not in letters:
                    index = len(letters)
                    letters[key] = (chr(96 + index // 26) if index >= 26 else "") + chr(97 + index % 26)
    return letters


def _source(entry: Published) -> LegendKey:
    clips = f"{entry.n} clips" if entry.n else "split unpublished"
    return ("published", entry.source, entry.grouping, entry.setting or "setting not stated", clips, entry.note)


def _legend(table: ResultTable, letters: dict[LegendKey, str]) -> list[str]:
    lines = [
        f"Brackets: 95 % bootstrap interval, {table.draws} draws. Scores in per cent; grouping, setting and sample set of a cell by letter."
    ]
    if table.against:
        lines.append(
            f"* p < 0.05, ** p < 0.01 against {table.against} (paired approximate randomisation, {table.draws} swaps, "
            "not corrected for the number of rows)."
        )
    for key, letter in letters.items():
        if key[0] == "published":
            lines.append(f"({letter}) published: {'; '.join(part for part in key[1:] if part)}.")
        else:
            lines.append(f"({letter}) grouping {key[0]}; setting {key[1]}; sample set {key[2]}.")
    return lines + table.warnings


def _with_published(table: ResultTable) -> list[tuple[int, str]]:
    """Returns the indices of the columns that have a published number somewhere, with their extra heading."""
    return [
        (index, f"{column}, published")
        for index, column in enumerate(table.columns)
        if any(cells[index].published for _, _, cells in table.rows)
    ]


def _texts(
    table: ResultTable, letters: dict[LegendKey, str], note: Callable[[str], str]
) -> tuple[list[str], list[list[str]]]:
    """Returns heading and rows of cell texts; `note(letter)` writes a reference to the legend."""
    extra = dict(_with_published(table))
    heading = ["System"]
    for index, column in enumerate(table.columns):
        heading += [column] + ([extra[index]] if index in extra else [])
    rows = []
    for system, mark, cells in table.rows:
        row = [f"{system} ({mark})" if mark else system]
        for index, cell in enumerate(cells):
            if cell.estimate is None or cell.context is None:
                row.append("–")
            else:
                digits = 2 if table.columns[index] == "Labels per answer" else 1
                value, low, high = (
                    f"{x:.{digits}f}" for x in (cell.estimate.value, cell.estimate.low, cell.estimate.high)
                )
                row.append(f"{value} [{low}, {high}]{_stars(cell.p)}{note(letters[cell.context])}")
            if index in extra:
                entry = cell.published
                row.append(f"{entry.value:.2f} {cell.difference}{note(letters[_source(entry)])}" if entry else "–")
        rows.append(row)
    return heading, rows


def _markdown(table: ResultTable) -> str:
    letters = _letters(table)
    heading, rows = _texts(table, letters, lambda letter: f" ({letter})")
    escape = {ord("*"): r"\*", ord("|"): r"\|", ord("_"): r"\_"}
    lines = ["| " + " | ".join(text.translate(escape) for text in row) + " |" for row in [heading, *rows]]
    lines.insert(1, "|" + "---|" * len(heading))
    return "\n".join([*lines, "", *(f"- {line.translate(escape)}" for line in _legend(table, letters)), ""])


def _latex(table: ResultTable) -> str:
    letters = _letters(table)
    heading, rows = _texts(table, letters, lambda letter: f"@{letter}@")

    def escape(text: str) -> str:
        escapes = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "–": "--"}
        escaped = "".join(escapes.get(character, character) for character in text)
        for letter in letters.values():
            escaped = escaped.replace(f"@{letter}@", rf"\textsuperscript{{{letter}}}")
        return escaped

    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{l" + "r" * (len(heading) - 1) + "}",
        r"\toprule",
        " & ".join(map(escape, heading)) + r" \\",
        r"\midrule",
        *(" & ".join(map(escape, row)) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        "",
        *(rf"\par\footnotesize {escape(line)}" for line in _legend(table, letters)),
    ]
    return "\n".join(lines) + "\n"


def _csv(table: ResultTable) -> str:
    """Writes one line for each cell, so that each carries its context in words."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "system",
            "mark",
            "metric",
            "value",
            "low",
            "high",
            "p",
            "against",
            "grouping",
            "setting",
            "samples",
            "published",
            "difference",
            "published_source",
            "published_note",
        ]
    )
    for system, mark, cells in table.rows:
        for column, cell in zip(table.columns, cells, strict=True):
            if cell.estimate is None and cell.published is None:
                continue
            numbers = ["", "", ""]
            if cell.estimate is not None:
                numbers = [f"{x:.6f}" for x in (cell.estimate.value, cell.estimate.low, cell.estimate.high)]
            p = "" if cell.p is None else f"{cell.p:.6f}"
            entry = cell.published
            published = [entry.value, cell.difference, entry.source, entry.note] if entry else ["", "", "", ""]
            against = (table.against or "") if cell.p is not None else ""
            writer.writerow([system, mark, column, *numbers, p, against, *(cell.context or ("", "", "")), *published])
    return text.getvalue()
