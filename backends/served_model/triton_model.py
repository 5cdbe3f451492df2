"""The file model.py of a Triton model repository: requests of Triton's Python backend to a `RunningModel`.

A request has either `text` (with `text_pair` for pairs), or `input_ids` (with `attention_mask` for several rows of
different lengths, and `token_type_ids`). An error in one request does not affect the others of its batch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from backends.base import Array
    from backends.served_model.served_texts import Row

INPUTS = ("text", "text_pair", "input_ids", "attention_mask", "token_type_ids")


class TritonPythonModel:
    """Model as the Python backend of Triton calls it. One instance has one session."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the model in the folder of this file.

        Args:
            args: strings of Triton: the folder of the model, its version, and the device of this instance.
        """
        folder = Path(args["model_repository"]) / args["model_version"]
        roots = sorted((folder / "code").iterdir())
        sys.path.insert(0, str(roots[0]))
        import backends

        # The server may run in a folder with another copy, which would be added to the package.
        backends.__path__ = [str(root / "backends") for root in roots]
        from backends.served_model.running_model import RunningModel
        from backends.served_model.served_texts import tokenizer_of

        on_gpu = args.get("model_instance_kind") == "GPU"
        self._model = RunningModel.open(folder, int(args["model_instance_device_id"]) if on_gpu else None)
        self._tokenize = tokenizer_of(folder, self._model.facts) if self._model.facts.tokenizes else None

    def execute(self, requests: Sequence[object]) -> list[object]:
        """Return a response of Triton's Python API for each of its requests."""
        from triton_python_backend_utils import InferenceResponse, Tensor, TritonError

        from backends.served_model.running_model import named_outputs

        parsed = [self._rows(_arrays(request)) for request in requests]
        answers = iter(self._model.answers([row for rows in parsed if not isinstance(rows, str) for row in rows]))
        responses: list[object] = []
        for rows in parsed:
            own = [rows] if isinstance(rows, str) else [next(answers) for _ in rows]
            errors = [answer for answer in own if isinstance(answer, str)]
            if errors:
                responses.append(InferenceResponse([], TritonError(errors[0])))
                continue
            outputs = named_outputs(self._model.facts, [answer for answer in own if not isinstance(answer, str)])
            responses.append(InferenceResponse([Tensor(name, array) for name, array in outputs.items()]))
        return responses

    def finalize(self) -> None:
        """Close the session."""
        self._model.close()

    def _rows(self, arrays: Mapping[str, Array]) -> list[Row] | str:
        """Return the rows of a request, or an error in one line."""
        if ("text" in arrays) == ("input_ids" in arrays):
            return "the request needs one of the inputs text and input_ids"
        try:
            return self._rows_of_texts(arrays) if "text" in arrays else _rows_of_ids(arrays)
        except ValueError as error:  # also UnicodeDecodeError
            return f"the request cannot be read: {error}"

    def _rows_of_texts(self, arrays: Mapping[str, Array]) -> list[Row]:
        if self._tokenize is None:
            raise ValueError("this model has no tokenizer; send input_ids")
        texts, pairs = ([item.decode() for item in arrays[name].reshape(-1)] if name in arrays else []
                        for name in ("text", "text_pair"))  # fmt: skip
        return self._tokenize(texts, pairs)


def _arrays(request: object) -> dict[str, Array]:
    """Return the inputs of a request by name."""
    from triton_python_backend_utils import get_input_tensor_by_name

    tensors = {name: get_input_tensor_by_name(request, name) for name in INPUTS}
    return {name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}


def _rows_of_ids(arrays: Mapping[str, Array]) -> list[Row]:
    from backends.served_model.served_texts import Row

    ids = arrays["input_ids"]
    mask = arrays.get("attention_mask", np.ones_like(ids)).astype(bool)
    types = arrays.get("token_type_ids", np.zeros_like(ids))
    if mask.shape != ids.shape or types.shape != ids.shape:
        raise ValueError("input_ids, attention_mask and token_type_ids must have the same shape")
    return [Row.of(ids[place][keep], types[place][keep]) for place, keep in enumerate(mask)]
