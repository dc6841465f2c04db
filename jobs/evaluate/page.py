"""The report as one HTML file: the tables of the Markdown page, and plots as SVG inside it."""

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.evaluate.report import (
    Report,
    accuracy_rows,
    describe_policy,
    describe_sampling,
    outcome_rows,
    replace_file,
)
from prime.evaluation.intervals import Estimate
from prime.evaluation.summary import SetSummary

HTML = "report.html"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
.plots { display: flex; flex-wrap: wrap; gap: 1rem }
.scroll { overflow-x: auto }
@media (prefers-color-scheme: dark) {
  body { background: #161616; color: #e8e8e8 } th, td { border-color: #444 } svg { background: #fff }
}
"""


def write_page(report: Report, folder: Path) -> None:
    """`report.html`, replaced whole."""
    policy = describe_policy(report.identity)
    replace_file(
        folder / HTML,
        page(
            f"Evaluation of {policy}",
            [
                f"<p>{html.escape(describe_sampling(report.identity))}</p>",
                html_table(accuracy_rows(report)),
                '<div class="plots">',
                *(svg for name, found in report.sets.items() for svg in _plots(report.titles[name], found)),
                "</div>",
                html_table(outcome_rows(report)),
            ],
        ),
    )


def page(title: str, body: Sequence[str]) -> str:
    """A whole document."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its heading."""
    heading, *body = rows
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in heading) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return '<div class="scroll"><table>' + "\n".join(lines) + "</table></div>"


def plot(title: str, x_label: str, curves: Mapping[str, Mapping[int, Estimate]], *, log: bool = False) -> str:
    """Accuracy against something, with the 95 % interval of every curve as a band; SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        xs = list(curve)
        (line,) = axes.plot(xs, [curve[x].mean for x in xs], marker=".", label=name)
        axes.fill_between(
            xs, [curve[x].low for x in xs], [curve[x].high for x in xs], color=line.get_color(), alpha=0.12
        )
    if log:
        axes.set_xscale("log", base=2)
    axes.set(title=title, xlabel=x_label, ylabel="accuracy", ylim=(0, 1))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _plots(title: str, found: SetSummary) -> list[str]:
    drawn = {name: curve for name, curve in found.curves.items() if len(curve) > 1}
    return [plot(title, "samples (N)", drawn, log=True)] if drawn else []
