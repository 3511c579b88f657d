// The bars and the grid as one SVG for a paper: always light, drawn from what the page shows. Exports: drawPicture.

import { classColour, diverging, palette } from "./colours.js";
import { svgNode, svgText } from "./nodes.js";
import { describeSwitches, isOff, nameUnit } from "./state.js";
import { isolate, shorten } from "./tokens.js";
import { percent, points, readableOn, showLabel } from "./words.js";

const WIDTH = 640,
  MARGIN = 16,
  BAR = 22,
  NAME = 130,
  TRACK = 300;
const { ink, quiet, line } = palette("light");

// effects: {heads: [L][H], mlps: [L]} of the label in focus, and their limit; effects is null while they are unknown
export function drawPicture(model, state, answer, effects, limit, focus) {
  const cell = Math.min(44, (WIDTH - 2 * MARGIN - 70) / (model.n_head + 1));
  const barsTop = 74,
    gridTop = barsTop + answer.labels.length * BAR + 44;
  const height = gridTop + model.n_layer * 26 + 40;
  const svg = svgNode("svg", {
    xmlns: "http://www.w3.org/2000/svg",
    width: WIDTH,
    height,
    viewBox: `0 0 ${WIDTH} ${height}`,
  });
  svg.append(svgNode("rect", { width: WIDTH, height, fill: "#ffffff" }));
  const write = (x, y, text, attributes = {}) => svg.append(svgText(x, y, text, { fill: ink, ...attributes }));
  write(MARGIN, 18, shorten(state.text.replace(/\s+/g, " "), 88), { "font-weight": "bold" });
  write(MARGIN, 36, `${describeSwitches(state)}; fill ${state.fill}`);
  const [before, after] = [answer.predicted_before, answer.predicted].map((label) => isolate(showLabel(label, model)));
  write(MARGIN, 54, before === after ? `prediction: ${after}` : `prediction: ${before} → ${after}`);
  answer.labels.forEach((label, k) => drawBar(svg, write, barsTop + k * BAR, showLabel(label, model), answer, k));
  write(
    MARGIN,
    gridTop - 22,
    `switching off one more: points for ${isolate(showLabel(focus, model))}, −${(100 * limit).toFixed(1)} to +${(100 * limit).toFixed(1)}`,
  );
  drawGrid(svg, write, gridTop, cell, model, state, effects, limit);
  write(
    MARGIN,
    height - 12,
    `headgate explore, ${model.run ?? model.name}, weights ${model.sha256.slice(0, 12)}; one text is a hypothesis`,
    { fill: quiet, "font-size": 10 },
  );
  return svg;
}

function drawBar(svg, write, y, label, answer, k) {
  write(MARGIN, y + BAR / 2, shorten(label, 18), { "font-weight": label === answer.predicted ? "bold" : "normal" });
  const box = { x: MARGIN + NAME, y: y + 4, height: BAR - 8 };
  svg.append(
    svgNode("rect", { ...box, width: TRACK, fill: "none", stroke: line }),
    svgNode("rect", { ...box, width: TRACK * answer.after[k], fill: classColour(k, "light") }),
    svgNode("rect", { ...box, width: TRACK * answer.before[k], fill: "none", stroke: ink, "stroke-width": 1.5 }),
  );
  const numbers = `${percent(answer.before[k])} → ${percent(answer.after[k])} (${points(answer.after[k] - answer.before[k])})`;
  write(MARGIN + NAME + TRACK + 10, y + BAR / 2, numbers);
}

function drawGrid(svg, write, top, cell, model, state, effects, limit) {
  const left = MARGIN + 60;
  for (let head = 0; head < model.n_head; head++)
    write(left + (head + 0.5) * cell, top - 6, String(head), { "text-anchor": "middle", fill: quiet, "font-size": 10 });
  write(left + (model.n_head + 0.5) * cell, top - 6, "MLP", { "text-anchor": "middle", fill: quiet, "font-size": 10 });
  for (let layer = 0; layer < model.n_layer; layer++) {
    const y = top + 4 + layer * 26;
    write(MARGIN, y + 12, `layer ${layer}`, { fill: quiet });
    for (let column = 0; column <= model.n_head; column++) {
      const unit = { layer, head: column === model.n_head ? null : column };
      const off = isOff(state, unit);
      const effect = off || !effects ? null : unit.head === null ? effects.mlps[layer] : effects.heads[layer][column];
      drawCell(svg, write, left + column * cell, y, cell, unit, off, effect, limit);
    }
  }
}

function drawCell(svg, write, x, y, cell, unit, off, effect, limit) {
  const fill = off ? "#ffffff" : diverging(effect === null ? 0 : effect / limit, "light");
  svg.append(
    svgNode(
      "rect",
      { x: x + 1, y, width: cell - 2, height: 24, fill, stroke: off ? ink : line },
      svgNode("title", {}, nameUnit(unit)),
    ),
  );
  if (off) svg.append(svgNode("line", { x1: x + 1, y1: y + 24, x2: x + cell - 1, y2: y, stroke: ink }));
  const text = off ? "off" : effect === null ? "" : points(effect, 0);
  write(x + cell / 2, y + 12, text, { "text-anchor": "middle", "font-size": 10, fill: off ? ink : readableOn(fill) });
}
