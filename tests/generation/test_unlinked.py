"""A link is not followed when a file is opened to be written."""

import os

import pytest

from xlm_mlm.generation.unlinked import open_here, refuse_link


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


@pytest.mark.parametrize("reader", [False, True])
@pytest.mark.parametrize("mode", ["wb", "ab", "a+b"])
def test_a_pipe_is_refused_at_once(tmp_path, mode, reader, in_time):
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK) if reader else None
    try:
        with pytest.raises(ValueError, match="pipe is a pipe; it must be a regular file"):
            open_here(tmp_path / "pipe", mode)
    finally:
        if end is not None:
            os.close(end)


def test_a_folder_s_link_is_refused_wherever_it_leads(tmp_path):
    (tmp_path / "there").mkdir()
    for target in ("there", "nowhere"):
        (tmp_path / target).with_suffix(".link").symlink_to(tmp_path / target)
        with pytest.raises(ValueError, match=f"{target}.link is a link; .* generation.output_dir"):
            refuse_link(tmp_path / f"{target}.link")
    refuse_link(tmp_path / "there")
    refuse_link(tmp_path / "nowhere")
