from __future__ import annotations

import pytest

from suites.maker import VERSION, maker


@pytest.mark.parametrize(
    ("given", "commit", "dirty"), [("0123abc", "0123abc", False), ("0123abcdef-dirty", "0123abcdef", True)]
)
def test_a_copy_without_its_repository_is_told_its_commit(
    given: str, commit: str, dirty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUITES_COMMIT", given)
    maker.cache_clear()
    try:
        assert maker() == {"version": VERSION, "commit": commit, "dirty": dirty}
    finally:
        maker.cache_clear()


def test_what_is_no_commit_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUITES_COMMIT", "main; rm")
    maker.cache_clear()
    try:
        assert maker()["commit"] != "main; rm"
    finally:
        maker.cache_clear()
