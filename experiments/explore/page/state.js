// The one state of the page: a text, what is switched off in it, and what is looked at. Every change makes a new state.
//
// A state is a plain object: {text, heads: ["0.3"], mlps: [2], tokens: {4: "hide"}, fill, other, removal, look: [0, 3],
// unit: {layer, head or null for an MLP}, focus: a label or null, view: the name of a tab}.
// Exports: emptyState, nameUnit, isOff, toggleUnits, countSwitches, askFor, sameExperiment, describeSwitches,
// UndoStack.

export function emptyState(text, fill, removal) {
  const unit = { layer: 0, head: 0 };
  return {
    text,
    heads: [],
    mlps: [],
    tokens: {},
    fill,
    other: "",
    removal,
    look: [0, 0],
    unit,
    focus: null,
    view: "attention",
  };
}

// A unit is {layer, head}; head null means the layer's MLP.
export function nameUnit(unit) {
  return unit.head === null ? `MLP ${unit.layer}` : `head ${unit.layer}.${unit.head}`;
}

export function isOff(state, unit) {
  return unit.head === null ? state.mlps.includes(unit.layer) : state.heads.includes(`${unit.layer}.${unit.head}`);
}

// Switch all of these units off, or, where all of them are off, on again.
export function toggleUnits(state, units) {
  const off = !units.every((unit) => isOff(state, unit));
  const heads = new Set(state.heads),
    mlps = new Set(state.mlps);
  for (const unit of units) {
    const [set, key] = unit.head === null ? [mlps, unit.layer] : [heads, `${unit.layer}.${unit.head}`];
    if (off) set.add(key);
    else set.delete(key);
  }
  const order = (name) => name.split(".").reduce((sum, n) => 1000 * sum + Number(n), 0);
  return {
    ...state,
    heads: [...heads].sort((a, b) => order(a) - order(b)),
    mlps: [...mlps].sort((a, b) => a - b),
  };
}

export function countSwitches(state) {
  return state.heads.length + state.mlps.length + Object.keys(state.tokens).length;
}

// The body of a request: only what the server takes.
export function askFor(state) {
  const body = { text: state.text, fill: state.fill };
  if (state.heads.length) body.heads = state.heads.map((name) => name.split(".").map(Number));
  if (state.mlps.length) body.mlps = state.mlps;
  if (Object.keys(state.tokens).length) body.tokens = state.tokens;
  if (state.fill === "text") body.other = state.other;
  return body;
}

export function sameExperiment(a, b) {
  return JSON.stringify(askFor(a)) === JSON.stringify(askFor(b));
}

// "head 0.3, MLP 2 off; 1 token hidden"
export function describeSwitches(state) {
  const units = [...state.heads.map((name) => `head ${name}`), ...state.mlps.map((layer) => `MLP ${layer}`)];
  const shown = units.length > 4 ? `${units.length} units` : units.join(", ");
  const past = { hide: "hidden", delete: "deleted", fill: "filled" };
  const words = Object.entries(past).flatMap(([removal, word]) => {
    const n = Object.values(state.tokens).filter((value) => value === removal).length;
    return n ? [`${n} ${n === 1 ? "token" : "tokens"} ${word}`] : [];
  });
  return [...(units.length ? [`${shown} off`] : []), ...words].join("; ") || "everything on";
}

// What Ctrl-Z goes back to. Typing is one step however many letters it takes, until something else is changed.
export class UndoStack {
  #past = [];
  #kind = null;

  push(state, kind) {
    if (kind !== "typing" || this.#kind !== "typing") this.#past.push(state);
    this.#kind = kind;
    if (this.#past.length > 200) this.#past.shift();
  }

  pop() {
    this.#kind = null;
    return this.#past.pop() ?? null;
  }

  get length() {
    return this.#past.length;
  }
}
