"""Write docs/paper.md; all its numbers come from the result files of `make paper`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import Template

from yarncli.cli.perplexity_print import interval_text
from yarncli.evaluation.losses import PerplexityReport, PerplexityResult, read_perplexity_report
from yarncli.evaluation.regress import RegressReport, read_regress_report
from yarncli.evaluation.report import LengthResult, read_report
from yarncli.evaluation.sentences import price_sentence
from yarncli.evaluation.statistics import Mean, Sums, mean
from yarncli.figures.results import plot_results
from yarncli.rope.formulas import get_mscale

YARN = "yarn"
# A row of a table: its name, the run, the setting in it.
Row = tuple[str, str, str]
# A cell of a table: its value, and its text.
Cell = tuple[float, str]
DEMO_ROWS: tuple[Row, ...] = (
    ("no scaling", "demo", "none"),
    ("linear (PI) ×8", "demo", "linear"),
    ("ntk ×8", "demo", "ntk"),
    ("ntk-by-parts ×8", "demo", "ntk-by-parts"),
    ("yarn ×8", "demo", YARN),
    ("yarn ×8, fine-tuned", "tuned", "as it is"),
    ("fine-tuned, scaling off", "tuned", "control"),
)
_MODELS = {"demo": "demo", "smollm2": "SmolLM2"}
SHORT_RUNS = ("short-demo", "short-smollm2-2", "short-smollm2-4", "short-smollm2-8")


class Page:
    """The results of one directory, and the parts of the page that show them."""

    def __init__(self, results: Path) -> None:
        """Results are read when they are needed.

        Args:
            results: the directory of the result files.
        """
        self.results = results

    def _path(self, name: str) -> Path:
        return self.results / f"{name}.jsonl"

    def perplexity(self, name: str) -> PerplexityReport:
        """A run of perplexity."""
        return read_perplexity_report(self._path(name))

    def regress(self, name: str) -> RegressReport:
        """A run of regress."""
        return read_regress_report(self._path(name))

    def prompts(self, name: str) -> int:
        """Number of prompts for each length in a run of check-passkey."""
        settings = read_report(self._path(name)).settings
        return int(settings["depths"]) * int(settings["trials"])

    def sliding_demo(self) -> str:
        """The demo's counterpart of Table 1: rows are settings, columns windows."""
        runs = {name: self.perplexity(f"sliding-{name}") for name in ("demo", "tuned")}
        found = [
            (label, {r.length: _perplexity(r) for r in runs[run].results(setting)})
            for label, run, setting in DEMO_ROWS
        ]
        return _by_length(found, min)

    def sliding_smollm2(self) -> str:
        """SmolLM2 with the paper's own stride, and both averages."""
        report = self.perplexity("sliding-smollm2")
        rows = [
            [name, f"{r.length:,}", _perplexity(r)[1],
             f"{r.window_mean_perplexity:.4g}", f"{r.tokens:,}"]
            for name in report.losses
            for r in report.results(name)
        ]  # fmt: skip
        return _table(["setting", "window", "perplexity", "mean over windows", "tokens"], rows)

    def contexts(self) -> str:
        """SmolLM2 with more and more context: the counterpart of Figure 1."""
        report = self.perplexity("contexts-smollm2")
        found = [
            (name, {r.length: _perplexity(r) for r in report.results(name)})
            for name in report.losses
        ]
        gains = [
            f"{name} {r.gain:+.3f} ({interval_text(r.gain_interval, '+.3f')})"
            for name in report.losses
            for r in report.results(name)[-1:]
            if r.gain is not None
        ]
        return (
            f"{_by_length(found, min)}\n\n"
            "Nats per token that the longest context gains over the shortest, on the same tokens: "
            f"{'; '.join(gains)}."
        )

    def passkey_demo(self) -> str:
        """The passkeys of the demo, as in §4.3.2."""
        runs = {name: read_report(self._path(f"passkey-{name}")) for name in ("demo", "tuned")}
        found = [
            (label, {r.length: _share(r) for r in runs[run].lengths(setting)})
            for label, run, setting in DEMO_ROWS
        ]
        return _by_length(found, max)

    def passkey_smollm2(self) -> str:
        """SmolLM2's passkeys."""
        report = read_report(self._path("passkey-smollm2"))
        found = [
            (name, {r.length: _share(r) for r in report.lengths(name)}) for name in report.cells
        ]
        told = _by_length(found, max)
        if report.answered < report.planned:
            told += (
                f"\n\nThis run is not complete: {report.answered} of {report.planned} prompts are "
                "answered. `make paper` goes on with it."
            )
        return told

    def short(self) -> str:
        """What the extension costs on short texts, as in §4.3.3."""
        rows, sentences = [], []
        for run in SHORT_RUNS:
            report = self.regress(run)
            model = _MODELS[report.settings["model"]]
            for name in report.divergences:
                cost = report.regression(name)
                about = report.settings["variants"][name]
                label = f"{model}, {name} {_factor(about)}"
                rows.append([
                    label, f"{cost.kl.value:.3g} ({interval_text(cost.kl.interval, '.3g')})",
                    f"{100 * cost.top1_agreement:.1f} %", f"{cost.perplexity_before:.4g}",
                    f"{cost.perplexity_after:.4g}",
                ])  # fmt: skip
                told = price_sentence(cost.ratio, report.settings["length"])
                sentences.append(f"- {label}: {told}")
        columns = ["setting", "KL, nats per token", "same top token", "perplexity before", "after"]
        return f"{_table(columns, rows)}\n\n" + "\n".join(sentences)

    def temperature(self, name: str) -> str:
        """Perplexity by attention factor, as in A.2."""
        report = self.perplexity(f"temperature-{name}")
        about = next(iter(report.settings["variants"].values()))
        rule = f"{round(get_mscale(about['window'] / about['original']), 3):g}"
        rows, found = [], {}
        for setting, losses in report.losses.items():
            (result,) = report.results(setting)
            ratio = _ratio(losses, report.losses[rule]) if setting != rule else None
            found[setting] = (result.perplexity, ratio)
            rows.append([
                f"{setting} (the rule)" if setting == rule else setting,
                _perplexity(result)[1], _change(ratio),
            ])  # fmt: skip
        best = min(found, key=lambda setting: found[setting][0])
        told = _temperature_sentence(best, rule, found[best][1], len(found))
        return f"{_table(['1/√t', 'perplexity', 'against the rule'], rows)}\n\n{told}"

    def against_yarn(self) -> str:
        """Which settings are better than YaRN, and which worse, comparison by comparison."""
        rows = [
            *self._windows("sliding-demo", "demo, sliding window of"),
            *self._windows("sliding-smollm2", "SmolLM2, sliding window of"),
            *self._windows("contexts-smollm2", "SmolLM2, context of"),
            *self._keys("passkey-demo", "demo, passkeys in"),
            *self._keys("passkey-smollm2", "SmolLM2, passkeys in"),
            *map(self._short, SHORT_RUNS),
        ]
        return _table(["comparison", "better than YaRN", "worse than YaRN"], rows)

    def _windows(self, run: str, what: str) -> Iterator[list[str]]:
        losses = self.perplexity(run).losses
        for length in sorted({loss.length for loss in losses[YARN]}):
            here = {
                name: [loss for loss in found if loss.length == length]
                for name, found in losses.items()
            }
            others = {
                name: _ratio(found, here[YARN]) for name, found in here.items() if name != YARN
            }
            yield [f"{what} {length:,} tokens", *_sides(others)]

    def _keys(self, run: str, what: str) -> Iterator[list[str]]:
        report = read_report(self._path(run))
        others = {
            (name, result.length): result
            for name in report.cells
            if name != YARN
            for result in report.lengths(name)
        }
        for yarn in report.lengths(YARN):
            here = {name: found for (name, n), found in others.items() if n == yarn.length}
            better = [n for n, found in here.items() if found.interval[0] > yarn.interval[1]]
            worse = [n for n, found in here.items() if found.interval[1] < yarn.interval[0]]
            sides = (", ".join(names) or "–" for names in (better, worse))
            yield [f"{what} {yarn.length:,} tokens", *sides]

    def _short(self, run: str) -> list[str]:
        report = self.regress(run)
        found = report.divergences
        after = {n: Sums.joined(Sums.of(entry.after) for entry in e) for n, e in found.items()}
        yarn = after.pop(YARN)
        others = {"none": Sums.joined(Sums.of(entry.before) for entry in found[YARN]), **after}
        factor = _factor(report.settings["variants"][YARN])
        length = report.settings["length"]
        what = f"{_MODELS[report.settings['model']]} {factor}, texts of {length:,} tokens"
        return [what, *_sides({name: mean(sums.minus(yarn)).exp for name, sums in others.items()})]


def _factor(about: Mapping[str, int]) -> str:
    return f"×{about['window'] / about['original']:g}"


def _ratio(one: Sequence, other: Sequence) -> Mean:
    """The perplexity of one setting over that of another on the same tokens, paired."""
    joined = [Sums.joined(loss.sums for loss in losses) for losses in (one, other)]
    return mean(joined[0].minus(joined[1])).exp


def _sides(ratios: Mapping[str, Mean]) -> list[str]:
    """The settings with a perplexity significantly below that of the other one, and those above."""
    below = [f"{name} {_change(r)}" for name, r in ratios.items() if _is_below(r)]
    above = [
        f"{name} {_change(r)}" for name, r in ratios.items() if r.interval and r.interval[0] > 1
    ]
    return [", ".join(names) or "–" for names in (below, above)]


def _is_below(ratio: Mean) -> bool:
    """Whether a ratio is below 1 beyond chance."""
    return ratio.interval is not None and ratio.interval[1] < 1


def _change(ratio: Mean | None) -> str:
    """A ratio as a change in percent."""
    if ratio is None:
        return "–"
    ends = ratio.interval
    told = "" if ends is None else f" ({100 * (ends[0] - 1):+.1f} to {100 * (ends[1] - 1):+.1f} %)"
    return f"{100 * (ratio.value - 1):+.1f} %{told}"


def _temperature_sentence(best: str, rule: str, ratio: Mean | None, tried: int) -> str:
    if ratio is None:
        return f"The lowest perplexity is at the rule's value, {rule}."
    beyond = "beyond" if _is_below(ratio) else "not beyond"
    return (
        f"The lowest perplexity is at {best}; against the rule's {rule} that is {_change(ratio)}, "
        f"{beyond} chance, but it is the lowest of {tried} values that were tried on this text."
    )


def _perplexity(result: PerplexityResult) -> Cell:
    told = f"{result.perplexity:.4g} ({interval_text(result.interval, '.3g')})"
    return result.perplexity, told


def _share(result: LengthResult) -> Cell:
    found = f"{round(result.accuracy * result.trials)} of {result.trials}"
    return result.accuracy, f"{found} ({interval_text(result.interval, '.2f')})"


def _by_length(
    found: Sequence[tuple[str, Mapping[int, Cell]]], best: Callable[[Iterable[float]], float]
) -> str:
    """A table of settings × lengths; the best of each column in bold."""
    lengths = sorted({length for _, cells in found for length in cells})
    leading = {n: best(cells[n][0] for _, cells in found if n in cells) for n in lengths}
    rows = []
    for label, cells in found:
        row = [label]
        for length in lengths:
            value, told = cells.get(length, (None, "–"))
            row.append(f"**{told}**" if value == leading[length] else told)
        rows.append(row)
    return _table(["setting", *(f"{length:,}" for length in lengths)], rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


FIGURES = {
    "sliding-demo.png": ("sliding-demo", "sliding-tuned"),
    "contexts.png": ("contexts-smollm2",),
    "passkey-demo.png": ("passkey-demo",),
    "short.png": tuple(run for run in SHORT_RUNS if "smollm2" in run),
    "temperature.png": ("temperature-demo", "temperature-smollm2"),
}
TEMPLATE = Path(__file__).with_suffix(".md")


def render(results: Path) -> str:
    """The page of the results in a directory.

    Raises:
        CheckpointError: a result file is missing.
    """
    page = Page(results)
    runs = ("sliding-demo", "sliding-smollm2", "contexts-smollm2")
    about = {name: _about(page.perplexity(name)) for name in runs}
    contexts = page.perplexity("contexts-smollm2").settings
    (window,) = {about["window"] for name, about in contexts["variants"].items() if name != "none"}
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        topics_tokens=f"{contexts['tokens']:,}",
        smollm2_length=f"{max(contexts['lengths']):,}",
        smollm2_window=f"{window:,}",
        demo_prompts=page.prompts("passkey-demo"),
        smollm2_prompts=page.prompts("passkey-smollm2"),
        about_sliding_demo=about["sliding-demo"],
        about_sliding_smollm2=about["sliding-smollm2"],
        about_contexts=about["contexts-smollm2"],
        sliding_demo=page.sliding_demo(),
        sliding_smollm2=page.sliding_smollm2(),
        contexts=page.contexts(),
        passkey_demo=page.passkey_demo(),
        passkey_smollm2=page.passkey_smollm2(),
        short=page.short(),
        about_temperature_demo=_about_temperature(page.perplexity("temperature-demo")),
        about_temperature_smollm2=_about_temperature(page.perplexity("temperature-smollm2")),
        temperature_demo=page.temperature("demo"),
        temperature_smollm2=page.temperature("smollm2"),
        against_yarn=page.against_yarn(),
    )


def draw(results: Path, figures: Path) -> None:
    """Draw the figures of the page, as `yarncli plot` draws them."""
    for name, runs in FIGURES.items():
        plot_results([results / f"{run}.jsonl" for run in runs], figures / name)


def _about_temperature(report: PerplexityReport) -> str:
    about = next(iter(report.settings["variants"].values()))
    (length,) = report.settings["lengths"]
    where = "within" if length <= about["original"] else "beyond"
    factor = about["window"] / about["original"]
    return f"s = {factor:g}, context {length:,}, {where} its window of {about['original']:,}"


def _about(report: PerplexityReport) -> str:
    settings = report.settings
    stride = settings["sliding"]
    how = "nested contexts" if stride is None else f"stride {stride} tokens"
    return f"{how}, the first {settings['tokens']:,} tokens of `{', '.join(settings['text'])}`"
