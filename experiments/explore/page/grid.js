// The switches: one row per layer with its heads and its MLP. A click or Space switches, arrows move, Enter only looks.
// A cell's colour is what switching it off too would do to the probability of the label in focus.
// Exports: Grid, showLegend.

import { diverging } from "./colours.js";
import { node } from "./nodes.js";
import { isOff, nameUnit } from "./state.js";
import { isolate } from "./tokens.js";
import { byId, points, readableOn } from "./words.js";

const LEAST_LIMIT = 0.01; // a point: below it, all colours are near zero, so that noise does not look like an effect

export class Grid {
  #model;
  #rows = []; // of cells {button, units, unit: set where the cell is one unit}
  #at = [0, 2]; // the cell that Tab reaches: at first, head 0.0
  #acts;

  // acts: {toggle(units, unit), look(unit), readOut(unit)}: unit is null for a button of a whole row
  constructor(model, acts) {
    this.#model = model;
    this.#acts = acts;
    const grid = byId("grid");
    grid.style.setProperty("--heads", model.n_head);
    grid.classList.toggle("many", Math.max(model.n_head, model.n_layer) > 8);
    const names = ["layer", "heads", ...Array(model.n_head).keys(), "MLP"];
    grid.append(
      node(
        "div",
        { role: "row", class: "names" },
        ...names.map((name) => node("span", { role: "columnheader" }, String(name))),
      ),
    );
    for (let layer = 0; layer < model.n_layer; layer++) this.#rows.push(this.#addRow(grid, layer));
    grid.addEventListener("keydown", (event) => this.#onKey(event));
    grid.addEventListener("pointerleave", () => acts.readOut(null));
    this.#button(0, 2).tabIndex = 0;
  }

  #addRow(grid, layer) {
    const heads = Array.from({ length: this.#model.n_head }, (_, head) => ({ layer, head }));
    const mlp = { layer, head: null };
    const row = node("div", { role: "row" });
    const cells = [
      this.#makeCell("rowheader", `layer ${layer}`, [...heads, mlp], null, String(layer)),
      this.#makeCell("gridcell", `all heads of layer ${layer}`, heads, null, "all"),
      ...[...heads, mlp].map((unit) => this.#makeCell("gridcell", nameUnit(unit), [unit], unit, "")),
    ];
    row.append(...cells.map((cell) => cell.frame));
    cells.forEach((cell, column) => {
      cell.button.addEventListener("focus", () => this.#moveTo(layer, column, false));
    });
    grid.append(row);
    return cells;
  }

  #makeCell(role, name, units, unit, text) {
    const button = node("button", { type: "button", tabindex: "-1", "aria-pressed": "false", "data-name": name }, text);
    button.classList.add(unit ? "unit" : "row");
    button.addEventListener("click", (event) =>
      event.shiftKey && unit ? this.#acts.look(unit) : this.#acts.toggle(units, unit),
    );
    if (unit)
      for (const type of ["pointerenter", "focus"]) button.addEventListener(type, () => this.#acts.readOut(unit));
    return { frame: node("div", { role }, button), button, name, units, unit };
  }

  #button(row, column) {
    return this.#rows[row][column].button;
  }

  #moveTo(row, column, focus) {
    this.#button(...this.#at).tabIndex = -1;
    this.#at = [row, column];
    this.#button(row, column).tabIndex = 0;
    if (!focus) return;
    this.#button(row, column).focus();
    const { unit } = this.#rows[row][column];
    if (unit) this.#acts.look(unit);
  }

  #onKey(event) {
    const [row, column] = this.#at;
    const end = this.#rows[0].length - 1,
      bottom = this.#rows.length - 1;
    const whole = event.ctrlKey || event.metaKey;
    const target = {
      ArrowLeft: [row, Math.max(column - 1, 0)],
      ArrowRight: [row, Math.min(column + 1, end)],
      ArrowUp: [Math.max(row - 1, 0), column],
      ArrowDown: [Math.min(row + 1, bottom), column],
      Home: [whole ? 0 : row, 0],
      End: [whole ? bottom : row, end],
    }[event.key];
    if (target) this.#moveTo(...target, true);
    else if (event.key === "Enter" && this.#rows[row][column].unit) this.#acts.look(this.#rows[row][column].unit);
    else return;
    event.preventDefault();
  }

  // Paint switches at once; effects: {heads: [L][H], mlps: [L]} on the label in focus, or null while they are unknown.
  paint(state, effects, changes, label) {
    const values = effects ? effects.heads.flat() : []; // an MLP does so much more that it would leave the heads pale
    const limit = Math.max(LEAST_LIMIT, ...values.map(Math.abs));
    for (const { button, name, units, unit } of this.#rows.flat()) {
      const off = units.every((each) => isOff(state, each));
      button.setAttribute("aria-pressed", String(off));
      if (unit) {
        const effect =
          effects && !off
            ? unit.head === null
              ? effects.mlps[unit.layer]
              : effects.heads[unit.layer][unit.head]
            : null;
        const turns = !off && changes !== null && changes(unit);
        const looked = unit.head !== null && state.look[0] === unit.layer && state.look[1] === unit.head;
        this.#paintUnit(button, name, { off, effect, limit, turns, looked, label });
      } else button.setAttribute("aria-label", `${name} off`);
    }
    return limit;
  }

  #paintUnit(button, name, { off, effect, limit, turns, looked, label }) {
    const colour = diverging(effect === null ? 0 : effect / limit);
    button.style.setProperty("--effect", colour);
    button.style.setProperty("--on-effect", readableOn(colour));
    button.classList.toggle("turns", turns);
    button.classList.toggle("looked", looked);
    button.textContent = off ? "off" : effect === null ? "" : points(effect, 0);
    const effectWords =
      effect === null
        ? ""
        : `, ${points(effect)} points for ${isolate(label)}${turns ? ", changes the prediction" : ""}`;
    button.setAttribute("aria-label", `${name} off${effectWords}${looked ? ", shown in the attention view" : ""}`);
  }
}

// The limits of the colours, in points for the label in focus.
export function showLegend(limit, label) {
  const scale = node("span", { class: "scale", "aria-hidden": "true" });
  scale.style.background = `linear-gradient(to right, ${[-1, -0.5, 0, 0.5, 1].map((x) => diverging(x)).join(", ")})`;
  const name = node("bdi", {}, label);
  byId("legend").replaceChildren(
    `${points(-limit, 0)} `,
    scale,
    " ",
    `${points(limit, 0)} points for `,
    name,
    " and beyond",
  );
}
