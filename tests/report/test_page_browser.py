"""The page in a real browser: what it shows is what the history holds, and it asks for nothing."""

import os
import shutil
from itertools import islice

import pytest
from made_up_pages import HOSTILE, MASK, board, hostile, large, taken_back, words

from xlm_mlm.report.page import write_page
from xlm_mlm.visible import visible

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("XLM_MLM_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
EVERY_STATE = """() => {
  const slider = document.getElementById("slider");
  const states = [];
  for (let state = 0; state <= Number(slider.max); state++) {
    slider.value = state;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    const tokens = [...document.querySelectorAll("#sequence > span")];
    states.push(tokens.map((token) => (token.ariaLabel === "masked" ? null : token.textContent)));
  }
  return states;
}"""
# Of each token, the contrast of its text with what is behind it.
CONTRASTS = """() => [...document.querySelectorAll("#sequence > span")].map((node) => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((byte) => byte / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(node);
  const [low, high] = [light(style.color), light(style.backgroundColor)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
})"""


@pytest.fixture(scope="module")
def browser():
    driver = pytest.importorskip("playwright.sync_api")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages' files: several samples, one hostile sample."""
    folder = tmp_path_factory.mktemp("pages")
    samples = [board(), words(), taken_back(), words(window=5), words(mask_known=False)]
    write_page(samples, folder / "several.html")
    write_page([hostile()], folder / "hostile.html", title=HOSTILE[0])
    return {path.stem: path.as_uri() for path in folder.iterdir()}


@pytest.fixture
def visit(browser):
    """Opens an address; afterwards nothing was asked for but the file, and nothing complained."""
    opened = []

    def visit(address, width=1200, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, **options
        )
        page = context.new_page()
        asked, complaints = [], []
        page.on("request", lambda request: asked.append(request.url.partition("#")[0]))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        opened.append((address.partition("#")[0], context, asked, complaints))
        page.goto(address)
        page.wait_for_selector("#sequence > span")
        return page

    yield visit
    for address, context, asked, complaints in opened:
        context.close()
        assert asked == [address]
        assert complaints == []


def held(trace):
    """What the history holds before the first pass and after each; None for a mask."""
    return [
        [None if token == MASK else visible(trace.text_of(token)) for token in state.tolist()]
        for state in (trace.before, *trace.x)
    ]


def state_of(page):
    return int(page.locator("#slider").input_value())


@pytest.mark.parametrize(
    ("name", "number", "trace"),
    [("several", 1, board()), ("several", 2, words()), ("several", 3, taken_back())],
    ids=["board", "words", "taken-back"],
)
def test_the_text_at_each_pass_is_what_the_history_holds(visit, pages, name, number, trace):
    page = visit(f"{pages[name]}#sample={number}&pass=1")
    assert page.evaluate(EVERY_STATE) == held(trace)
    # Backwards and in leaps as well: a move touches only what differs.
    for state in (4, 0, 3, 1, 2):
        page.locator("#slider").fill(str(state))
        shown = page.locator("#sequence > span").all_text_contents()
        assert shown == ["·" if text is None else text for text in held(trace)[state]]


def test_what_a_pass_filled_is_marked_while_it_is_shown(visit, pages):
    trace = taken_back()
    page = visit(f"{pages['several']}#sample=3&pass=0")
    states = [trace.before, *trace.x]
    for state in (1, 2, 3, 4, 2, 0, 1):
        page.locator("#slider").fill(str(state))
        before, after = states[max(state - 1, 0)], states[state]
        filled = ((before != after) & (after != MASK)).nonzero().flatten().tolist()
        marked = page.locator("#sequence > .fresh").evaluate_all(
            "(nodes) => nodes.map((node) => Number(node.dataset.place))"
        )
        assert marked == filled


def test_without_the_masks_id_the_entropies_say_what_is_masked(visit, pages):
    page = visit(f"{pages['several']}#sample=5")
    trace = words(mask_known=False)
    shown = held(trace)
    shown[-1] = [visible(trace.text_of(token)) for token in trace.x[-1].tolist()]
    assert page.evaluate(EVERY_STATE) == shown


def test_a_hostile_token_stays_text(visit, pages):
    page = visit(pages["hostile"])
    assert page.evaluate(EVERY_STATE) == held(hostile())
    for token in page.locator("#sequence > span").all():
        token.hover()
        page.locator("#about-token").wait_for()
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 2
    assert page.locator("img").count() == 0
    assert page.locator("h1").text_content() == HOSTILE[0]


def test_the_slider_moves_by_mouse_and_keys(visit, pages):
    page = visit(f"{pages['several']}#sample=1&pass=3")
    slider = page.locator("#slider")
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 1, box["y"] + box["height"] / 2)
    assert state_of(page) == 0
    page.mouse.move(box["x"] + 9, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.up()
    assert state_of(page) == 3
    assert page.locator("#pass").text_content().startswith("Pass 3 of 6")
    for focus in ("slider", "nothing"):
        if focus == "nothing":
            slider.evaluate("(node) => node.blur()")
        for key, state in [("Home", 0), ("ArrowRight", 1), ("End", 6), ("ArrowLeft", 5)]:
            page.keyboard.press(key)
            assert state_of(page) == state, (focus, key)
        for key in ("End", "ArrowRight"):
            page.keyboard.press(key)
        assert state_of(page) == 6


def test_play_and_pause(visit, pages):
    page = visit(f"{pages['several']}#sample=1&pass=6")
    word = page.locator("#play-word")
    page.locator("#speed").select_option("32")
    page.locator("#play").click()
    page.wait_for_selector("#play-word:text-is('Play')")
    assert state_of(page) == 6
    page.locator("#speed").select_option("1")
    page.locator("h1").click()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    assert (word.text_content(), state_of(page)) == ("Pause", 0)
    page.keyboard.press("Space")
    assert word.text_content() == "Play"
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    assert word.text_content() == "Play", "taking hold of the slider pauses"
    assert state_of(page) == 1


def rows_of(page):
    """The card's rows: token, and probability."""
    rows = page.locator("#about-token tr").all()
    return [
        (row.locator("th").text_content(), row.locator("td").nth(1).text_content()) for row in rows
    ]


def rows_held(trace, step, place):
    """What a pass saw at a place, as the card writes it."""
    at = place - (len(trace.before) - trace.p.shape[1])
    pairs = zip(trace.pids[step, at].tolist(), trace.p[step, at].tolist(), strict=True)
    rows = []
    for token, p in pairs:
        shown = f"{100 * p:.2f} %"
        rows.append((visible(trace.text_of(token)), "< 0.01 %" if shown == "0.00 %" else shown))
    return rows, f"Entropy {trace.entropy[step, at].item():.3f} nats"


def test_pointing_shows_what_was_probable(visit, pages):
    trace, state = board(), 2
    page = visit(f"{pages['several']}#sample=1&pass={state}")
    filled = [
        next((s for s in range(trace.steps) if trace.x[s, i] != MASK), None) for i in range(16)
    ]
    for place, token in enumerate(page.locator("#sequence > span").all()):
        token.hover()
        card = page.locator("#about-token")
        if trace.before[place] != MASK:
            assert "No pass looked here" in card.text_content()
            continue
        step = min(filled[place], state - 1)
        rows, entropy = rows_held(trace, step, place)
        assert rows_of(page) == rows
        assert card.locator("p").last.text_content() == entropy
        assert f"Pass {step + 1} of 6" in card.text_content()
        chosen = card.locator("tr.chosen th").all_text_contents()
        assert chosen == ([str(trace.x[step, place].item())] if filled[place] < state else [])
    page.mouse.move(2, 2)
    assert page.locator("#about-token").is_hidden()


def test_what_was_not_kept_is_said(visit, pages):
    page = visit(f"{pages['several']}#sample=4&pass=0")
    page.locator("#sequence > span").nth(1).hover()
    assert "kept from position 3 on" in page.locator("#about-token").text_content()
    page.locator("#sequence > span").nth(6).hover()
    assert rows_of(page) == rows_held(words(window=5), 0, 6)[0]
    assert r'"[MASK]", token 0' in page.locator("#about-token").text_content()


def test_the_keyboard_reaches_every_token(visit, pages):
    page = visit(f"{pages['several']}#sample=1&pass=6")
    page.locator("input[name=colour]:checked").focus()
    page.keyboard.press("Tab")
    place = "document.activeElement.dataset.place"
    assert page.evaluate(place) == "0"
    for key, at in [("ArrowRight", "1"), ("ArrowDown", "5"), ("ArrowLeft", "4"), ("ArrowUp", "0")]:
        page.keyboard.press(key)
        assert page.evaluate(place) == at
        assert f"position {at}:" in page.locator("#about-token").text_content()
    assert state_of(page) == 6
    page.keyboard.press("Enter")
    page.locator("#slider").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#about-token").is_visible(), "kept open while the passes go by"
    page.keyboard.press("Escape")
    assert page.locator("#about-token").is_hidden()


def test_a_phone(visit, pages):
    page = visit(f"{pages['several']}#sample=2&pass=2", width=360, has_touch=True)
    place = (words().x[1] == MASK).nonzero()[0].item()
    for name in ("several#sample=1", "several#sample=2", "hostile#sample=1"):
        stem, _, hash_ = name.partition("#")
        narrow = visit(f"{pages[stem]}#{hash_}", width=360)
        assert narrow.evaluate("document.documentElement.scrollWidth") == 360
    page.locator("#sequence > span").nth(place).tap()
    assert rows_of(page)[:4] == rows_held(words(), 1, place)[0]
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.get_by_label("Close").tap()
    assert page.locator("#about-token").is_hidden()


def test_light_and_dark(visit, pages):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = visit(pages["several"])
    dark = visit(pages["several"], scheme="dark")
    assert light.evaluate(ground) == "rgb(247, 247, 245)"
    assert dark.evaluate(ground) == "rgb(21, 23, 26)"
    for page, other in [(light, dark), (dark, light)]:
        before = other.evaluate(ground)
        page.locator("#theme").click()
        assert page.evaluate(ground) == before
        page.locator("#theme").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tokens_can_be_read_on_their_colours(visit, pages, scheme):
    page = visit(f"{pages['several']}#sample=1&pass=5", scheme=scheme)
    for colour in ("confidence", "pass"):
        for view in ("text", "board"):
            page.locator(f"label:has([value={colour}])").click()
            page.locator(f"label:has([value={view}])").click()
            contrasts = page.evaluate(CONTRASTS)
            assert len(contrasts) == 16
            assert min(contrasts) >= 4.5


def test_colours_tell_the_pass_or_the_confidence(visit, pages):
    page = visit(f"{pages['several']}#sample=1&pass=6")
    colours = (
        "[...document.querySelectorAll('#sequence > span')].map((n) => n.style.backgroundColor)"
    )
    trace = board()
    by_pass = page.evaluate(colours)
    passes = [next(s for s in range(6) if trace.x[s, i] != MASK) for i in range(16)]
    given = [i for i in range(16) if trace.before[i] != MASK]
    assert [i for i, colour in enumerate(by_pass) if not colour] == given
    filled = [i for i in range(16) if i not in given]
    assert len({by_pass[i] for i in filled}) == 6
    assert len({(passes[i], by_pass[i]) for i in filled}) == 6
    assert page.locator("#legend .low").text_content() == "pass 1"
    page.locator("label:has([value=confidence])").click()
    assert page.evaluate(colours) != by_pass
    assert page.locator("#legend .high").text_content() == "100 %"


def test_the_charts_lead_to_a_pass(visit, pages):
    page = visit(f"{pages['several']}#sample=1&pass=6")
    canvas = page.locator("#heat")
    box = canvas.bounding_box()
    canvas.click(position={"x": 5, "y": box["height"] * 2.5 / 6})
    assert state_of(page) == 3
    canvas.hover(position={"x": box["width"] * 1.5 / 16, "y": box["height"] * 0.5 / 6})
    assert rows_of(page) == rows_held(board(), 0, 1)[0]
    assert page.locator("#left .now").get_attribute("x1") is not None
    before = page.locator("#left .now").get_attribute("x1")
    svg = page.locator("#left").bounding_box()
    page.locator("#left").click(position={"x": 41, "y": 40})
    assert state_of(page) == 0
    assert page.locator("#left .now").get_attribute("x1") != before
    assert svg["width"] > 200
    page.locator("label:has([value=top])").click()
    assert "top-1 probability" in canvas.get_attribute("aria-label")


def test_samples_and_the_address(visit, pages):
    page = visit(f"{pages['several']}#sample=2&pass=3")
    assert (page.locator("#sample").input_value(), state_of(page)) == ("1", 3)
    assert page.locator("#views").is_hidden()
    page.locator("#earlier").click()
    page.wait_for_selector("#slider[max='6']")
    assert page.locator("#sequence.board").is_visible()
    assert page.locator("#earlier").is_disabled()
    page.keyboard.press("Home")
    page.wait_for_url("**#sample=1&pass=0")
    page.evaluate("location.hash = '#sample=3&pass=2'")
    page.wait_for_selector("dd:text-is('taken back')")
    assert (page.locator("#sample").input_value(), state_of(page)) == ("2", 2)
    for odd in (
        "#sample=0&pass=99999",
        "#sample=-3",
        "#pass=<script>",
        "#%",
        "#sample=1e9&pass=0x1",
    ):
        visit(pages["several"] + odd)


def test_a_large_history_stays_responsive(visit, tmp_path):
    write_page([large()], tmp_path / "large.html")
    page = visit((tmp_path / "large.html").as_uri())
    assert page.evaluate("performance.now()") < 10_000
    median = page.evaluate("""() => {
      const slider = document.getElementById("slider");
      const times = Array.from({ length: 64 }, (_, i) => {
        const begin = performance.now();
        slider.value = (i * 61) % 257;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        document.getElementById("sequence").getBoundingClientRect();
        return performance.now() - begin;
      });
      return times.sort((a, b) => a - b)[32];
    }""")
    assert median < 250
    page.keyboard.press("End")
    shown = page.locator("#sequence > span").all_text_contents()
    assert list(islice(shown, 50)) == held(large())[-1][:50]
