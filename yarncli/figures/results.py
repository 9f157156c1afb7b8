"""The figure of saved runs: each file says which command wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yarncli.errors import UsageError
from yarncli.evaluation.result_file import read_results
from yarncli.figures import OWN_LOOK, Look


def plot_results(paths: Sequence[Path], out: Path, look: Look = OWN_LOOK) -> list[str]:
    """Draw result files of one command in one figure.

    Args:
        paths: of the result files.
        out: the figure.
        look: what the user decides about it.

    Returns:
        What a reader of the figure must know; one sentence each.

    Raises:
        CheckpointError: a file is not a result file.
        UsageError: the files are of different commands, or there is nothing to draw.
        OutputError, MissingExtraError: as `save_figure`.
    """
    written = [read_results(path) for path in paths]
    kinds = sorted({each.kind for each in written})
    if len(kinds) > 1:
        raise UsageError(
            f"Results of {' and '.join(kinds)} cannot be drawn in one figure. Draw each kind."
        )
    if kinds == ["perplexity"]:
        from yarncli.evaluation.losses import read_perplexity_report
        from yarncli.figures.perplexity import plot_perplexity

        plot_perplexity([read_perplexity_report(path) for path in paths], out, look)
    elif kinds == ["regress"]:
        from yarncli.evaluation.regress import read_regress_report
        from yarncli.figures.regress import plot_regress

        plot_regress([read_regress_report(path) for path in paths], out, look)
    elif kinds == ["fit"]:
        from yarncli.evaluation.fit_report import read_fit_report
        from yarncli.figures.fit import plot_fit

        plot_fit([read_fit_report(path) for path in paths], out, look)
    else:
        from yarncli.evaluation.report import read_report
        from yarncli.figures.passkey import plot_passkey

        reports = [read_report(path) for path in paths]
        plot_passkey(reports, out, look)
        return [
            f"{path} holds {report.answered:,} of {report.planned:,} prompts, and the figure shows "
            "those. Complete the run by its own command with --resume."
            for path, report in zip(paths, reports, strict=True)
            if report.answered < report.planned
        ]
    return [
        f"{each.path} ends in the middle of a line: its run was interrupted. What is complete is "
        "drawn."
        for each in written
        if each.is_cut
    ]
