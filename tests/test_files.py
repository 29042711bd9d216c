"""Files are written completely or not at all, and nothing of another command is touched."""

from pathlib import Path

import pytest

from encdec.files import atomic_folder, atomic_write, leftovers, write_text


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
        assert leftovers(path) == [Path(file.name)]
    assert path.read_bytes() == b"new"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_after_an_error_the_old_file_is_unchanged(tmp_path: Path, error) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write(b"first")
        second.write(b"second")
        assert len(leftovers(path)) == 2
    assert path.read_bytes() == b"first"  # the block that ends last
    assert [*tmp_path.iterdir()] == [path]


def test_files_with_similar_names_are_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "file"
    others = [tmp_path / name for name in ("file.tmp", "file.part", "file.notes.tmp")]
    for other in others:
        other.write_text("of a person")
    write_text(path, "ä\n")
    assert path.read_bytes() == b"\xc3\xa4\n"
    assert leftovers(path) == []
    assert [other.read_text() for other in others] == ["of a person"] * 3


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_permissions_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o600)
    write_text(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)


def test_a_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with atomic_folder(path) as folder:
        (folder / "inside").touch()
        assert not path.exists()
    assert (path / "inside").exists()

    def fail(name: str) -> None:
        with atomic_folder(tmp_path / name) as folder:
            (folder / "half").touch()
            if name == "never":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail("never")
    with pytest.raises(OSError, match="not empty"):
        fail("folder")
    assert [file.name for file in tmp_path.rglob("*")] == ["folder", "inside"]
