"""README.md of an exported folder."""

from __future__ import annotations

from backends.model_output import EMBEDDING, HIDDEN, LOGITS, SCORE, SPANS
from suites.exporting.manifest import ExportedModel

TEXT = """# {model}, {backend}, {precision}

Exported from the record of the cell `{cell}`.
`manifest.json` has the origin, the versions and the digest of each file.

## Check it

    pip install {packages}
    python verify.py

`verify.py` needs no tokenizer: `expected.npz` has the token ids and {expected}.
It exits with 1 if a file was changed, or if the cosine of a sentence vector to the expected one is below {least}.
{warning}
## Serve it
{tokenizers}
```python
{imports}

folder = Path(".")
manifest = json.loads((folder / "manifest.json").read_text())
run = open_model(folder, manifest["settings"])

{code}
```

| input | type | shape |
| --- | --- | --- |
{inputs}

The output is {output}. {layout}{profiles}
{pooling}{tokenizer}"""

IMPORTS = """import json
from pathlib import Path

import numpy as np
from {runner} import open_model"""

INSTALL_TOKENIZERS = "\nThe tokenizer needs `pip install tokenizers`.\n"

TOKENIZERS = "\nfrom tokenizers import Tokenizer"

ROWS = """tokenizer = Tokenizer.from_file("tokenizer.json"){lower}
tokenizer.enable_padding(){truncation}
encoded = tokenizer.encode_batch(["A man is playing a guitar on the street."])
arrays = {{
{arrays}
}}
{pooled}"""

SOURCES = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Attribute of an encoding of the library tokenizers, by input of the model."""

OUTPUTS = {
    HIDDEN: "the last hidden state",
    EMBEDDING: "the embedding of each text",
    LOGITS: "the logits of the labels",
    SPANS: "the logits of the first and the last token of an answer",
    SCORE: "the score of each text or pair",
}

POOLED = {
    "mean": 'mask = arrays["attention_mask"][..., None]\nvectors = (hidden * mask).sum(1) / mask.sum(1)',
    "cls": "vectors = hidden[:, 0]",
    "max": 'mask = arrays["attention_mask"][..., None]\nvectors = np.where(mask, hidden, -np.inf).max(1)',
}
"""Code of each pooling."""

NORMALIZED = "\nvectors /= np.linalg.norm(vectors, axis=1, keepdims=True)"


def folder_readme(model: ExportedModel) -> str:
    """Return the text of README.md."""
    deployed, cell, pooling = model.deployed, model.record.cell, model.sampled.pooling
    built_for = deployed.settings.get("built_for")
    warning = f"\nThe plan runs only with {built_for}. A plan contains code: run only a plan that you trust.\n"
    mode = pooling.mode if pooling else "mean"
    normalized = pooling is not None and pooling.normalized
    words = f"{mode} over the tokens without padding" if mode != "cls" else "the output of the first token"
    source = pooling.source if pooling else "the pooling of the checkpoint is not supported"
    code = _code(model, _run_code(model, mode, normalized))
    return TEXT.format(
        model=cell.model,
        backend=cell.backend,
        precision=cell.precision,
        cell=cell.id,
        packages=" ".join(deployed.packages),
        expected="the outputs of this model" if model.runs_here else "the outputs of FP32",
        least=model.least_cosine,
        warning=warning if built_for else "",
        imports=IMPORTS.format(runner=model.runner) + (TOKENIZERS if "Tokenizer" in code else ""),
        code=code,
        tokenizers=INSTALL_TOKENIZERS if "Tokenizer" in code else "",
        inputs="\n".join(f"| {t.name} | {t.dtype} | {' x '.join(t.shape)} |" for t in deployed.inputs),
        layout=f"Its type is {deployed.outputs[0].dtype}, its shape {' x '.join(deployed.outputs[0].shape)}.",
        profiles=_profiles(model),
        output=OUTPUTS[cell.output],
        pooling=f"\nSentence vectors: {words}{', scaled to length 1' if normalized else ''} ({source}).\n"
        if cell.output == HIDDEN
        else "",
        tokenizer=_tokenizer(model),
    )


def _run_code(model: ExportedModel, mode: str, normalized: bool) -> str:
    """Return the code that runs the model and, from hidden states, computes sentence vectors."""
    if model.record.cell.output != HIDDEN:
        name = "vectors" if model.record.cell.output == EMBEDDING else "output"
        return f"{name} = run(arrays)  # FP32, one row for each text"
    pooled = POOLED[mode] + (NORMALIZED if normalized else "") if mode in POOLED else "# pool: " + mode
    return f"hidden = run(arrays)  # FP32 [batch, sequence, hidden]\n{pooled}"


def _code(model: ExportedModel, run: str) -> str:
    names = [tensor.name for tensor in model.deployed.inputs]
    if not set(names) <= set(SOURCES) or "tokenizer.json" not in model.sampled.tokenizer:
        return "# The inputs of one batch are in expected.npz, as run0/NAME.\n" + (
            'stored = np.load("expected.npz")\n'
            'output = run({name[5:]: stored[name] for name in stored if name.startswith("run0/")})'
        )
    lines = [
        f'    "{name}": np.array([row.{SOURCES[name]} for row in encoded], np.{tensor.dtype}),'
        for name, tensor in zip(names, model.deployed.inputs, strict=True)
    ]
    pooling = model.sampled.pooling
    lower, longest = bool(pooling and pooling.lower_case), pooling.longest if pooling else 0
    return ROWS.format(
        arrays="\n".join(lines),
        pooled=run,
        truncation=f"\ntokenizer.enable_truncation({longest})" if longest else "",
        lower="  # convert texts to lower case first" if lower else "",
    )


def _profiles(model: ExportedModel) -> str:
    shapes = ["x".join(map(str, _sizes(profile["max"]))) for profile in model.deployed.profiles]
    return f" The plan has profiles up to {', '.join(shapes)} (batch x sequence); see manifest.json." if shapes else ""


def _sizes(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _tokenizer(model: ExportedModel) -> str:
    if not model.sampled.tokenizer:
        return "\nThe checkpoint has no tokenizer, so the sample sentences have random token ids.\n"
    longest = model.sampled.pooling.longest if model.sampled.pooling else 0
    limit = f" Texts are truncated to {longest} tokens." if longest else ""
    return f"\nFiles of the tokenizer: {', '.join(model.sampled.tokenizer)}.{limit}\n"
