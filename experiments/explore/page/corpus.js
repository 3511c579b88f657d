// What `make ablate` measured over the corpus for the unit in hand and for what is switched off. Exports: showCorpus.

import { node } from "./nodes.js";
import { isOff, nameUnit } from "./state.js";
import { points } from "./words.js";

export function showCorpus(panel, findings, state, model) {
  if (findings.why !== null) {
    panel.replaceChildren(node("p", {}, findings.why));
    return;
  }
  const single = [
    state.unit,
    ...allUnits(model).filter((unit) => isOff(state, unit) && nameUnit(unit) !== nameUnit(state.unit)),
  ];
  const units = [
    ...wholeRows(state, model),
    ...single.map((unit) => ({ ...unit, kind: unit.head === null ? "mlp" : "head", name: nameUnit(unit) })),
  ];
  const note =
    "What closing a unit does over the test texts, not over this one, each closed alone. Recall: by how many points " +
    "it changes (of all texts: accuracy). Share: by how much of itself what tells the class from the others changes; " +
    "negative is lost. The limits hold for all units of a kind at once. Rank 1: the largest of its kind.";
  const parts = units.slice(0, 8).map((unit) => tabulateFindings(unit, findings.rows, state));
  const more =
    units.length > 8 ? [node("p", { class: "quiet" }, `and ${units.length - 8} more units that are switched off`)] : [];
  panel.replaceChildren(node("p", { class: "quiet" }, note), ...parts, ...more);
}

function allUnits(model) {
  const layers = [...Array(model.n_layer).keys()],
    heads = [...Array(model.n_head).keys()];
  return layers.flatMap((layer) => [...heads.map((head) => ({ layer, head })), { layer, head: null }]);
}

// Layers of which everything is off, or all heads: closed together.
function wholeRows(state, model) {
  return [...Array(model.n_layer).keys()].flatMap((layer) => {
    const heads = [...Array(model.n_head).keys()].every((head) => isOff(state, { layer, head }));
    if (!heads) return [];
    const whole = isOff(state, { layer, head: null });
    return [
      {
        kind: whole ? "layer" : "heads",
        layer,
        head: null,
        name: whole ? `layer ${layer}` : `all heads of layer ${layer}`,
      },
    ];
  });
}

function tabulateFindings(unit, findings, state) {
  const all = findings.filter((row) => row.kind === unit.kind && row.layer === unit.layer && row.head === unit.head);
  const sameFill = all.filter((row) => row.fill === state.fill);
  const rows = sameFill.length ? sameFill : all;
  if (!rows.length) return node("p", {}, `${unit.name}: make ablate did not measure it in this run.`);
  const names = ["class", "recall, points", "share", "its limits", "verdict", "rank", "fill", "texts"];
  const body = rows.map((row) => {
    const cells = [points(row.effect), ...describeShare(row), `${row.rank} of ${row.of}`, row.fill, String(row.n)];
    const attributes = { class: row.verdict === "matters" ? "matters" : null };
    return node(
      "tr",
      attributes,
      node("th", { scope: "row" }, row.class),
      ...cells.map((text) => node("td", {}, text)),
    );
  });
  const head = node("tr", {}, ...names.map((name) => node("th", { scope: "col" }, name)));
  const otherFill = sameFill.length
    ? ""
    : `: make ablate measured ${[...new Set(rows.map((row) => row.fill))].join(", ")}, not ${state.fill}`;
  return node(
    "table",
    { class: "corpus" },
    node("caption", {}, unit.name + otherFill),
    node("thead", {}, head),
    node("tbody", {}, ...body),
  );
}

// There is none over all classes.
function describeShare(row) {
  if (row.share === null) return ["", "", ""];
  return [`${points(row.share)} %`, `${points(row.share_low)} to ${points(row.share_high)} %`, row.verdict];
}
