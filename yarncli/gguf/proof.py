"""Whether the content of a GGUF file agrees with its record. Only then is the record believed."""

from __future__ import annotations

import math
from dataclasses import replace

from yarncli.gguf.facts import Gguf
from yarncli.gguf.header import GgufHeader
from yarncli.gguf.reading import compare
from yarncli.gguf.record import changed_since, read_record
from yarncli.gguf.runtime import Computed, run
from yarncli.history import History
from yarncli.planning.rope_plan import RopePlan
from yarncli.rope.parameters import RopeParameters

# Relative; the file stores its numbers in single precision.
_TOLERANCE = 1e-6


def proven_history(header: GgufHeader, gguf: Gguf) -> History:
    """The steps that a file records, marked as `unbelieved` if its content contradicts them.

    The keys that the last step wrote must be unchanged, and llama.cpp must compute what the last
    plan says. Another tool may have changed the file since, or copied the record of another file.

    Args:
        header: the header of the file.
        gguf: the contents of the file.

    Raises:
        ConfigError: the record does not have the form that yarncli writes.
    """
    history = read_record(header)
    if not history.steps:
        return history
    as_left = changed_since(header, history.steps[-1]) is None
    plan = history.plan
    borne_out = plan is None or planned_setting(gguf, plan) is not None
    return history if as_left and borne_out else History(unbelieved=history.steps)


def planned_setting(gguf: Gguf, plan: RopePlan) -> RopeParameters | None:
    """The setting of a plan if llama.cpp computes its frequencies from the file, else `None`.

    A bake may have changed the attention factor since, so the setting gets the file's factor.

    Args:
        gguf: the contents of the file.
        plan: the plan in its record.
    """
    computed, setting = run(gguf, context=plan.length), plan.scopes[0].after
    if not isinstance(computed, Computed):
        return None
    found = compare(computed, setting, plan.length)
    if not found.ratios or found.worst is not None or found.window:
        return None
    if math.isclose(found.attention_factor, 1.0, rel_tol=_TOLERANCE):
        return setting
    return replace(setting, attention_factor=computed.attention_factor)
