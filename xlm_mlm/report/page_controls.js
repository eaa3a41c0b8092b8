// The page: one sample in one state; every control leads to `go`.

const app = { run: null, state: 0, number: 0, pinned: null, over: null, timer: 0, hashTimer: 0 };
const sequence = new Sequence(byId("sequence"));
const card = new Card(byId("about-token"), () => pin(null));
const left = new Curve(byId("left"), (state) => go(state));
const mean = new Curve(byId("mean"), (state) => go(state));
const heat = new Heat(byId("heat"), byId("heat-marker"));
const slider = byId("slider");
const choice = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value;

function go(state) {
  const { run } = app;
  app.state = Math.min(Math.max(Math.round(state), 0), run.passes);
  sequence.show(app.state);
  slider.value = app.state;
  const masks = run.masks_left[app.state];
  const where = app.state ? `Pass ${app.state} of ${run.passes}` : `Before pass 1 of ${run.passes}`;
  const count = `${masks} mask${masks === 1 ? "" : "s"} left`;
  slider.setAttribute("aria-valuetext", `${where}, ${count}`);
  byId("pass").replaceChildren(element("b", "", where), element("span", "quiet", count));
  for (const chart of [left, mean, heat]) chart.mark(app.state);
  refreshCard();
  clearTimeout(app.hashTimer);
  app.hashTimer = setTimeout(writeHash, 400);
}

// Playing

const sleep = () => 1000 / Number(byId("speed").value);

function play(on) {
  clearTimeout(app.timer);
  app.timer = 0;
  if (on && app.run.passes) {
    if (app.state === app.run.passes) go(0);
    app.timer = setTimeout(step, sleep());
  }
  byId("play-sign").textContent = app.timer ? "❚❚" : "▶";
  byId("play-word").textContent = app.timer ? "Pause" : "Play";
}

function step() {
  go(app.state + 1);
  if (app.state < app.run.passes) app.timer = setTimeout(step, sleep());
  else play(false);
}

// Fast enough to be through in about ten seconds.
function offerSpeeds(passes) {
  const speeds = [1, 2, 4, 8, 16, 32];
  const best = speeds.find((speed) => passes / speed <= 10) ?? speeds.at(-1);
  const options = speeds.map((speed) => new Option(`${speed}/s`, speed, false, speed === best));
  byId("speed").replaceChildren(...options);
}

// The card about a token

function pin(place) {
  app.pinned = place;
  sequence.pin(place);
  refreshCard();
}

function refreshCard() {
  const place = app.over ?? app.pinned;
  const anchor = place === null ? null : sequence.nodeOf(place);
  if (!anchor) card.hide();
  else card.show(app.run, app.state, place, anchor, app.over === null || app.over === app.pinned);
}

const tokenOf = (event) => event.target.closest?.("#sequence [data-place]");

function watchTokens(root) {
  root.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    over(tokenOf(event));
  });
  root.addEventListener("pointerleave", () => over(null));
  root.addEventListener("focusin", (event) => {
    sequence.focused(tokenOf(event));
    over(tokenOf(event));
  });
  root.addEventListener("focusout", () => over(null));
  // A click keeps the card and leaves the focus, so that the arrow keys go on stepping passes.
  root.addEventListener("mousedown", (event) => tokenOf(event) && event.preventDefault());
  root.addEventListener("click", (event) => togglePin(tokenOf(event)));
  for (const scrolled of [root, window]) {
    scrolled.addEventListener("scroll", () => card.root.hidden || refreshCard(), { passive: true });
  }
}

function over(node) {
  app.over = node ? Number(node.dataset.place) : null;
  refreshCard();
}

function togglePin(node) {
  if (!node) return;
  const place = Number(node.dataset.place);
  pin(app.pinned === place ? null : place);
  if (app.pinned !== null) card.reveal(node);
}

// Keys

function onKey(event) {
  if (!app.run || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const { target } = event;
  if (event.key === "Escape") {
    app.over = null;
    pin(null);
    return;
  }
  const token = tokenOf(event);
  if (token && (event.key === "Enter" ? (togglePin(token), true) : sequence.move(event.key))) {
    event.preventDefault();
  } else if (!ownsKey(target, event.key) && pressed(event.key)) event.preventDefault();
}

// Whether the focused control has a use of its own for a key.
function ownsKey(target, key) {
  if (target.matches("select, input[type=radio]")) return true;
  if (target.matches("button, summary, a")) return key === " ";
  return target === slider && key !== " ";
}

function pressed(key) {
  const { state, run } = app;
  const to = { ArrowLeft: state - 1, ArrowRight: state + 1, Home: 0, End: run.passes }[key];
  if (to !== undefined) stop(to);
  else if (key === " ") play(!app.timer);
  else return false;
  return true;
}

// Whoever takes hold of the slider does not want it to run on.
function stop(state) {
  play(false);
  go(state);
}

// Samples and the address: #sample=2&pass=7

const open = (number, state) => load(number, state).catch(complain);

function complain(error) {
  byId("trouble").hidden = false;
  byId("trouble").textContent = `The sample cannot be shown: ${error.message}`;
}

async function load(number, state) {
  app.wanted = number;
  const run = await Run.of(DATA.samples[number]);
  // Another may have been asked for meanwhile.
  if (app.wanted !== number) return;
  play(false);
  document.querySelector("main").hidden = false;
  Object.assign(app, { run, number, pinned: null, over: null });
  byId("sample").selectedIndex = number;
  byId("earlier").disabled = number === 0;
  byId("later").disabled = number === DATA.samples.length - 1;
  slider.max = run.passes;
  slider.disabled = byId("play").disabled = run.passes === 0;
  byId("views").hidden = !run.board;
  document.querySelector(`input[name=view][value=${run.board ? "board" : "text"}]`).checked = true;
  byId("unknown-key").hidden = !run.sure.includes(UNKNOWN.sure);
  offerSpeeds(run.passes);
  showFacts(run);
  app.state = Math.min(state ?? run.passes, run.passes);
  rebuild();
}

function showFacts(run) {
  const facts = {
    fid: run.fid,
    tokens: run.length,
    passes: run.passes,
    state: run.finished ? "finished" : "not finished: the run ended before the sample did",
  };
  byId("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([key, value]) => [element("dt", "", key), element("dd", "", value)]),
  );
}

function rebuild() {
  const confidence = choice("colour") === "confidence";
  sequence.build(app.run, choice("view"), choice("colour"));
  if (confidence) drawLegend(byId("legend"), "probability", "0 %", "100 %");
  else drawLegend(byId("legend"), "pass", "pass 1", `pass ${app.run.passes}`);
  byId("legend").classList.toggle("by-confidence", confidence);
  byId("sequence-card").classList.toggle("has-board", choice("view") === "board");
  drawCharts();
  go(app.state);
  sequence.pin(app.pinned);
}

function drawCharts() {
  const { run } = app;
  left.draw([...run.masks_left], 0, run.passes, true);
  const means = [...run.mean].map((value) => (value === UNKNOWN.mean ? NaN : value / 1000));
  mean.draw(means, 1, run.passes, false);
  heat.draw(run, choice("heat"));
  for (const chart of [left, mean, heat]) chart.mark(app.state);
}

function readHash() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const whole = (name) => (/^\d{1,9}$/.test(wanted.get(name) ?? "") ? Number(wanted.get(name)) : null);
  const number = Math.min(Math.max((whole("sample") ?? 1) - 1, 0), DATA.samples.length - 1);
  return [number, whole("pass")];
}

function writeHash() {
  if (app.timer) return;
  const hash = `#sample=${app.number + 1}&pass=${app.state}`;
  try {
    if (location.hash !== hash) history.replaceState(null, "", hash);
  } catch {
    // Some browsers forbid it for files: then the address stays as it is.
  }
}

// Light and dark

function watchTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const tell = () => byId("theme").setAttribute("aria-pressed", isDark());
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    tell();
  });
  system.addEventListener("change", tell);
  tell();
}

function watchHeat(canvas) {
  canvas.addEventListener("click", (event) => app.run.passes && stop(heat.cell(event).pass));
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch" || !app.run.passes) return;
    const { pass, place } = heat.cell(event);
    const at = { left: event.clientX, top: event.clientY, bottom: event.clientY + 8 };
    card.show(app.run, pass, place, at, false, pass);
  });
  canvas.addEventListener("pointerleave", refreshCard);
}

function watch() {
  slider.addEventListener("input", () => stop(slider.valueAsNumber));
  byId("play").addEventListener("click", () => play(!app.timer));
  for (const name of ["view", "colour", "heat"]) {
    for (const input of document.getElementsByName(name)) {
      input.addEventListener("change", name === "heat" ? drawCharts : rebuild);
    }
  }
  byId("sample").append(...DATA.samples.map((sample, i) => new Option(`${i + 1}: ${sample.fid}`, i)));
  byId("sample").addEventListener("change", () => open(byId("sample").selectedIndex));
  byId("earlier").addEventListener("click", () => open(app.number - 1));
  byId("later").addEventListener("click", () => open(app.number + 1));
  byId("picker").hidden = DATA.samples.length < 2;
  watchTokens(byId("sequence"));
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => {
    const [number, state] = readHash();
    if (number !== app.number) open(number, state);
    else go(state ?? app.state);
  });
  watchHeat(byId("heat"));
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (width && contentRect.width !== width) drawCharts();
    width = contentRect.width;
  }).observe(document.querySelector("main"));
  watchTheme();
}

watch();
open(...readHash());
