// The sequence, one element a token; a move touches only what differs.

const MASK = "·";

class Sequence {
  constructor(root) {
    this.root = root;
    this.nodes = [];
  }

  // Build the elements for the places that the view shows.
  build(run, view, colour) {
    this.run = run;
    this.colour = colour;
    this.state = null;
    this.fresh = [];
    this.places = view === "board" ? run.board : [...Array(run.length).keys()];
    this.index = new Map(this.places.map((place, i) => [place, i]));
    this.nodes = this.places.map((place, i) => this.#node(place, i, view));
    this.root.className = view;
    this.root.classList.toggle("tight", view === "text" && this.#isOfCharacters());
    this.root.style.setProperty("--side", Math.round(Math.sqrt(this.places.length)));
    const lines = this.nodes.flatMap((node) => (node.endsLine ? [node, element("br")] : node));
    this.root.replaceChildren(...lines);
    if (view === "text") this.#reserve();
    this.#tabStop(0);
  }

  #endsLine(place) {
    const { run } = this;
    return !run.isMasked(run.passes, place) && shownOf(run.tokenAt(run.passes, place)).endsWith("↵");
  }

  #node(place, i, view) {
    const node = document.createElement("span");
    node.role = "button";
    node.tabIndex = -1;
    node.dataset.place = place;
    node.setAttribute("aria-describedby", "about-token");
    node.append("");
    if (view === "board") this.#rule(node, i);
    else node.endsLine = this.#endsLine(place);
    return node;
  }

  // Lines between the boxes of a board.
  #rule(node, i) {
    const side = Math.round(Math.sqrt(this.places.length));
    const box = Math.round(Math.sqrt(side));
    const [row, column] = [Math.floor(i / side), i % side];
    const left = column && column % box === 0 ? "box-left" : "";
    const top = row && row % box === 0 ? "box-top" : "";
    node.dataset.box = `${left} ${top}`.trim();
  }

  // Keep the room that the last tokens take, so that the text does not jump, and a change is
  // laid out alone.
  #reserve() {
    const { run } = this;
    this.places.forEach((place, i) => {
      if (run.isMasked(run.passes, place)) return;
      this.nodes[i].firstChild.data = shownOf(run.tokenAt(run.passes, place));
    });
    const widths = this.nodes.map((node) => node.getBoundingClientRect().width);
    this.nodes.forEach((node, i) => (node.style.width = `${widths[i].toFixed(3)}px`));
    this.root.classList.add("settled");
  }

  // Tokens of one character each stand close, so that words can be read.
  #isOfCharacters() {
    const last = (place) => shownOf(this.run.tokenAt(this.run.passes, place));
    const single = this.places.filter((place) => [...last(place)].length === 1);
    return single.length > 0.8 * this.places.length;
  }

  show(state) {
    const { run, places } = this;
    const stale = new Set(this.fresh);
    this.fresh = [];
    for (let i = 0; i < places.length; i++) {
      const now = state * run.length + places[i];
      const isFresh = state > 0 && !run.masked_at[now] && run.filledBy(state, places[i]) === state;
      if (isFresh) this.fresh.push(i);
      if (this.state === null || isFresh || stale.has(i) || this.#differs(now, places[i])) {
        this.#paint(i, state, isFresh);
      }
    }
    this.state = state;
  }

  #differs(now, place) {
    const { run } = this;
    const then = this.state * run.length + place;
    // A token differs only if another change put it there.
    return run.masked_at[now] !== run.masked_at[then] || run.changes_at[now] !== run.changes_at[then];
  }

  #paint(i, state, isFresh) {
    const { run } = this;
    const [node, place] = [this.nodes[i], this.places[i]];
    const masked = run.isMasked(state, place);
    const pass = run.filledBy(state, place);
    const text = masked ? MASK : shownOf(run.tokenAt(state, place));
    if (node.firstChild.data !== text) node.firstChild.data = text;
    if (masked !== (node.ariaLabel !== null)) node.ariaLabel = masked ? "masked" : null;
    const colour = pass ? this.#colourOf(state, place, pass) : null;
    const kind = masked ? "masked" : !pass ? "given" : colour ? "filled" : "unknown";
    const name = `${kind}${isFresh ? " fresh" : ""}${place === this.pinned ? " pinned" : ""}`;
    node.className = node.dataset.box ? `${name} ${node.dataset.box}` : name;
    node.style.backgroundColor = colour ? colour.ground : "";
    node.style.color = colour ? colour.ink : "";
  }

  #colourOf(state, place, pass) {
    if (this.colour === "pass") return shade("pass", passShare(this.run, pass));
    const sure = this.run.sureAt(state, place);
    return sure === null ? null : shade("probability", sure / 10000);
  }

  // The element of a place, or none in this view.
  nodeOf = (place) => this.nodes[this.index.get(place)];

  pin(place) {
    this.pinned = place;
    this.root.querySelector(".pinned")?.classList.remove("pinned");
    this.nodeOf(place)?.classList.add("pinned");
  }

  // One stop for the tab key; the arrow keys go on from there.
  #tabStop(i) {
    if (this.stop !== undefined && this.nodes[this.stop]) this.nodes[this.stop].tabIndex = -1;
    this.stop = i;
    if (this.nodes[i]) this.nodes[i].tabIndex = 0;
  }

  // Move the focus by a key; false if the key is none of ours.
  move(key) {
    const side = this.root.classList.contains("board") ? Math.round(Math.sqrt(this.places.length)) : 1;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -side, ArrowDown: side };
    if (!(key in steps)) return false;
    const to = this.stop + steps[key];
    if (to >= 0 && to < this.nodes.length) this.focus(to);
    return true;
  }

  focus(i) {
    this.#tabStop(i);
    this.nodes[i].focus();
  }

  focused(node) {
    this.#tabStop(this.nodes.indexOf(node));
  }
}

// The first pass is the darkest, the last the brightest.
const passShare = (run, pass) => (run.passes > 1 ? (pass - 1) / (run.passes - 1) : 0.5);
