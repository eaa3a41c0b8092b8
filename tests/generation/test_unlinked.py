"""A link is not followed when a file is opened to be written."""

import pytest

from xlm_mlm.generation.unlinked import open_here


@pytest.mark.parametrize("mode", ["wb", "ab", "a+b"])
def test_a_link_is_refused_and_what_it_leads_to_left_alone(tmp_path, mode):
    there, link = tmp_path / "there", tmp_path / "link"
    there.write_text("kept")
    link.symlink_to(there)
    with pytest.raises(ValueError, match=r"link is a link; .* generation\.output_dir"):
        open_here(link, mode)
    assert there.read_text() == "kept"
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    with pytest.raises(ValueError, match="dangling is a link"):
        open_here(tmp_path / "dangling", mode)
    assert not (tmp_path / "made").exists()


def test_other_files_are_opened_as_usual(tmp_path):
    for mode, content in (("wb", b"a"), ("ab", b"aa"), ("wb", b"a")):
        with open_here(tmp_path / "file", mode) as file:
            file.write(b"a")
        assert (tmp_path / "file").read_bytes() == content
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_here(tmp_path / "nowhere" / "file", "wb")
