// Head view: the text twice, queries on the left, keys on the right; a line is as opaque as its weight (as in BertViz).
//
// linesPicture(scene)                          an SVG; scene as AttentionPanel.scene in attention.js makes it
// drawLines(element, scene, {onQuery, onPoint})  the same, alive: a token that is pointed at or focused shows only its
//   lines, with numbers; Enter or a click makes it the query. Returns {point(side, index), rest()}.

import { moveCursor, roveFocus, svgNode, svgText } from "./nodes.js";
import { shorten } from "./tokens.js";
import { palette } from "./colours.js";

const FAINTEST = 0.02; // lines below cannot be seen, and long texts have ten thousands of them
const ABOVE = 22,
  BELOW = 4,
  NARROWEST = 13; // px: above and below the rows, and the least height of a row

export function linesPicture(scene) {
  return buildLines(scene, chooseRow(scene)).svg;
}

export function drawLines(element, scene, { onQuery, onPoint }) {
  const { svg, all, chosen, layout } = buildLines(scene, fitRow(element, scene));
  const T = scene.recording.tokens.length;
  const groups = { query: [], key: [] };
  const rest = () => showChosen(scene, layout, all, chosen, "query", scene.query, false);
  const point = (side, index) => showChosen(scene, layout, all, chosen, side, index, true);

  for (const [column, side] of ["query", "key"].entries()) {
    for (let index = 0; index < T; index += 1) {
      const show = () => {
        point(side, index);
        onPoint(side, index);
      };
      const group = svgNode("g", {
        role: "button",
        "aria-label": `${side} ${index}: ${scene.recording.labels[index]}`,
        "data-spot": `${side} ${index}`,
        class: "line-token",
        mouseenter: show,
        mouseleave: rest,
        focus: show,
        blur: rest,
        click: () => onQuery(index),
        keydown: (event) => walk(event, index, column),
      });
      const x = side === "query" ? 0 : layout.right;
      const box = { x: x + 1, y: index * layout.row + layout.top, width: layout.label - 2, height: layout.row, rx: 4 };
      group.append(svgNode("rect", { ...box, fill: "transparent" }));
      groups[side].push(group);
      svg.append(group);
    }
  }

  function walk(event, index, column) {
    if (event.key === "Enter" || event.key === " ") onQuery(index);
    const cell = moveCursor(event.key, { row: index, column }, T, 2);
    if (!cell && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    if (cell) groups[cell.column === 0 ? "query" : "key"][cell.row].focus();
  }

  roveFocus([...groups.query, ...groups.key], scene.query);
  element.append(svg);
  return { point, rest, target: groups.query[chooseCentre(element, scene, layout.row)] };
}

function chooseRow(scene) {
  return scene.recording.tokens.length > 24 ? 20 : 22;
}

// Return the height of a row: a lower one where the whole text then fits into the box, which would scroll otherwise.
function fitRow(element, scene) {
  const T = scene.recording.tokens.length,
    row = chooseRow(scene);
  const probe = svgNode("svg", { width: 1, height: ABOVE + T * row + BELOW });
  element.append(probe);
  const scrolls = element.scrollHeight > element.clientHeight;
  const lower = (element.clientHeight - ABOVE - BELOW) / T;
  probe.remove();
  return scrolls && lower >= NARROWEST ? lower : row;
}

// Return the row to scroll to: halfway between the query and the key at which it looks most, where the box shows both.
function chooseCentre(element, { recording, query, map }, row) {
  const keys = recording.labels.map((_, key) => key).filter((key) => map && key <= query);
  const strongest = keys.reduce((best, key) => (map.at(query, key) > map.at(query, best) ? key : best), query);
  return (query - strongest + 2) * row < element.clientHeight ? Math.round((query + strongest) / 2) : query;
}

function buildLines(scene, row) {
  const { recording, query, width, theme } = scene;
  const T = recording.tokens.length;
  const colours = palette(theme);
  const whole = Math.min(Math.max(width, 320), 760);
  const longest = Math.max(...recording.labels.map((text) => text.length));
  const label = Math.floor(Math.min(Math.max(8.2 * longest + 56, 120), 190, whole * 0.31));
  const layout = { row, label, left: label, right: whole - label, top: ABOVE };
  const height = layout.top + T * layout.row + BELOW;
  const svg = svgNode("svg", { width: whole, height, viewBox: `0 0 ${whole} ${height}` });
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-label", `Lines of head ${scene.layer}.${scene.head}, queries left, keys right`);
  svg.append(svgNode("rect", { width: whole, height, fill: colours.ground }));
  const heading = { fill: colours.quiet, "font-size": 11 };
  const wide = label >= 110;
  svg.append(svgText(label - 10, 11, wide ? "query: who looks" : "who looks", { ...heading, "text-anchor": "end" }));
  svg.append(svgText(layout.right + 10, 11, wide ? "key: looked at" : "looked at", heading));
  const all = svgNode("g", { stroke: colours.quiet, "stroke-width": 1.5, fill: "none" });
  for (let i = 0; i < T; i += 1) {
    for (let j = 0; j <= i; j += 1) {
      const w = scene.map ? scene.map.at(i, j) : 0;
      if (w >= FAINTEST && i !== query) all.append(line(layout, i, j, { opacity: (0.55 * w).toFixed(3) }));
    }
  }
  const chosen = svgNode("g");
  svg.append(all, chosen);
  const most = Math.max(Math.floor((label - 50) / 7.4), 6);
  recording.labels.forEach((text, i) => {
    const struck = recording.hidden.has(i) ? { "text-decoration": "line-through", fill: colours.quiet } : {};
    const look = { fill: colours.ink, "unicode-bidi": "plaintext", ...struck };
    const y = middle(layout, i);
    const bold = i === query ? { "font-weight": 700 } : {};
    svg.append(svgText(layout.left - 10, y, shorten(text, most), { ...look, ...bold, "text-anchor": "end" }));
    svg.append(svgText(layout.right + 10, y, shorten(text, most), look));
  });
  showChosen(scene, layout, all, chosen, "query", query, false);
  return { svg, all, chosen, layout };
}

// Draw the lines of one token, with their numbers; `alone`: without all the others behind them.
function showChosen(scene, layout, all, chosen, side, index, alone) {
  const colours = palette(scene.theme);
  all.setAttribute("opacity", alone ? 0 : 1);
  chosen.replaceChildren();
  const T = scene.recording.tokens.length;
  for (let other = 0; other < T && scene.map; other += 1) {
    const [i, j] = side === "query" ? [index, other] : [other, index];
    const w = j > i ? 0 : scene.map.at(i, j);
    if (w < 0.004) continue;
    const style = { stroke: colours.accent, "stroke-width": (1 + 3 * w).toFixed(2), fill: "none" };
    chosen.append(line(layout, i, j, { ...style, opacity: Math.max(w, 0.08).toFixed(3) }));
    if (w < 0.05) continue;
    const number = { "font-size": 11, fill: colours.accent, "text-anchor": side === "query" ? "end" : "start" };
    const x = side === "query" ? layout.right + layout.label - 4 : 4;
    chosen.append(svgText(x, middle(layout, other), w.toFixed(2), number));
  }
  const x = side === "query" ? layout.left - 5 : layout.right + 2;
  const y = middle(layout, index) - layout.row / 2 + 3;
  chosen.append(svgNode("rect", { x, y, width: 3, height: layout.row - 6, fill: colours.accent }));
}

function middle(layout, index) {
  return layout.top + (index + 0.5) * layout.row;
}

function line(layout, i, j, attributes) {
  const [x1, y1, x2, y2] = [layout.left, middle(layout, i), layout.right, middle(layout, j)];
  const bend = (x2 - x1) / 3;
  const d = `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
  return svgNode("path", { d, ...attributes });
}
