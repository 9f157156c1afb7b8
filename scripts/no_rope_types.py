"""Write the model types of transformers that have no RoPE in a text part.

    python scripts/no_rope_types.py

All of the installed transformers' model types that have neither a row in `FAMILIES` nor a reason
in `UNSUPPORTED`. Prints what came and went: look at each new name first, since one that is new to
transformers may well be a text model that needs a row.
"""

from __future__ import annotations

import json

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from yarncli.config.families import refused_types
from yarncli.config.families.table import FAMILIES


def main() -> None:
    """Write the file and print how it differs from the one before."""
    found = sorted(set(CONFIG_MAPPING_NAMES) - set(FAMILIES) - set(refused_types.UNSUPPORTED))
    before = refused_types.no_rope_types() if refused_types.NO_ROPE_FILE.exists() else frozenset()
    document = {"transformers": transformers.__version__, "model_types": found}
    refused_types.NO_ROPE_FILE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for sign, names in (("+", set(found) - before), ("-", before - set(found))):
        for name in sorted(names):
            print(sign, name)


if __name__ == "__main__":
    main()
