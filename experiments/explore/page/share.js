// What leaves the page: the experiment as JSON, its numbers as rows of a CSV. Exports: experimentFile, listRows.

import { askFor, nameUnit } from "./state.js";

// The file that `explore.py --check FILE` runs again.
export function experimentFile(model, state, answer) {
  const { name, run, sha256, corpus } = model;
  const { labels, before, after, predicted, ids } = answer;
  return {
    format: "headgate experiment",
    version: 1,
    model: { name, run, sha256, corpus },
    experiment: askFor(state),
    answer: { labels, before, after, predicted, ids },
  };
}

// unit, label, before, after: first the switches as they are, then each unit switched off too
// (before: the switches alone).
// units: of /api/heads, or null
export function listRows(answer, units) {
  const rows = [["unit", "label", "before", "after"]];
  const add = (name, before, after) =>
    answer.labels.forEach((label, k) => rows.push([name, label, before[k], after[k]]));
  add("switches", answer.before, answer.after);
  units?.heads.forEach((row, layer) =>
    row.forEach((p, head) => add(nameUnit({ layer, head }) + " too", answer.after, p)),
  );
  units?.mlps.forEach((p, layer) => add(nameUnit({ layer, head: null }) + " too", answer.after, p));
  return rows;
}
