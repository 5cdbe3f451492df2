from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import ROOT

from backends.cache import ArtifactCache

KEY = {"what": "test"}


def write(path: Path) -> Mapping[str, int]:
    path.write_text("payload")
    (path.parent / "beside.bin").write_bytes(b"more")
    return {"size": 7}


def never(path: Path) -> None:
    raise AssertionError("built again")


def test_the_same_key_is_built_once(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    built = cache.get("kind", KEY, "file", write, {"numpy": "2"})
    assert (built.path.read_text(), built.notes, built.versions) == ("payload", {"size": 7}, {"numpy": "2"})
    assert cache.get("kind", KEY, "file", never, {"numpy": "2"}) == built


@pytest.mark.parametrize(("key", "versions"), [({"what": "other"}, {"numpy": "2"}), (KEY, {"numpy": "3"})])
def test_another_key_or_version_is_another_artifact(
    tmp_path: Path, key: Mapping[str, str], versions: Mapping[str, str]
) -> None:
    cache = ArtifactCache(tmp_path)
    first = cache.get("kind", KEY, "file", write, {"numpy": "2"})
    assert cache.get("kind", key, "file", write, versions).path != first.path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("file", b"paYload"),
        ("file", b"payloa"),
        ("file", None),
        ("beside.bin", b"mor"),
        ("beside.bin", None),
        ("artifact.json", b'{"path": "fi'),
        ("artifact.json", None),
    ],
)
def test_damage_is_noticed_and_mended(
    tmp_path: Path, name: str, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ArtifactCache(tmp_path)
    victim = cache.get("kind", KEY, "file", write, {}).path.parent / name
    if content is None:
        victim.unlink()
    else:
        victim.write_bytes(content)
    assert cache.get("kind", KEY, "file", write, {}).path.read_text() == "payload"
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"cached kind {victim.parent.name} is damaged; building it again"


def test_a_payload_is_read_again_only_where_its_time_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = ArtifactCache(tmp_path).get("kind", KEY, "file", write, {})
    read: list[Path] = []
    monkeypatch.setattr("backends.cache.digest_of", lambda path: read.append(path) or entry.sha256)
    assert ArtifactCache(tmp_path).get("kind", KEY, "file", never, {}) == entry
    assert read == []
    entry.path.touch()
    assert ArtifactCache(tmp_path).get("kind", KEY, "file", never, {}) == entry
    assert read == [entry.path]


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        ArtifactCache(tmp_path).get("kind", KEY, "file", fail, {})
    assert [path.suffix for path in (tmp_path / "kind").iterdir()] == [".lock"]
    assert ArtifactCache(tmp_path).get("kind", KEY, "file", write, {}).path.exists()


def test_two_processes_at_a_time_build_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from backends.cache import ArtifactCache\n"
        "def build(path):\n    time.sleep(0.5); path.write_text('x'); print('built', flush=True)\n"
        f"print(ArtifactCache(Path({str(tmp_path)!r})).get('kind', {{}}, 'file', build, {{}}).sha256)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate()[0].split() for process in started]
    assert sorted(len(output) for output in outputs) == [1, 2]
    assert outputs[0][-1] == outputs[1][-1]
