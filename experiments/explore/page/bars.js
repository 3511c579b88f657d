// One bar per label: before as an outline, after as a fill, the difference in points; and the prediction in words.
// A click on a bar puts its label in focus: the grid's colours and the lens are about it. Exports: Bars.

import { classColour } from "./colours.js";
import { node } from "./nodes.js";
import { byId, percent, points, showLabel } from "./words.js";

export class Bars {
  #model;
  #onFocus;
  #labels = null;
  #rows = []; // kept from answer to answer, so that nothing jumps and the focus stays

  constructor(model, onFocus) {
    this.#model = model;
    this.#onFocus = onFocus;
    byId("prediction").classList.toggle("next-tokens", model.kind !== "classifier");
  }

  // answer: of /api/run; focus: a label; draws: [n][K], probabilities of random draws
  show(answer, focus, draws) {
    if (this.#labels !== answer.labels.join("\0")) this.#makeRows(answer.labels);
    this.#rows.forEach((row, k) => {
      this.#fill(
        row,
        answer.before[k],
        answer.after[k],
        draws.map((p) => p[k]),
      );
      row.button.setAttribute("aria-pressed", String(answer.labels[k] === focus));
      row.button.classList.toggle("predicted", answer.labels[k] === answer.predicted);
    });
    this.#showVerdict(answer);
  }

  #makeRows(labels) {
    const focused = this.#rows.findIndex(({ button }) => button === document.activeElement);
    this.#labels = labels.join("\0");
    this.#rows = labels.map((label, k) => this.#makeRow(label, k));
    byId("bars").replaceChildren(...this.#rows.map(({ button }) => button));
    if (focused >= 0) this.#rows[Math.min(focused, labels.length - 1)].button.focus();
  }

  #makeRow(label, k) {
    const name = node("bdi", { class: "name" }, showLabel(label, this.#model));
    const [before, after, ticks] = ["before", "after", "ticks"].map((part) => node("span", { class: part }));
    const [number, difference] = ["number", "difference"].map((part) => node("span", { class: part }));
    const track = node("span", { class: "track", "aria-hidden": "true" }, after, before, ticks);
    const button = node("button", { type: "button", class: "bar" }, name, track, number, difference);
    button.style.setProperty("--class", classColour(k));
    button.addEventListener("click", () => this.#onFocus(label));
    return { button, before, after, ticks, number, difference };
  }

  #fill(row, before, after, draws) {
    row.before.style.width = `${100 * before}%`;
    row.after.style.width = `${100 * after}%`;
    row.number.textContent = percent(after);
    row.difference.textContent = points(after - before);
    row.button.title = `before ${percent(before)}, after ${percent(after)}`;
    row.ticks.replaceChildren(
      ...draws.map((p) => {
        const tick = node("i");
        tick.style.left = `${100 * p}%`;
        return tick;
      }),
    );
  }

  #showVerdict(answer) {
    const show = (label) => node("bdi", { class: "label" }, showLabel(label, this.#model));
    const p = (values, label) => percent(values[answer.labels.indexOf(label)]);
    const { predicted, predicted_before: former, before, after } = answer;
    const verdict = byId("verdict");
    const changed = predicted !== former;
    const what = this.#model.kind === "classifier" ? "prediction" : "next token";
    verdict.classList.toggle("changed", changed);
    if (changed) {
      verdict.replaceChildren(
        node("strong", {}, `The ${what} changed: `),
        show(former),
        " → ",
        show(predicted),
        node("span", { class: "quiet" }, ` ${p(after, predicted)}`),
      );
    } else {
      const same = p(before, predicted) === p(after, predicted);
      const numbers = same ? p(after, predicted) : `${p(before, predicted)} → ${p(after, predicted)}`;
      verdict.replaceChildren(
        same ? `The ${what} is ` : `The ${what} stays `,
        show(predicted),
        node("span", { class: "quiet" }, ` ${numbers}`),
      );
    }
  }
}
