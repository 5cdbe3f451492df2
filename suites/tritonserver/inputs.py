"""Inputs of suite=tritonserver: those of suite=serving."""

from __future__ import annotations

from suites.serving.inputs import prepare, prepare_null

__all__ = ["prepare", "prepare_null"]
