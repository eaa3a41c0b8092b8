// What the page carries, unpacked: packing.py wrote it and says how.

const byId = (id) => document.getElementById(id);
const DATA = JSON.parse(byId("data").textContent);
const WIDTHS = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array };
const UNKNOWN = { entropy: 0xffff, sure: 0xffff, p: 0xffff, mean: 0xffffffff };

// A token: its id, the text to show, and the exact one if that is another.
const idOf = (entry) => DATA.tokens[entry][0];
const shownOf = (entry) => DATA.tokens[entry][1];
const exactOf = (entry) => DATA.tokens[entry][2] ?? `"${shownOf(entry)}"`;

async function inflate(text) {
  const packed = atob(text);
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

async function arraysOf(sample) {
  const buffer = await inflate(sample.data);
  const arrays = {};
  let at = 0;
  for (const [name, width, length] of sample.layout) {
    arrays[name] = new WIDTHS[width](buffer, at, length);
    at += width * length;
  }
  return arrays;
}

// One sample. State 0 is the sequence before the first pass, state s the one after pass s.
class Run {
  static async of(sample) {
    return new Run(sample, await arraysOf(sample));
  }

  constructor(sample, arrays) {
    Object.assign(this, sample, arrays);
    this.kept = this.entropy.length;
    this.#replay();
    this.#locate();
  }

  // The sequences, and for each place the change that put its token there (-1: none did).
  #replay() {
    const { length, passes, starts, where, what } = this;
    const cells = length * (passes + 1);
    this.tokens_at = new Uint32Array(cells);
    this.changes_at = new Int32Array(cells).fill(-1);
    this.pass_of = new Uint32Array(where.length);
    this.tokens_at.set(this.before);
    for (let pass = 1; pass <= passes; pass++) {
      const to = pass * length;
      this.tokens_at.copyWithin(to, to - length, to);
      this.changes_at.copyWithin(to, to - length, to);
      for (let change = starts[pass - 1]; change < starts[pass]; change++) {
        this.tokens_at[to + where[change]] = what[change];
        this.changes_at[to + where[change]] = change;
        this.pass_of[change] = pass;
      }
    }
  }

  // Where the probabilities stand that a pass saw at a place (-1: nowhere).
  #locate() {
    const { length, passes, first, masks } = this;
    this.masked_at = new Uint8Array(length * (passes + 1));
    this.masks_left = new Uint32Array(passes + 1);
    this.slots = new Int32Array(length * passes).fill(-1);
    let slot = 0;
    for (let cell = 0; cell < this.masked_at.length; cell++) {
      if (!((masks[cell >> 3] >> (cell & 7)) & 1)) continue;
      this.masked_at[cell] = 1;
      this.masks_left[Math.floor(cell / length)]++;
      if (cell < this.slots.length && cell % length >= first) this.slots[cell] = slot++;
    }
  }

  tokenAt = (state, place) => this.tokens_at[state * this.length + place];
  isMasked = (state, place) => this.masked_at[state * this.length + place] === 1;
  changeAt = (state, place) => this.changes_at[state * this.length + place];

  // The pass that filled a place; 0 where it is given or masked.
  filledBy(state, place) {
    const change = this.changeAt(state, place);
    return change < 0 || this.isMasked(state, place) ? 0 : this.pass_of[change];
  }

  // The pass that tells most about a place: the one that filled it, else the last that looked at
  // it, else the next that will; 0 if none.
  passFor(state, place) {
    if (!this.isMasked(state, place)) return this.filledBy(state, place);
    if (state && this.isMasked(state - 1, place)) return state;
    return state < this.passes ? state + 1 : 0;
  }

  slot = (pass, place) => (pass ? this.slots[(pass - 1) * this.length + place] : -1);

  // In 1/10,000 the probability that a place's token had when it was chosen; null if unknown.
  sureAt(state, place) {
    const change = this.changeAt(state, place);
    return change < 0 || this.sure[change] === UNKNOWN.sure ? null : this.sure[change];
  }

  // [entry, probability in 1/10,000], most probable first.
  topOf(slot) {
    const rows = [];
    for (let at = slot; at < this.p.length; at += this.kept) rows.push([this.tokens[at], this.p[at]]);
    return rows;
  }
}

const nats = (thousandths) => `${(thousandths / 1000).toFixed(3)} nats`;

function percent(parts) {
  if (parts === UNKNOWN.p) return "not recorded";
  return parts ? `${(parts / 100).toFixed(2)} %` : "< 0.01 %";
}
