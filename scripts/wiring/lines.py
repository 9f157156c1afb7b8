"""What vLLM and SGLang compute when they are started with the lines that `yarncli engines` prints.

A line is split as a shell does, its JSON goes through the engine's own code for overrides, and the
model of the config is built: of a multimodal one with everything but the language model a stub.
`record.py --lines` writes `tests/engines/recorded/lines-<engine>.json`: for each case its name, the
words after the model, and the index of its result, as `record.py` explains results.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scripts.wiring import stubs
from scripts.wiring.sizes import TEXT_PARTS, config_for
from scripts.wiring.table import ROOT
from scripts.wiring.torch_engines import build, in_folder

Config = dict[str, Any]

_NOT_LANGUAGE = re.compile("Vision|Visual|Siglip|CLIP|Clip|Pixtral|Projector|Merger|Audio|Tower")


# Multimodal models of SGLang that give their text part to the class that transformers' AutoModel
# names for it: models/llava.py:783, models/mistral.py:94.
_TEXT_ONLY = frozenset({"llava", "mistral3"})
# Multimodal models of vLLM whose language model is a class of their own file.
_OWN_LANGUAGE = {"qwen3_vl": ("qwen3_vl", "Qwen3LLMForCausalLM")}


def printed(engine: str) -> Iterator[Any]:
    """The lines of the cases, from `tests/support/lines.py`."""
    sys.path.insert(0, str(ROOT / "tests"))
    yield from importlib.import_module("support.lines").printed(engine)


def words_of(line: str) -> list[str]:
    """The words of a line after the model."""
    words = shlex.split(line)
    return words[words.index("models/my model") + 1 :]


def option(words: list[str], name: str, default: str) -> str:
    """The value of an option."""
    return words[words.index(name) + 1] if name in words else default


class VllmStart:
    """vLLM, started with words."""

    def __init__(self, engine: Any, classes: dict[str, tuple[str, str]]) -> None:
        self.engine, self.classes = engine, classes
        root = Path(sys.modules["vllm"].__path__[0])
        tree = ast.parse((root / "config" / "model.py").read_text(encoding="utf-8"))
        (model,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "ModelConfig"]
        functions = {n.name: n for n in model.body if isinstance(n, ast.FunctionDef)}
        (split,) = [
            node
            for node in functions["__post_init__"].body
            if isinstance(node, ast.If) and "callable(self.hf_overrides)" in ast.unparse(node.test)
        ]
        self._split = _compiled([split])
        names: dict[str, Any] = {"PreTrainedConfig": Any, "Any": Any}
        exec(_compiled([functions["_update_nested"], functions["_apply_dict_overrides"]]), names)
        self._apply = type("ModelConfig", (), {k: v for k, v in names.items() if callable(v)})()

    def start(self, config: Config, words: list[str]) -> tuple[Any, int]:
        """The loaded config with its overrides, and the length that is served."""
        overrides = json.loads(option(words, "--hf-overrides", "{}"))
        names: dict[str, Any] = {"self": SimpleNamespace(hf_overrides=overrides), "Any": Any}
        exec(self._split, names)
        loader = importlib.import_module("vllm.transformers_utils.config")
        loaded = in_folder(
            config,
            lambda folder: loader.get_config(
                folder, False, config_format="hf",
                hf_overrides_kw=names["hf_overrides_kw"], hf_overrides_fn=names["hf_overrides_fn"],
            ),
        )  # fmt: skip
        if names["dict_overrides"]:
            self._apply._apply_dict_overrides(loaded, names["dict_overrides"])
        length = int(option(words, "--max-model-len", "0")) or None
        return loaded, int(self.engine.served_length(loaded, length))

    def made(self, loaded: Any, served: int) -> Any:
        """The rotary modules of its language model: it gets the text part, or asks for that."""
        importlib.import_module(self.engine.ROTARY)._ROPE_DICT.clear()
        text = loaded.get_text_config()
        name = loaded.architectures[0]
        if text is not loaded:
            name = TEXT_PARTS.get(text.model_type) or config_for(text.model_type)[1]
        if name not in self.classes:
            return None
        module_name, cls = _OWN_LANGUAGE.get(loaded.model_type, self.classes[name])
        path = module_name if "." in module_name else f"{self.engine.MODELS}.{module_name}"
        model_class = getattr(importlib.import_module(path), cls)
        config = self.engine.engine_config(text, served)
        return build(lambda: model_class(vllm_config=config, prefix=""))


class SglangStart:
    """SGLang, started with words."""

    def __init__(self, engine: Any, classes: dict[str, Any]) -> None:
        self.engine, self.classes = engine, classes
        root = Path(sys.modules["sglang.srt"].__path__[0])
        tree = ast.parse((root / "configs" / "model_config.py").read_text(encoding="utf-8"))
        (function,) = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name == "_derive_context_length"
        ]
        self.common = importlib.import_module("sglang.srt.utils.hf_transformers.common")
        no = SimpleNamespace(get=lambda: False)
        self._names: dict[str, Any] = {
            "get_context_length": self.common.get_context_length,
            "envs": SimpleNamespace(SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN=no),
            "is_in_ci": lambda: False,
            "logger": stubs.Stub(),
        }
        exec(_compiled([function]), self._names)

    def start(self, config: Config, words: list[str]) -> tuple[Any, int]:
        """The loaded config with its overrides, and the length that is served."""
        overrides = json.loads(option(words, "--json-model-override-args", "{}"))
        loader = importlib.import_module("sglang.srt.utils.hf_transformers.config")
        loaded = in_folder(
            config,
            lambda folder: loader.get_config(
                folder, trust_remote_code=False, model_override_args=overrides
            ),
        )
        state = SimpleNamespace(
            is_draft_model=False,
            hf_config=loaded,
            hf_text_config=self.common.get_hf_text_config(loaded),
        )
        length = int(option(words, "--context-length", "0")) or None
        self._names["_derive_context_length"](state, length)
        return loaded, int(state.context_len)

    def made(self, loaded: Any, served: int) -> Any:
        """The rotary modules of its language model."""
        importlib.import_module(f"{self.engine.ROTARY}.factory")._ROPE_DICT.clear()
        name, text = loaded.architectures[0], loaded.get_text_config()
        if loaded.model_type in _TEXT_ONLY:
            loaded, name = text, config_for(text.model_type)[1]
        if name not in self.classes or text.model_type in self.engine.READ:
            return None
        model_class = self.classes[name]
        outer = text is not loaded
        loaded.encoder_only = loaded.language_only = False  # as the server sets them
        with _language_only(model_class) if outer else contextlib.nullcontext():
            return build(lambda: model_class(loaded, quant_config=None))


@contextlib.contextmanager
def _language_only(model_class: type) -> Iterator[None]:
    """Let the files of a multimodal model have stubs for all that is not its language model."""
    held = []
    for base in model_class.__mro__:
        module = sys.modules.get(base.__module__)
        if module is None or not base.__module__.startswith("sglang"):
            continue
        for name, value in list(vars(module).items()):
            if isinstance(value, type) and _NOT_LANGUAGE.search(name):
                held.append((module, name, value))
                setattr(module, name, stubs.Stub())
    try:
        yield
    finally:
        for module, name, value in held:
            setattr(module, name, value)


def _compiled(nodes: list[Any]) -> Any:
    return compile(ast.Module(nodes, []), "<engine>", "exec")


@functools.cache
def _oracle() -> Any:
    sys.path.insert(0, str(ROOT / "tests"))
    return importlib.import_module("support.engine_oracle")


def through_transformers(loaded: Any, length: int) -> Config:
    """The numbers of transformers' own rotary class, where an engine runs its model code."""
    return dict(_oracle().compute_loaded(loaded.get_text_config(), length))
