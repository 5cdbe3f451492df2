"""The file model.py of a Triton model repository: requests of Triton's Python backend to a `RunningModel`.

A request has either `text` (with `text_pair` for pairs), or `input_ids` (with `attention_mask` for several rows of
different lengths, and `token_type_ids`). An error in one request does not affect the others of its batch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from backends.served_model.served_texts import Row, Tokenize


class TritonPythonModel:
    """Model as the Python backend of Triton calls it. One instance has one session."""

    def initialize(self, args: Mapping[str, str]) -> None:
        folder = Path(args["model_repository"]) / args["model_version"]
        if (folder / "code").is_dir():
            sys.path.insert(0, str(folder / "code"))
        from backends.served_model.running_model import RunningModel, named_outputs
        from backends.served_model.served_texts import tokenizer_of

        on_gpu = args.get("model_instance_kind") == "GPU"
        self._model = RunningModel.open(folder, int(args["model_instance_device_id"]) if on_gpu else None)
        facts = self._model.facts
        self._tokenize: Tokenize | None = tokenizer_of(folder, facts) if facts.tokenizes else None
        self._named = named_outputs

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        import triton_python_backend_utils as triton

        parsed = [self._rows(request, triton) for request in requests]
        rows = [row for item in parsed if not isinstance(item, str) for row in item]
        answers = iter(self._model.answers(rows))
        responses = []
        for item in parsed:
            own = [] if isinstance(item, str) else [next(answers) for _ in item]
            error = item if isinstance(item, str) else next((text for text in own if isinstance(text, str)), "")
            if error:
                responses.append(triton.InferenceResponse(output_tensors=[], error=triton.TritonError(error)))
                continue
            arrays = self._named(self._model.facts, [answer for answer in own if not isinstance(answer, str)])
            tensors = [triton.Tensor(name, array) for name, array in arrays.items()]
            responses.append(triton.InferenceResponse(output_tensors=tensors))
        return responses

    def finalize(self) -> None:
        self._model.close()

    def _rows(self, request: Any, triton: Any) -> list[Row] | str:
        """Return the rows of a request, or an error in one line."""

        names = ("text", "text_pair", "input_ids", "attention_mask", "token_type_ids")
        tensors = {name: triton.get_input_tensor_by_name(request, name) for name in names}
        arrays = {name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}
        if ("text" in arrays) == ("input_ids" in arrays):
            return "the request needs one of the inputs text and input_ids"
        if "text" in arrays:
            if self._tokenize is None:
                return "this model has no tokenizer; send input_ids"
            try:
                texts, pairs = ([item.decode() for item in arrays[name].reshape(-1)] if name in arrays else []
                                for name in ("text", "text_pair"))  # fmt: skip
            except UnicodeDecodeError:
                return "the text is not UTF-8"
            return self._tokenize(texts, pairs)
        ids = arrays["input_ids"]
        mask = arrays.get("attention_mask", np.ones_like(ids)).astype(bool)
        types = arrays.get("token_type_ids", np.zeros_like(ids))
        if mask.shape != ids.shape or types.shape != ids.shape:
            return "input_ids, attention_mask and token_type_ids must have the same shape"
        return [self._row(*row) for row in zip(ids, types, mask, strict=True)]
