// Neuron view: how one query of one head comes by its weights, key by key: q, k, their product, score, mask, softmax.
//
// neuronsPicture(scene)                     an SVG
// drawNeurons(element, scene, {onNeuron})   the same; arrows or the mouse move over keys and dimensions, and
//   `onNeuron(key, dimension, parts)` tells the numbers of one; parts as recording.neuron returns them

import { moveCursor, node, svgNode, svgText } from "./nodes.js";
import { shorten } from "./tokens.js";
import { diverging, palette, sequential } from "./colours.js";

const KEYS_Y = 92; // where the first key stands: titles and q are above

export function neuronsPicture(scene) {
  return buildNeurons(scene, scene.recording.neuron(scene.layer, scene.head, scene.query)).svg;
}

export function drawNeurons(element, scene, { onNeuron }) {
  const parts = scene.recording.neuron(scene.layer, scene.head, scene.query);
  const { svg, layout } = buildNeurons(scene, parts);
  const [T, D] = [parts.k.length, parts.q.length];
  const cursor = svgNode("rect", { fill: "none", stroke: palette(scene.theme).accent, "stroke-width": 2, opacity: 0 });
  svg.append(cursor);
  svg.setAttribute("aria-hidden", "true");
  const body = node("div", {
    class: "neurons",
    tabindex: "0",
    role: "application",
    "aria-roledescription": "q, k and their product",
    "aria-label": `Head ${scene.layer}.${scene.head}, query ${scene.query}: arrows move over keys and dimensions`,
    "data-spot": "neurons",
  });
  let cell = { row: scene.query, column: 0 };

  function show(next, start = layout.k) {
    cell = next;
    const x = start + cell.column * layout.cell - 1;
    const place = { x, y: KEYS_Y + cell.row * layout.row, width: layout.cell + 2, height: layout.row - 1, opacity: 1 };
    for (const [name, value] of Object.entries(place)) cursor.setAttribute(name, value);
    onNeuron(cell.row, cell.column, parts);
  }
  const hide = () => cursor.setAttribute("opacity", 0);
  svg.addEventListener("mousemove", (event) => {
    const box = svg.getBoundingClientRect();
    const [x, row] = [event.clientX - box.left, Math.floor((event.clientY - box.top - KEYS_Y) / layout.row)];
    const start = x < layout.product ? layout.k : layout.product;
    const column = Math.floor((x - start) / layout.cell);
    if (row >= 0 && row < T && column >= 0 && column < D) show({ row, column }, start);
    else hide();
  });
  svg.addEventListener("mouseleave", hide);
  body.addEventListener("focus", () => show(cell));
  body.addEventListener("blur", hide);
  body.addEventListener("keydown", (event) => {
    const next = moveCursor(event.key, cell, T, D);
    if (!next) return;
    event.preventDefault();
    show(next);
    cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  body.append(svg);
  element.append(body);
  return { target: cursor };
}

function buildNeurons(scene, parts) {
  const colours = palette(scene.theme);
  const [T, D] = [parts.k.length, parts.q.length];
  const cell = Math.min(Math.max(Math.floor((scene.width - 410) / (2 * D)), 2), 9);
  const layout = { cell, row: 20, k: 130, product: 130 + D * cell + 22 };
  layout.score = layout.product + D * cell + 22;
  layout.weight = layout.score + 112;
  const [width, height] = [layout.weight + 118, KEYS_Y + T * layout.row + 8];
  const svg = svgNode("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  svg.append(svgNode("rect", { width, height, fill: colours.ground }));
  const limit = Math.max(greatest([parts.q]), greatest(parts.k), 1e-9);
  const productLimit = Math.max(greatest(parts.product), 1e-9);
  addTitles(svg, scene, layout, limit, productLimit);
  addStrip(svg, parts.q, layout.k, 52, limit, layout, scene.theme);
  const scoreLimit = Math.max(greatest([parts.score]), 1e-9);
  for (let key = 0; key < T; key += 1) {
    const y = KEYS_Y + key * layout.row;
    const group = svgNode("g", parts.masked[key] ? { opacity: 0.45 } : {});
    const text = { fill: colours.ink, "text-anchor": "end", "unicode-bidi": "plaintext" };
    group.append(svgText(122, y + 9, shorten(scene.recording.labels[key], 15), text));
    addStrip(group, parts.k[key], layout.k, y, limit, layout, scene.theme);
    addStrip(group, parts.product[key], layout.product, y, productLimit, layout, scene.theme);
    addScore(group, parts, key, y, layout, scoreLimit, scene.theme);
    svg.append(group);
  }
  return { svg, layout };
}

function addTitles(svg, scene, layout, limit, productLimit) {
  const colours = palette(scene.theme);
  const title = (x, y, text, attributes = {}) =>
    svg.append(svgText(x, y, text, { fill: colours.quiet, "font-size": 11, ...attributes }));
  title(layout.k, 12, `-${limit.toFixed(1)}`, { fill: colours.quiet });
  for (let step = 0; step < 24; step += 1) {
    const fill = diverging((step - 11.5) / 11.5, scene.theme);
    svg.append(svgNode("rect", { x: layout.k + 30 + step * 3, y: 7, width: 3, height: 10, fill }));
  }
  title(layout.k + 106, 12, `+${limit.toFixed(1)}  (products ±${productLimit.toFixed(1)})`);
  title(layout.k, 40, "q of the query");
  const ink = { fill: colours.ink, "font-weight": 700, "text-anchor": "end", "font-size": 12 };
  title(122, 61, shorten(scene.recording.labels[scene.query], 14), ink);
  title(layout.k, 82, "k of each key");
  title(layout.product, 82, "q × k");
  title(layout.score, 82, scene.recording.scale === 1 ? "sum: score" : "sum / √D: score");
  title(layout.weight, 82, "softmax: weight");
}

function addStrip(parent, values, x, y, limit, layout, theme) {
  values.forEach((value, d) => {
    const place = { x: x + d * layout.cell, y, width: layout.cell, height: layout.row - 3 };
    const fill = diverging(value / limit, theme);
    parent.append(svgNode("rect", { ...place, fill, "shape-rendering": "crispEdges" }));
  });
}

function addScore(parent, parts, key, y, layout, limit, theme) {
  const colours = palette(theme);
  const [score, weight] = [parts.score[key], parts.weights[key]];
  const reach = (30 * Math.abs(score)) / limit;
  const zero = layout.score + 78;
  const bar = { y: y + 3, height: layout.row - 9, fill: diverging(Math.sign(score) * 0.75, theme) };
  const number = { fill: colours.ink, "text-anchor": "end", "font-size": 11 };
  parent.append(svgText(layout.score + 42, y + 9, score.toFixed(2), number));
  parent.append(svgNode("rect", { x: score < 0 ? zero - reach : zero, width: reach, ...bar }));
  parent.append(svgNode("rect", { x: zero, y, width: 1, height: layout.row - 3, fill: colours.line }));
  if (parts.masked[key]) {
    parent.append(svgText(layout.weight, y + 9, "masked", { ...number, "text-anchor": "start" }));
    return;
  }
  const size = { width: 60 * weight, height: layout.row - 9 };
  parent.append(svgText(layout.weight + 36, y + 9, weight.toFixed(3), number));
  parent.append(svgNode("rect", { x: layout.weight + 44, y: y + 3, ...size, fill: sequential(0.65, theme) }));
}

function greatest(rows) {
  return rows.reduce((most, row) => row.reduce((high, value) => Math.max(high, Math.abs(value)), most), 0);
}
