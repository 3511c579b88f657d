// The lens as a table, tokens x layers: how likely the label in focus would be if the output layer read this place.
// Exports: showLens.

import { sequential } from "./colours.js";
import { node } from "./nodes.js";
import { isolate, labelTokens, tokenElement } from "./tokens.js";
import { percent, readableOn, showLabel } from "./words.js";

// answer: of /api/lens, with `tokens`: those that are not deleted
export function showLens(panel, answer, focus, model) {
  const k = answer.labels.indexOf(focus);
  const rows = answer.probabilities;
  const name = isolate(showLabel(focus, model));
  const title = `What the output layer would say at each token and layer: the probability of ${name}, in percent.`;
  if (k < 0) {
    panel.replaceChildren(
      node(
        "p",
        { class: "quiet" },
        `The lens has no numbers for ${isolate(showLabel(focus, model))}: choose another bar.`,
      ),
    );
    return;
  }
  const depth = (l) => (l === 0 ? "input" : `after ${l - 1}`);
  const head = node(
    "tr",
    {},
    node("th", { scope: "col" }, "token"),
    ...rows.map((_, l) => node("th", { scope: "col" }, depth(l))),
  );
  const body = labelTokens(answer.tokens).map((label, position) => {
    const cells = rows.map((row, l) => {
      const p = row[position][k];
      const cell = node("td", { title: `${isolate(label)}, ${depth(l)}: ${percent(p)}` }, (100 * p).toFixed(0));
      cell.style.backgroundColor = sequential(p);
      cell.style.color = readableOn(sequential(p));
      return cell;
    });
    return node("tr", {}, node("th", { scope: "row" }, tokenElement(label)), ...cells);
  });
  const table = node(
    "table",
    { class: "lens" },
    node("caption", {}, title),
    node("thead", {}, head),
    node("tbody", {}, ...body),
  );
  const note =
    "The network reads its answer at the last token, after the last layer. " +
      "The other cells are what-ifs, not steps of its reasoning.";
  panel.replaceChildren(table, node("p", { class: "quiet" }, note));
}
