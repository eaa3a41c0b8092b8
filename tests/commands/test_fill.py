"""`xlm-mlm fill`: where texts come from, what is printed, options, errors in one line."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_checkpoints import CONFIG, changed, write_checkpoint

from xlm_mlm.commands import cli
from xlm_mlm.generation.fill import Filler
from xlm_mlm.rebuild import rebuild, save

PROGRAM = Path(sys.executable).with_name("xlm-mlm")
TEXTS = ["1 [MASK]", "[MASK] 2 [MASK]", "3 4 [MASK]"]
# Blank lines and both kinds of line ends; the last line has none.
CONTENT = b"1 [MASK]\r\n\r\n  \n[MASK] 2 [MASK]\n\n3 4 [MASK]"
THREE = "[MASK] [MASK] [MASK]"
WEIGHTS = ("raw", "ema", "auto")
ESCAPE = "\x1b"


def escaping():
    """A model over bytes that fills in nothing but the byte that begins a terminal's commands."""
    config = changed(
        *("global_components", "tokenizer"),
        value={"_target_": "xlm_mlm.data.tokenizers.ByteTokenizer"},
    )
    saved = rebuild(config)
    (escape,) = saved.tokenizer(ESCAPE, add_special_tokens=False)["input_ids"]
    head = saved.model.output_layer
    with torch.no_grad():
        head.norm_final.weight.zero_()
        head.norm_final.bias.fill_(1)
        head.linear.weight.zero_()
        head.linear.weight[escape] = 1
    return saved.model, config


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with checkpoints, one of them saved as a folder, and files of texts."""
    folder = tmp_path_factory.mktemp("fill")
    torch.manual_seed(3)
    saved = rebuild(CONFIG)
    raw, ema = saved.model, rebuild(CONFIG).model
    write_checkpoint(folder / "both.ckpt", raw, ema, hyper_parameters=CONFIG)
    write_checkpoint(folder / "raw.ckpt", raw, hyper_parameters=CONFIG)
    save(saved, folder / "saved")
    for name, target in [("stranger", "os.system"), ("alias", "xlm_mlm.RotaryTransformerMLMModel")]:
        config = changed("model", "_target_", value=target)
        write_checkpoint(folder / f"{name}.ckpt", raw, hyper_parameters=config)
    model, config = escaping()
    write_checkpoint(folder / "escaping.ckpt", model, hyper_parameters=config)
    (folder / "damaged.ckpt").write_bytes(b"no checkpoint")
    (folder / "texts.txt").write_bytes(CONTENT)
    (folder / "blank.txt").write_bytes(b"\n \r\n")
    (folder / "odd.txt").write_bytes(b"1 [MASK] \xff\n")
    return folder


@pytest.fixture(autouse=True)
def _there(made, monkeypatch):
    monkeypatch.chdir(made)


@pytest.fixture
def piped(monkeypatch):
    """A function that puts bytes before the program, as a pipe does."""

    def pipe(content):
        stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", stream)

    return pipe


@pytest.fixture
def printed(capsys):
    """A function that runs the command and returns its stdout; stderr may hold what `err` says."""

    def run(*args, checkpoint="both.ckpt", err=""):
        code = cli.main(["fill", "--checkpoint", checkpoint, "--device", "cpu", *args])
        captured = capsys.readouterr()
        assert (code, captured.err) == (0, captured.err if err is None else err)
        return captured.out

    return run


def filled(text, candidates=1, checkpoint="both.ckpt", weights="auto", **more):
    """The candidates that the library gives."""
    to_load = {key: more.pop(key) for key in ("options", "frame") if key in more}
    one = Filler.from_checkpoint(checkpoint, weights=weights, device="cpu", **to_load)
    return one.fill(text, candidates, **more)


def as_json(candidates):
    return [
        {
            "text": each.text,
            "score": each.score,
            "tokens": [
                {
                    "position": token.position,
                    "token_id": token.token_id,
                    "token": token.token,
                    "p": token.p,
                    "pass": token.step,
                }
                for token in each.tokens
            ],
        }
        for each in candidates
    ]


def test_a_text_as_argument(printed):
    for text in TEXTS:
        assert printed(text) == f"{filled(text)[0].text}\n"


@pytest.mark.parametrize("source", [["--file", "texts.txt"], ["-"], []])
def test_texts_of_a_file_or_a_pipe_one_a_line(printed, piped, source):
    piped(b"5 [MASK]" if "--file" in source else CONTENT)
    assert printed(*source).splitlines() == [filled(text)[0].text for text in TEXTS]
    piped(b"5 [MASK]" if "--file" in source else CONTENT)
    rows = [json.loads(line) for line in printed(*source, "--json").splitlines()]
    assert [row["text"] for row in rows] == TEXTS


def test_a_byte_order_mark_is_no_text(printed, piped):
    piped(b"\xef\xbb\xbf1 [MASK]\n")
    assert printed() == printed("1 [MASK]")


def test_a_pipe_that_keeps_its_line_ends(printed, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(CONTENT.decode(), newline=""))
    rows = [json.loads(line) for line in printed("--json").splitlines()]
    assert [row["text"] for row in rows] == TEXTS


@pytest.mark.parametrize("text", ["1 [MASK]", THREE])
def test_candidates_come_with_scores_best_first(printed, text):
    lines = printed(text, "--candidates", "5").splitlines()
    scores, texts = zip(*(line.split(maxsplit=1) for line in lines), strict=True)
    found = filled(text, 5)
    assert len(found) == 5
    assert list(texts) == [each.text for each in found]
    assert list(scores) == [f"{each.score:.4f}" for each in found]
    assert sorted(map(float, scores), reverse=True) == list(map(float, scores))


@pytest.mark.parametrize("watching", [[], ["--watch"]])
def test_json_is_one_object_a_text_and_nothing_else(printed, watching):
    args = ["--file", "texts.txt", "--json", "--candidates", "3", *watching]
    lines = printed(*args, err=None).splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "text": text,
            "checkpoint": "both.ckpt",
            "weights": "ema",
            "candidates": as_json(filled(text, 3)),
        }
        for text in TEXTS
    ]


@pytest.mark.parametrize("args", [["--json"], []])
def test_passes_are_watched_apart_from_the_results(capsys, args):
    command = ["fill", "--checkpoint", "both.ckpt", "--device", "cpu", THREE, *args]
    assert cli.main(command) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert cli.main([*command, "--watch", "--delay", "99"]) == 0
    watched = capsys.readouterr()
    assert watched.out == out
    lines = watched.err.splitlines()
    assert lines[0] == "pass 0: · · ·"
    assert lines[-1] == f"pass 3: {filled(THREE)[0].text}"
    assert [line.count("·") for line in lines] == [3, 2, 1, 0]


def test_what_loading_prints_is_no_result(printed, monkeypatch):
    def loud(*args):
        print("Loading weights ...")
        return rebuild(*args)

    monkeypatch.setattr("xlm_mlm.generation.opening.rebuild", loud)
    out = printed(TEXTS[0], "--json", err="Loading weights ...\n")
    assert json.loads(out)["text"] == TEXTS[0]


def test_draws_depend_on_the_seed_alone(printed):
    first, again, other = (
        printed(THREE, "--candidates", "6", "--seed", seed, "--json") for seed in "112"
    )
    assert first == again != other
    assert json.loads(other)["candidates"] == as_json(filled(THREE, 6, seed=2))


def test_blanks_may_follow_a_text(printed):
    (found,) = json.loads(printed("1", "--max-new-tokens", "2", "--json"))["candidates"]
    assert [token["position"] for token in found["tokens"]] == [1, 2]
    assert [found] == as_json(filled("1", max_new_tokens=2))


def test_no_more_passes_than_asked_for(printed):
    for given, passes in [(["--steps", "1"], {1}), ([], {1, 2, 3})]:
        (found,) = json.loads(printed(THREE, "--json", *given))["candidates"]
        assert {token["pass"] for token in found["tokens"]} == passes


@pytest.mark.parametrize(
    ("args", "more"),
    [
        (["--temperature", "0.2"], {"options": {"temperature": 0.2}}),
        (["--top-k", "2"], {"options": {"top_k": 2}}),
        (["--top-p", "0.3"], {"options": {"top_p": 0.3}}),
        (["--no-frame"], {"frame": False}),
        (["--frame"], {"frame": True}),
    ],
)
def test_options_reach_the_model(printed, args, more):
    found = json.loads(printed(THREE, "--json", "--candidates", "8", *args))["candidates"]
    assert found == as_json(filled(THREE, 8, **more))
    assert found != as_json(filled(THREE, 8))


def test_the_weights_that_were_asked_for(printed):
    rows = {which: json.loads(printed(THREE, "--json", "--weights", which)) for which in WEIGHTS}
    assert [row["weights"] for row in rows.values()] == ["raw", "ema", "ema"]
    assert rows["ema"] == rows["auto"]
    for which, row in rows.items():
        assert row["candidates"] == as_json(filled(THREE, weights=which))
    assert rows["raw"]["candidates"] != rows["ema"]["candidates"]


def test_a_saved_folder_gives_what_its_checkpoint_gives(printed):
    args = [THREE, "--json", "--candidates", "4"]
    of_checkpoint = json.loads(printed(*args, "--weights", "raw"))
    of_folder = json.loads(printed(*args, checkpoint="saved", err=None))
    assert of_folder["candidates"] == of_checkpoint["candidates"]
    assert (of_folder["checkpoint"], of_folder["weights"]) == ("saved", "as saved")


def test_trust_makes_a_class_that_is_not_on_the_list(printed):
    assert printed(THREE, "--trust", checkpoint="alias.ckpt") == printed(THREE, "--weights", "raw")


def test_a_filled_escape_is_spelled_out_on_a_terminal_only(printed, monkeypatch):
    text = "a[MASK][31mb"
    assert printed(text, checkpoint="escaping.ckpt") == f"a{ESCAPE}[31mb\n"
    (line,) = printed(text, "--json", checkpoint="escaping.ckpt").splitlines()
    assert ESCAPE not in line
    assert json.loads(line)["candidates"][0]["text"] == f"a{ESCAPE}[31mb"
    several = printed(text, "--candidates", "2", checkpoint="escaping.ckpt")
    assert several.splitlines()[0].endswith(r"  a\x1b[31mb")
    assert ESCAPE not in several
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert printed(text, checkpoint="escaping.ckpt") == "a\\x1b[31mb\n"


def test_a_filled_escape_is_spelled_out_in_passes(printed):
    printed(
        *("[MASK][31m", "--watch"),
        checkpoint="escaping.ckpt",
        err="pass 0: ·[31m\npass 1: \\x1b[31m\n",
    )


def complaint(capsys, *args, code=1):
    """The one line that a command that fails writes."""
    assert cli.main([*args]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--file", "blank.txt"], "blank.txt holds no text"),
        (["-"], "stdin holds no text"),
        ([], "stdin holds no text"),
        (["1 [MASK]", "--file", "texts.txt"], "both a text and --file texts.txt are given"),
        (["-", "--file", "texts.txt"], "both a text and --file texts.txt are given"),
        (["--file", "nowhere.txt"], "nowhere.txt: No such file"),
        (["--file", "."], ".: Is a directory"),
        (["1 [MASK] nine"], "can't be tokenised: Token nine"),
        (["1 2"], "has no blank; put [MASK]"),
        ([""], "has no blank"),
        (["1 [MASK]", "--delay", "nan"], "--delay is nan"),
        (["1 [MASK]", "--delay", "inf"], "--delay is inf"),
        (["1 [MASK]", "--delay", "-1"], "--delay is -1.0"),
        (["1 [MASK]", "--weights", "best"], "weights is 'best'"),
        (["1 [MASK]", "--device", "zzz"], "error: device is 'zzz'"),
        (["1 [MASK]", "--candidates", "0"], "candidates is 0"),
        (["1 [MASK]", "--max-new-tokens", "-1"], "max_new_tokens is -1"),
        (["1 [MASK]", "--seed", "-1"], "seed is -1"),
        (["1 [MASK]", "--steps", "0"], "max_steps is 0"),
        (["1 [MASK]", "--confidence", "best"], "confidence is 'best'"),
        (["1 [MASK]", "--top-k", "2", "--top-p", "0.5"], "top_k=2 and top_p=0.5 are both set"),
    ],
)
def test_a_mistake_is_one_line(capsys, piped, args, message):
    piped(b"\n\r\n")
    line = complaint(capsys, "fill", "--checkpoint", "both.ckpt", *args)
    assert message in line
    assert line.endswith(" (--debug shows more)")


@pytest.mark.parametrize(
    ("checkpoint", "weights", "message"),
    [
        ("nowhere.ckpt", "auto", "checkpoint nowhere.ckpt does not exist"),
        ("damaged.ckpt", "auto", "damaged.ckpt is damaged, or no checkpoint"),
        ("stranger.ckpt", "auto", "stranger.ckpt: the model is 'os.system'"),
        ("alias.ckpt", "auto", "--trust allows it"),
        ("raw.ckpt", "ema", "raw.ckpt holds no EMA weights"),
        ("saved", "ema", "saved holds one kind only"),
        (".", "auto", ". has no tokenizer_spec.json"),
    ],
)
def test_a_checkpoint_that_does_not_do_is_one_line(
    capsys, monkeypatch, checkpoint, weights, message
):
    monkeypatch.setattr("os.system", lambda command: pytest.fail("it was called"))
    args = ["fill", "1 [MASK]", "--checkpoint", checkpoint, "--weights", weights]
    assert message in complaint(capsys, *args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["1 [MASK]"], "missing option '--checkpoint'"),
        (["1 [MASK]", "2", "--checkpoint", "both.ckpt"], "(2)"),
        (["1 [MASK]", "--checkpoint", "both.ckpt", "--steps", "few"], "--steps"),
    ],
)
def test_a_mistaken_command_is_one_line(capsys, args, message):
    line = complaint(capsys, "fill", *args, code=2)
    assert message in line
    assert "`xlm-mlm fill --help` shows how" in line


def test_nobody_is_waited_for_at_a_terminal(capsys, piped, monkeypatch):
    piped(b"1 [MASK]")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert "there is no text to fill" in complaint(capsys, "fill", "--checkpoint", "both.ckpt")
    monkeypatch.setattr("sys.stdin", None)  # closed
    for args in (["-"], []):
        assert "stdin is closed; give" in complaint(capsys, "fill", "--checkpoint", "x", *args)


def test_a_file_that_is_no_text_is_named(capsys, monkeypatch):
    args = ["fill", "--checkpoint", "both.ckpt"]
    assert "odd.txt is not UTF-8" in complaint(capsys, *args, "--file", "odd.txt")
    pipe = io.TextIOWrapper(io.BytesIO(b"1 [MASK] \xff"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", pipe)
    assert "stdin is not UTF-8" in complaint(capsys, *args)


def test_of_many_texts_the_bad_one_is_numbered(capsys, piped):
    piped(b"1 [MASK]\n1 2\n")
    assert cli.main(["fill", "--checkpoint", "both.ckpt", "--device", "cpu"]) == 1
    assert 'error: text 2 of 2: the text "1 2" has no blank' in capsys.readouterr().err


def test_an_escape_in_a_bad_text_is_spelled_out(capsys):
    for text in (f"[MASK] {ESCAPE}[2J", f"1 {ESCAPE}[2J"):
        assert ESCAPE not in complaint(capsys, "fill", "--checkpoint", "both.ckpt", text)


def test_debugging_shows_the_traceback(capsys):
    for args in (["--debug", "fill"], ["fill", "--debug"]):
        assert cli.main([*args, "1 2", "--checkpoint", "both.ckpt"]) == 1
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_the_program_between_pipes():
    args = ["fill", "--checkpoint", "both.ckpt", "--device", "cpu", "--json", "--watch"]
    done = subprocess.run([PROGRAM, *args], input=CONTENT, capture_output=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    lines = done.stderr.decode().splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        *("pass 0", "pass 1"),
        *("pass 0", "pass 1", "pass 2"),
        *("pass 0", "pass 1"),
    ]
    assert ESCAPE.encode() not in done.stdout + done.stderr
