"""Settings of an architecture with random weights are checked against its family."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY_MODELS
from omegaconf import OmegaConf

from backends.base import Unavailable
from backends.cache import ArtifactCache
from backends.model.architecture import configuration_of
from backends.model.checkpoint import find_checkpoint
from backends.model.reference import ModelReference
from suites.root import CONF


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"num_hiden_layers": 3},
            "model.architecture.num_hiden_layers is not a setting of bert; did you mean num",
        ),
        ({"model_type": "brt"}, "model.architecture.model_type=brt is not a model type of"),
    ],
)
def test_a_setting_that_the_family_lacks_is_named(changes: dict[str, object], says: str, tmp_path: Path) -> None:
    model = ModelReference("random", architecture={**TINY_MODELS["bert"], **changes})
    with pytest.raises(Unavailable) as refused:
        find_checkpoint(model, ArtifactCache(tmp_path))
    assert says in str(refused.value)


@pytest.mark.parametrize("file", sorted((CONF / "model").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_models_of_conf_have_only_valid_settings(file: Path) -> None:
    architecture = OmegaConf.to_container(OmegaConf.load(file).architecture)  # type: ignore[union-attr]
    assert isinstance(architecture, dict)
    made = configuration_of(architecture)
    assert all(getattr(made, name) == value for name, value in architecture.items() if name != "model_type")


@pytest.mark.parametrize("family", TINY_MODELS)
def test_common_settings_are_accepted(family: str) -> None:
    more = {"hidden_act": "relu"} if family != "distilbert" else {"activation": "relu"}
    assert configuration_of({**TINY_MODELS[family], **more}).model_type == family
