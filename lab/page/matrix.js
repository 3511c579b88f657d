// Matrix view: queries down, keys across; a cell is as strong as its weight. The upper triangle does not exist.
//
// matrixPicture(scene)                             an SVG
// drawMatrix(element, scene, {onQuery, onCell})    a canvas with labels that stay in sight. Arrows move a cell cursor,
//   whose number `onCell(query, key)` tells; Enter or a click makes its row the query

import { moveCursor, node, svgNode, svgText } from "./nodes.js";
import { shorten, tokenElement } from "./tokens.js";
import { palette, sequential } from "./colours.js";

export function drawMatrix(element, scene, { onQuery, onCell }) {
  const { labels } = scene.recording;
  const T = labels.length;
  const size = Math.min(Math.max(Math.floor(Math.min(scene.width - 140, 430) / T), 16), 30);
  const canvas = paintMatrix(scene);
  canvas.style.width = canvas.style.height = `${T * size}px`;
  const cursor = node("div", { class: "matrix-cursor", hidden: true });
  cursor.style.width = cursor.style.height = `${size}px`;
  const rowMark = node("div", { class: "matrix-query" });
  const place = { top: scene.query * size, height: size, width: (scene.query + 1) * size };
  for (const [name, pixels] of Object.entries(place)) rowMark.style[name] = `${pixels}px`;
  const body = node("div", {
    class: "matrix-body",
    tabindex: "0",
    role: "application",
    "aria-roledescription": "matrix",
    "aria-label": `Weights of head ${scene.layer}.${scene.head}: arrows move over its cells, Enter chooses the query`,
    "data-spot": "matrix",
  });
  let cell = { row: scene.query, column: scene.query };

  function show(next) {
    cell = { row: next.row, column: Math.min(next.column, next.row) }; // beyond the diagonal there is nothing
    cursor.hidden = false;
    Object.assign(cursor.style, { left: `${cell.column * size}px`, top: `${cell.row * size}px` });
    onCell(cell.row, cell.column);
  }
  const cellUnder = (event) => {
    const box = canvas.getBoundingClientRect();
    const place = (offset) => Math.min(Math.max(Math.floor(offset / size), 0), T - 1);
    return { row: place(event.clientY - box.top), column: place(event.clientX - box.left) };
  };
  body.addEventListener("mousemove", (event) => show(cellUnder(event)));
  body.addEventListener("mouseleave", () => (cursor.hidden = true));
  body.addEventListener("focus", () => show(cell));
  body.addEventListener("blur", () => (cursor.hidden = true));
  body.addEventListener("click", (event) => onQuery(cellUnder(event).row));
  body.addEventListener("keydown", (event) => {
    const next = moveCursor(event.key, cell, T, T);
    if (next) show(next);
    else if (event.key === "Enter") onQuery(cell.row);
    else return;
    event.preventDefault();
    cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  body.append(canvas, rowMark, cursor);
  const corner = node("div", { class: "matrix-corner" }, "query ↓  key →");
  const columns = labelMatrix(scene, "matrix-columns", size, "width");
  const rows = labelMatrix(scene, "matrix-rows", size, "height");
  element.append(node("div", { class: "matrix" }, corner, columns, rows, body));
  return { target: rows.children[scene.query] };
}

function labelMatrix({ recording, query }, name, size, side) {
  const box = node("div", { class: name });
  recording.labels.forEach((label, index) => {
    const item = node("div", { class: "matrix-label", title: label }, tokenElement(label));
    item.style[side] = item.style.lineHeight = `${size}px`;
    item.classList.toggle("is-hidden", recording.hidden.has(index));
    item.classList.toggle("is-query", name === "matrix-rows" && index === query);
    box.append(item);
  });
  return box;
}

function paintMatrix({ recording, map, theme }) {
  const T = recording.tokens.length;
  const canvas = node("canvas", { width: T, height: T }); // a pixel a cell; the style sheet keeps their edges sharp
  const pen = canvas.getContext("2d");
  for (let i = 0; i < T; i += 1) {
    for (let j = 0; j <= i; j += 1) {
      pen.fillStyle = sequential(map ? map.at(i, j) : 0, theme);
      pen.fillRect(j, i, 1, 1);
    }
  }
  return canvas;
}

export function matrixPicture(scene) {
  const { recording, map, theme } = scene;
  const T = recording.tokens.length;
  const colours = palette(theme);
  const size = T <= 64 ? 20 : 12;
  const margin = 130;
  const width = margin + T * size + 8;
  const svg = svgNode("svg", { width, height: width, viewBox: `0 0 ${width} ${width}` });
  svg.append(svgNode("rect", { width, height: width, fill: colours.ground }));
  for (let i = 0; i < T; i += 1) {
    for (let j = 0; j <= i; j += 1) {
      const w = map ? map.at(i, j) : 0;
      if (w < 0.002) continue;
      const place = { x: margin + j * size, y: margin + i * size, width: size, height: size };
      svg.append(svgNode("rect", { ...place, fill: sequential(w, theme) }));
    }
  }
  const stairs = `h${size} v${size} `.repeat(T); // along the diagonal
  const edge = `M${margin} ${margin} ${stairs}h${-T * size} Z`;
  svg.append(svgNode("path", { d: edge, fill: "none", stroke: colours.line }));
  recording.labels.forEach((label, i) => {
    const text = { fill: colours.ink, "font-size": Math.min(12, size), "unicode-bidi": "plaintext" };
    const middle = margin + (i + 0.5) * size;
    svg.append(svgText(margin - 6, middle, shorten(label, 18), { ...text, "text-anchor": "end" }));
    const turned = { ...text, transform: `translate(${middle} ${margin - 6}) rotate(-90)` };
    svg.append(svgText(0, 0, shorten(label, 18), turned));
  });
  svg.append(svgText(8, 14, "query ↓  key →", { fill: colours.quiet, "font-size": 11 }));
  return svg;
}
