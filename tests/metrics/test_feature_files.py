"""Features on disk: the same bits whenever they were written, and nothing of another request among them."""

import json

import pytest
import torch

from diffspace.metrics.feature_files import Batches, FeatureFiles

BATCHES = Batches(23, 5)
VALUES = torch.randn(23, 7, generator=torch.Generator().manual_seed(0))


def write(folder, request=None, *, stop=99, most=8, damage=lambda folder: None):
    """The batches that were missing, of which `stop` are written, and the arrays if all of them are there."""
    damage(folder)
    with FeatureFiles(folder, request or {"of": "samples"}, BATCHES, {"b": most}) as files:
        missing = list(files.missing)
        for number in missing[:stop]:
            rows = VALUES[BATCHES.rows(number)]
            files.add(number, {"a": rows, "b": rows[: max(0, most - BATCHES.rows(number).start), :2].double()})
        return missing, files.read() if not files.missing else None


def test_rows_are_cut_in_one_place():
    assert len(BATCHES) == 5
    assert [k for number in range(5) for k in BATCHES.rows(number)] == list(range(23))
    with pytest.raises(ValueError, match="total: expected an integer of at least 1, got 0"):
        Batches(0, 5)


def test_what_is_read_is_what_was_written(tmp_path):
    missing, found = write(tmp_path)
    assert missing == [0, 1, 2, 3, 4]
    assert torch.equal(found["a"], VALUES)
    assert torch.equal(found["b"], VALUES[:8, :2])
    found["a"].zero_()  # of this process alone
    assert torch.equal(write(tmp_path)[1]["a"], VALUES)
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda folder: None, 3),
        (lambda folder: (folder / "0.f32").write_bytes((folder / "0.f32").read_bytes() + b"half a row"), 3),
        (lambda folder: (folder / "1.f32").write_bytes((folder / "1.f32").read_bytes()[:-1]), 1),
        (lambda folder: (folder / "batches").write_bytes((folder / "batches").read_bytes()[:-1]), 2),
        (lambda folder: (folder / "0.f32").write_bytes(b"\0" * (folder / "0.f32").stat().st_size), 0),
        (lambda folder: (folder / "1.f32").unlink(), 0),
        (lambda folder: (folder / "batches").unlink(), 0),
    ],
)
def test_a_killed_command_goes_on_after_the_last_whole_batch(tmp_path, damage, kept):
    assert write(tmp_path, stop=3) == ([0, 1, 2, 3, 4], None)
    missing, found = write(tmp_path, damage=damage)
    assert missing == list(range(kept, 5))
    assert torch.equal(found["a"], VALUES)
    assert torch.equal(found["b"], VALUES[:8, :2])


def test_another_request_starts_anew(tmp_path):
    write(tmp_path, stop=3)
    for request, most in (({"of": "data"}, 8), ({"of": "data"}, 9)):
        missing, found = write(tmp_path, request, most=most)
        assert missing == [0, 1, 2, 3, 4]
        assert torch.equal(found["b"], VALUES[:most, :2])


def test_what_is_not_of_features_is_never_deleted(tmp_path):
    for name, content in (("mine.txt", "mine"), ("features.json", "{}"), ("features.json", "[" * 99)):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=r"in the way, and not of features|cannot be read|it lacks"):
            write(tmp_path)
        assert (tmp_path / name).read_text() == content
        (tmp_path / name).unlink()
    write(tmp_path)
    target = tmp_path / "target"
    (tmp_path / "0.f32").rename(target)
    (tmp_path / "0.f32").symlink_to(target)
    with pytest.raises(ValueError, match="in the way"):
        write(tmp_path)


def test_mistakes_are_named(tmp_path):
    with FeatureFiles(tmp_path, {}, BATCHES) as files:
        with pytest.raises(ValueError, match=r"number: expected the next batch, 0, got 1"):
            files.add(1, {"a": VALUES[:5]})
        with pytest.raises(ValueError, match=r"arrays: expected 5 rows of 7 in 'a', got shape \(4, 7\)"):
            files.add(0, {"a": VALUES[:4]})
        with pytest.raises(ValueError, match="5 of 5 batches are missing"):
            files.read()
        with pytest.raises(ValueError, match="is being written by process"), FeatureFiles(tmp_path, {}, BATCHES):
            pass
    assert json.loads((tmp_path / "features.json").read_text())["arrays"] == {"a": 7}
