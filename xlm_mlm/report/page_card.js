// What was probable at one place: beside the token, or at the foot of a narrow screen.

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

class Card {
  constructor(root, close) {
    this.root = root;
    this.close = element("button", "close", "×");
    this.close.type = "button";
    this.close.setAttribute("aria-label", "Close");
    this.close.addEventListener("click", close);
  }

  hide() {
    this.root.hidden = true;
  }

  // Show a place as it is in a state; `pass` tells of another pass than the one that tells most.
  show(run, state, place, anchor, pinned, pass = run.passFor(state, place)) {
    const slot = run.slot(pass, place);
    this.root.replaceChildren(...this.#head(run, state, place, pinned));
    if (slot < 0) this.root.append(element("p", "quiet", whyNone(run, state, place, pass)));
    else this.root.append(this.#table(run, pass, place, slot), this.#entropy(run, slot));
    this.root.hidden = false;
    this.#place(anchor);
  }

  #head(run, state, place, pinned) {
    const masked = run.isMasked(state, place);
    const entry = run.tokenAt(state, place);
    const head = element("header");
    head.append(
      element("b", masked ? "face masked" : "face", masked ? MASK : shownOf(entry)),
      element("span", "quiet", whereabouts(run, state, place)),
    );
    if (pinned) head.append(this.close);
    return [head, element("p", "exact quiet", `${exactOf(entry)}, token ${idOf(entry)}`)];
  }

  #table(run, pass, place, slot) {
    const table = element("table");
    table.append(element("caption", "", `Pass ${pass} of ${run.passes} saw here`));
    const chosen = run.isMasked(pass, place) ? -1 : run.tokenAt(pass, place);
    const rows = run.topOf(slot);
    for (const row of rows) table.append(this.#row(...row, chosen));
    if (chosen >= 0 && !rows.some(([entry]) => entry === chosen)) {
      table.append(this.#row(chosen, run.sureAt(pass, place) ?? UNKNOWN.p, chosen));
    }
    return table;
  }

  #row(entry, parts, chosen) {
    const row = element("tr", entry === chosen ? "chosen" : "");
    const name = element("th", "", shownOf(entry));
    name.scope = "row";
    const bar = element("i");
    bar.style.width = parts === UNKNOWN.p ? 0 : `${parts / 100}%`;
    const track = element("td", "track");
    track.append(bar);
    row.append(name, track, element("td", "", percent(parts)));
    row.append(element("td", "mark", entry === chosen ? "✓ chosen" : ""));
    return row;
  }

  #entropy(run, slot) {
    const known = run.entropy[slot] !== UNKNOWN.entropy;
    return element("p", "", `Entropy ${known ? nats(run.entropy[slot]) : "not recorded"}`);
  }

  // Beside the board; else below the anchor if there is room, else above. Never over the edge.
  #place(anchor) {
    const { root } = this;
    if (isNarrow()) {
      root.style.left = root.style.top = "";
      return;
    }
    const box = anchor.getBoundingClientRect?.() ?? anchor;
    const board = anchor.closest?.(".board")?.getBoundingClientRect();
    const [width, height] = [root.offsetWidth, root.offsetHeight];
    const [right, bottom] = [document.documentElement.clientWidth - width - 8, innerHeight - height - 8];
    let [left, top] = [box.left, box.bottom + 8];
    if (board && board.right + 12 <= right) [left, top] = [board.right + 12, box.top];
    else if (top > bottom && box.top - 16 > height) top = box.top - 8 - height;
    root.style.left = `${Math.max(8, Math.min(left, right))}px`;
    root.style.top = `${Math.max(8, Math.min(top, bottom))}px`;
  }

  // At the foot of a narrow screen the card must not hide what it tells of.
  reveal(anchor) {
    const hidden = anchor.getBoundingClientRect().bottom + 12 - this.root.getBoundingClientRect().top;
    if (isNarrow() && hidden > 0) scrollBy(0, hidden);
  }
}

const isNarrow = () => matchMedia("(max-width: 40rem)").matches;

function whereabouts(run, state, place) {
  const pass = run.filledBy(state, place);
  const status = run.isMasked(state, place) ? "masked" : pass ? `filled by pass ${pass}` : "given";
  const cell = run.board?.indexOf(place) ?? -1;
  const side = Math.sqrt(run.board?.length ?? 0);
  const at = cell < 0 ? "" : `row ${Math.floor(cell / side) + 1}, column ${(cell % side) + 1}, `;
  return `${at}position ${place}: ${status}`;
}

function whyNone(run, state, place, pass) {
  if (!run.isMasked(state, place) && !pass) return "No pass looked here: the token was given.";
  if (!pass) return "No pass has looked here yet.";
  if (place < run.first) return `Probabilities were kept from position ${run.first} on.`;
  return `Pass ${pass} did not look here: it was not masked.`;
}
