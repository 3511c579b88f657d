// The numbers of every view as rows: for the table view, which reads aloud what the pictures show, and for CSV files.
//
// viewRows(view, scene)          lists of cells, the header first
// drawTable(element, scene)      the table view: the chosen query; all heads at it; every query of the head
// describePoint(scene, [layer, head], side, index)
//   "Head 0.1: so (2) looks at I 0.43, so 0.21": the keys at which a query looks most; or who looks at a key

import { node } from "./nodes.js";
import { tokenElement } from "./tokens.js";

export function viewRows(view, scene) {
  if (view === "heads") return headRows(scene);
  if (view === "neurons") return neuronRows(scene);
  return view === "table" ? queryRows(scene) : matrixRows(scene);
}

export function describePoint({ recording, maps }, [layer, head], side, index) {
  const name = `Head ${layer}.${head}: ${recording.names[index]} (${index})`;
  const map = maps(layer, head);
  if (side === "query") return `${name} looks at ${nameTopKeys(recording, map, index)}`;
  return `${name} is looked at by ${nameTopQueries(recording, map, index)}`;
}

function nameTopKeys(recording, map, query) {
  if (!map) return "";
  const keys = Array.from({ length: query + 1 }, (_, key) => key);
  const top = keys.sort((a, b) => map.at(query, b) - map.at(query, a)).slice(0, 5);
  const seen = top.filter((key) => map.at(query, key) >= 0.005);
  const names = seen.map((key) => `${recording.names[key]} ${map.at(query, key).toFixed(2)}`);
  return names.join(", ") || "no token above 0.005";
}

function nameTopQueries(recording, map, key) {
  const all = recording.labels.map((_, query) => query);
  const seen = all.filter((query) => query >= key && map && map.at(query, key) >= 0.05);
  const top = seen.sort((a, b) => map.at(b, key) - map.at(a, key)).slice(0, 5);
  const names = top.map((query) => `${recording.names[query]} ${map.at(query, key).toFixed(2)}`);
  return names.join(", ") || "no token above 0.05";
}

// One query of one head: a row per key, later keys left out, as they do not exist for it.
function queryRows({ recording, layer, head, query, map, skipFirst }) {
  const [weights, moved] = [recording.map(layer, head), recording.map(layer, head, true)];
  const neuron = recording.neuron(layer, head, query);
  const rows = recording.labels
    .slice(0, query + 1)
    .map((label, key) => [
      key,
      label,
      write(weights?.at(query, key)),
      write(moved?.at(query, key)),
      ...(neuron ? [write(neuron.score[key])] : []),
      ...(skipFirst ? [write(map?.at(query, key))] : []),
    ]);
  const more = [...(neuron ? ["score"] : []), ...(skipFirst ? ["without the first"] : [])];
  return [["key", "token", "weight", "what moved", ...more], ...rows];
}

function matrixRows({ recording, map }) {
  const rows = [["query", "query_token", "key", "key_token", "weight"]];
  recording.labels.forEach((label, query) => {
    for (let key = 0; key <= query && map; key += 1) {
      rows.push([query, label, key, recording.labels[key], write(map.at(query, key))]);
    }
  });
  return rows;
}

// All heads at one query: a row per head, a column per key.
function headRows({ recording, query, maps }) {
  const rows = [["layer", "head", ...recording.labels.slice(0, query + 1).map((label, key) => `${key} ${label}`)]];
  for (let layer = 0; layer < recording.layers; layer += 1) {
    for (let head = 0; head < recording.heads; head += 1) {
      const map = maps(layer, head);
      if (map) rows.push([layer, head, ...rows[0].slice(2).map((_, key) => write(map.at(query, key)))]);
    }
  }
  return rows;
}

function neuronRows({ recording, layer, head, query }) {
  const neuron = recording.neuron(layer, head, query);
  if (!neuron) return [["key", "token"]];
  const dimensions = Array.from(neuron.q, (_, d) => d);
  const header = ["key", "token", "score", "masked", "weight"];
  const rows = recording.labels.map((label, key) => {
    const numbers = [neuron.score[key], neuron.masked[key] ? 1 : 0, neuron.weights[key]];
    return [key, label, ...numbers, ...neuron.k[key], ...neuron.product[key]];
  });
  const q = ["query", recording.labels[query], "", "", "", ...neuron.q, ...dimensions.map(() => "")];
  return [[...header, ...dimensions.map((d) => `k_${d}`), ...dimensions.map((d) => `product_${d}`)], q, ...rows];
}

export function drawTable(element, scene) {
  const { recording, layer, head, query } = scene;
  const title = `Head ${layer}.${head}, query ${query}`;
  element.append(
    rowsTable(queryRows(scene), node("caption", {}, `${title}: `, tokenElement(recording.labels[query]))),
    openTable("Every query of this head", "rows: queries; columns: keys; weights as shown", () => squareRows(scene)),
    openTable("All heads at this query", "rows: heads; columns: keys; weights as shown", () => headRows(scene)),
  );
  return {};
}

function squareRows({ recording, map }) {
  const header = ["query", "token", ...recording.labels.map((label, key) => `${key} ${label}`)];
  const rows = recording.labels.map((label, query) => [
    query,
    label,
    ...recording.labels.map((_, key) => (key > query || !map ? "" : map.at(query, key).toFixed(2))),
  ]);
  return [header, ...rows];
}

// A table of T x T numbers takes a browser seconds: it is built when it is opened.
function openTable(title, caption, makeRows) {
  const box = node("details", { class: "more-rows" }, node("summary", {}, title));
  const fill = () => {
    if (box.children.length === 1) box.append(rowsTable(makeRows(), node("caption", {}, caption)));
  };
  box.addEventListener("toggle", fill, { once: true });
  return box;
}

function rowsTable([header, ...rows], caption) {
  const head = header.map((name) => node("th", { scope: "col" }, isNumbered(name) ? tokenElement(name) : name));
  const body = rows.map((row) =>
    node("tr", {}, ...row.map((cell, at) => (at === 0 ? node("th", { scope: "row" }, String(cell)) : cellOf(cell)))),
  );
  const parts = [caption, node("thead", {}, node("tr", {}, ...head)), node("tbody", {}, ...body)];
  return node("table", { class: "numbers" }, ...parts);
}

function isNumbered(name) {
  return /^\d+ /.test(name);
}

function cellOf(cell) {
  return typeof cell === "string" ? node("td", {}, tokenElement(cell)) : node("td", {}, String(cell));
}

function write(value) {
  return value === undefined ? "" : value.toFixed(4);
}
