// "As many random heads": does a random choice of as many others do as much? Exports: RandomHeads.

import { node } from "./nodes.js";
import { describeSwitches } from "./state.js";
import { percent, showLabel } from "./words.js";

export class RandomHeads {
  #panel;
  #button;
  #result = node("div", {});

  constructor(panel, onAsk) {
    this.#panel = panel;
    this.#button = node("button", { type: "button", id: "draw" }, "As many random heads");
    this.#button.addEventListener("click", onAsk);
    const text =
      "Switching anything off changes something. Do as many other heads and MLPs, chosen at random, do as much? " +
        "20 draws show it; words that you removed stay removed.";
    panel.append(node("p", { class: "quiet" }, text), this.#button, this.#result);
    this.#result.setAttribute("aria-live", "polite");
  }

  // answers: of answers.js
  show(state, { run, draws, drawing, problems }, model) {
    const nothing = state.heads.length + state.mlps.length === 0;
    this.#button.disabled = nothing || drawing;
    this.#panel.setAttribute("aria-busy", String(drawing));
    const say = (text, attributes = {}) => this.#result.replaceChildren(node("p", attributes, text));
    if (problems.random) say(problems.random, { class: "error" });
    else if (nothing) say("Nothing is switched off: switch a head off first.");
    else if (drawing) say("drawing 20 times …");
    else if (draws === null) say(`Now: ${describeSwitches({ ...state, tokens: {} })}.`);
    else this.#result.replaceChildren(...tabulateDraws(draws, run, model));
  }
}

function tabulateDraws(answer, run, model) {
  const yours =
    run.predicted === run.predicted_before ? "With your switches it did not." : "With your switches it did.";
  const overlaps = answer.overlaps ? ` ${answer.overlaps} of them hold units of yours: too few others are left.` : "";
  const names = [
    model.kind === "classifier" ? "class" : "next token",
    "before",
    "yours",
    "random: lowest",
    "mean",
    "highest",
  ];
  const body = run.labels.map((label, k) => {
    const draws = answer.after.map((p) => p[k]);
    const mean = draws.reduce((sum, p) => sum + p, 0) / draws.length;
    const cells = [run.before[k], run.after[k], Math.min(...draws), mean, Math.max(...draws)].map((p) =>
      node("td", {}, percent(p)),
    );
    return node("tr", {}, node("th", { scope: "row" }, node("bdi", {}, showLabel(label, model))), ...cells);
  });
  const head = node("tr", {}, ...names.map((name) => node("th", { scope: "col" }, name)));
  return [
    node(
      "p",
      {},
      node("strong", {}, `The prediction changed in ${answer.changed} of ${answer.draws} random draws. `),
      yours,
    ),
    node("table", { class: "draws" }, node("thead", {}, head), node("tbody", {}, ...body)),
    node("p", { class: "quiet" }, `The ticks on the bars are these draws.${overlaps}`),
  ];
}
