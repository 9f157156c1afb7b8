"""Record what vLLM and SGLang compute for configs, for the tests that hold the rules against it.

    python -m scripts.wiring.record --configs x                    # the configs, once
    python -m scripts.wiring.record --engine vllm --package /tmp/vllm
    python -m scripts.wiring.record --engine sglang --package /tmp/sglang
    python -m scripts.wiring.record --engine vllm --package /tmp/vllm --lines x

`tests/engines/recorded/configs.json` has the configs, a third of them what `yarncli convert`
writes. `<engine>.json` has distinct results and, per config, the index of its own:

    {"scopes": {name: {"pairs", "inv_freq": {index: value}, "scale"}}, "softmax", "served"}
    {"error": name of the exception}        {"backend": …}: another engine's code runs

`inv_freq` holds a few frequencies, of the longest text that is served where that matters; "short"
beside it those of a short text, where the engine tells them apart.
"""

from __future__ import annotations

import functools
import importlib
import json
import multiprocessing
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.wiring.lines import (
    SglangStart,
    VllmStart,
    printed,
    through_transformers,
    words_of,
)
from scripts.wiring.probes import ORIGINAL, fresh
from scripts.wiring.sizes import config_for
from scripts.wiring.table import RECORDED, ROOT, arguments, today

Config = dict[str, Any]

# Read and odd settings; the rest of the cases are what `convert` writes.
_METHODS = """
    default linear dynamic yarn yarn-baked yarn-maximum-kept yarn-betas yarn-temperature yarn-mscale
    yarn-no-original llama3 longrope
    """.split()
_FULLY = ("llama", "qwen3", "deepseek_v3", "gpt_oss", "gemma3_text", "olmo3")
_SPECIAL = ("default", "yarn-betas", "yarn-temperature", "yarn-maximum-kept")
_CONVERTED = ("yarn", "ntk", "linear", "llama3", "ntk-by-parts")
_LENGTH = 32768

# Before the processes are forked, since what it holds cannot be sent to them.
_wiring: list[Any] = []


def main() -> None:
    """Write the configs, or one engine's results."""
    options = arguments(__doc__, configs="write the configs", engine="vllm or sglang",
                        package="folder of the unpacked wheel", jobs="processes",
                        lines="record launch lines")  # fmt: skip
    if options.configs:
        write_configs()
        return
    engine = importlib.import_module(f"scripts.wiring.{options.engine}")
    version = engine.prepare(Path(options.package))
    _wiring.append(Wiring(engine, Path(options.package)))
    if options.lines:
        _record_lines(options.engine, options.version or version, int(options.jobs or 1))
        return
    cases = json.loads((RECORDED / "configs.json").read_text(encoding="utf-8"))
    results: list[Any] = []
    indices = []
    with multiprocessing.get_context("fork").Pool(int(options.jobs or 1)) as pool:
        computed = pool.imap(_compute, [case["config"] for case in cases], chunksize=4)
        for case, result in zip(cases, computed, strict=True):
            if result not in results:
                results.append(result)
            indices.append(results.index(result))
            print(case["name"], json.dumps(result)[:100], file=sys.stderr, flush=True)
    lines = ",\n".join(json.dumps(result) for result in results)
    head = {
        "engine": options.engine,
        "version": options.version or version,
        "date": today(),
        "cases": indices,
    }
    path = RECORDED / f"{options.engine}.json"
    text = json.dumps(head)[:-1] + f', "results": [\n{lines}\n]}}\n'
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {len(cases)} cases, {len(results)} distinct results")


def _compute(config: Config) -> Config:
    return _wiring[0].compute(config)


def _record_lines(engine: str, version: str, jobs: int) -> None:
    """Write what comes of every line that is printed for an engine."""
    lines, results, entries = list(printed(engine)), [], []
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for line, result in zip(lines, pool.imap(_compute_line, lines, 4), strict=True):
            if result not in results:
                results.append(result)
            entries.append([line.name, " ".join(words_of(line.line)), results.index(result)])
            print(line.name, json.dumps(result)[:120], file=sys.stderr, flush=True)
    head = json.dumps({"engine": engine, "version": version, "date": today()})[:-1]
    parts = (("lines", entries), ("results", results))
    body = [f', "{k}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for k, rows in parts]
    path = RECORDED / f"lines-{engine}.json"
    path.write_text(head + "".join(body) + "}\n", encoding="utf-8")
    print(f"{path.name}: {len(lines)} lines, {sum('error' in r for r in results)} kinds of error")


def _compute_line(line: Any) -> Config:
    return _wiring[0].compute_line(line)


def write_configs() -> None:
    """Write the configs, one a line."""
    lines = [json.dumps(case) for case in (*_converted(), *_written())]
    path = RECORDED / "configs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    print(f"{path.name}: {len(lines)} configs")


def _engine_cases() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tests" / "support" / "engine_cases.py"))


def _converted() -> Iterator[dict[str, Any]]:
    """What `convert` writes, by family and method, where it does not refuse."""
    from yarncli.config.reading import read_rope
    from yarncli.errors import YarncliError
    from yarncli.jsontext.text import JsonText
    from yarncli.planning.plan import make_plan
    from yarncli.planning.target import Target
    from yarncli.planning.writing import write_rope

    cases = _engine_cases()
    for kind in (*cases["FLAT"], *cases["NESTED"]):
        build = cases["flat"] if kind in cases["FLAT"] else cases["nested"]
        config = _whole(build(kind, "default", "legacy"))
        text = JsonText.parse(json.dumps(config), "config.json")
        for method in _CONVERTED:
            try:
                rope = read_rope(text.value)
                plan = make_plan(rope, Target(method, length=_LENGTH, options={}))
                written = write_rope(text, rope, plan, "both").value
            except YarncliError:
                continue
            yield {"name": f"convert {kind} {method}", "config": written}


def _written() -> Iterator[dict[str, Any]]:
    """Settings as others write them; the spelling goes round, Llama has all of them."""
    cases = _engine_cases()
    spellings = ("legacy", "v5", "both")
    turn = 0
    for kind in (*cases["FLAT"], *cases["NESTED"]):
        build = cases["flat"] if kind in cases["FLAT"] else cases["nested"]
        for method in _METHODS:
            if kind not in _FULLY and method in _SPECIAL:
                continue
            turn += 1
            for spelling in spellings if kind == "llama" else (spellings[turn % 3],):
                config = _whole(build(kind, method, spelling))
                yield {"name": f"{kind} {method} {spelling}", "config": config}


def _whole(config: Config) -> Config:
    """The config with its architecture."""
    return {"architectures": [config_for(config["model_type"])[1]], **config}


def _built(config: Config) -> Config:
    """The config with what else its model type asks for."""
    if "text_config" in config:
        return {**config, "text_config": _built(config["text_config"])}
    base, _ = config_for(config["model_type"])
    given = {
        k: v for k, v in base.items() if k not in ("layer_types", "sliding_window", "head_dim")
    }
    return {**given, **config}


class Wiring:
    """One engine's model files, ready to be asked."""

    def __init__(self, engine: Any, package: Path) -> None:
        self.engine = engine
        self.is_vllm = engine.__name__.endswith("vllm")
        if self.is_vllm:
            self.classes, self.through = engine.architectures(package)
            engine._registry.update(self.classes)
        else:
            self.classes, self.through = engine.architectures(), set()

    def compute(self, config: Config) -> Config:
        """The outcome of one config."""
        try:
            return self._computed(_built(fresh(config)))
        except Exception as error:
            return {"error": type(error).__name__}

    def _computed(self, config: Config) -> Config:
        loaded = self.engine.load(config)
        architecture = loaded.architectures[0]
        served = self._served(loaded)
        elsewhere = config["model_type"] in getattr(self.engine, "READ", {})
        if elsewhere or architecture in self.through or architecture not in self.classes:
            return {"backend": "transformers-5", "served": served}
        given = () if self.is_vllm else (self.classes[architecture],)
        made = self.engine._run(config["model_type"], architecture, *given, config)
        return {**_scopes(made, loaded.get_text_config()), "served": served}

    def compute_line(self, line: Any) -> Config:
        """What the engine computes when it is started with a line: see `lines.py`."""
        try:
            loaded, served = self._start.start(_built(fresh(line.config)), words_of(line.line))
            text = loaded.get_text_config()
            name = loaded.architectures[0] if text is loaded else config_for(text.model_type)[1]
            made = None if name in self.through else self._start.made(loaded, served)
            if made is not None:
                return {**_scopes(made, text), "served": served}
            found = through_transformers(loaded, line.length)
            numbers = {
                n: (s["inv_freq"], s["attention_factor"]) for n, s in found["scopes"].items()
            }
            scopes = {name: _some(pair) for name, pair in numbers.items()}
            return {"scopes": scopes, "softmax": float(f"{found['softmax']:.7g}"), "served": served}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"[:160]}

    @functools.cached_property
    def _start(self) -> Any:
        return (VllmStart if self.is_vllm else SglangStart)(self.engine, self.classes)

    def _served(self, loaded: Any) -> int:
        if self.is_vllm:
            return int(self.engine.served_length(loaded))
        common = importlib.import_module("sglang.srt.utils.hf_transformers.common")
        return int(common.get_context_length(loaded.get_text_config()))


def _scopes(made: Any, text: Any) -> Config:
    """Scope → a few numbers of its first rotary module, and the softmax scale."""
    from scripts.wiring.torch_engines import numbers

    layers = getattr(text, "layer_types", None)
    scopes: Config = {}
    softmax = 1.0
    for module, layer, ratio in made:
        known = layers and layer is not None and text.model_type in ("gemma3_text", "olmo3")
        scope = layers[layer % len(layers)] if known else "model"
        long, short = numbers(module, ORIGINAL)
        scopes.setdefault(scope, _some(long) | ({"short": _some(short)} if short else {}))
        softmax = ratio
    if not scopes:
        raise LookupError("no rotary module was made")
    return {"scopes": scopes, "softmax": float(f"{softmax:.7g}")}


def _some(given: tuple[list[float], float]) -> Config:
    """A few frequencies, by index, and the scale."""
    freqs, scale = given
    count = len(freqs)
    picked = sorted({1, count // 4, count // 2, (3 * count) // 4, count - 1})
    found = {str(i): float(f"{freqs[i]:.7g}") for i in picked}
    return {"pairs": count, "inv_freq": found, "scale": float(f"{scale:.7g}")}


if __name__ == "__main__":
    main()
