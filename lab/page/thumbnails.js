// Model view: every head of the network as a small matrix, layers down, heads across.
//
// thumbnailsPicture(scene)                an SVG
// drawThumbnails(element, scene, {onOpen, onPoint, onRest})
//   a grid of buttons: arrows or the mouse point at (layer, head), Enter or a click opens it; onRest: at none

import { moveCursor, node, roveFocus, svgNode, svgText } from "./nodes.js";
import { palette, sequential } from "./colours.js";

const MOST_ROWS = 64; // of a thumbnail: longer texts show the largest weight of each block of cells

export function drawThumbnails(element, scene, { onOpen, onPoint, onRest }) {
  const { layers, heads } = scene.recording;
  const size = Math.floor(Math.min(Math.max(Math.min((scene.width - 56) / heads, 420 / layers) - 6, 30), 92));
  const settings = { role: "grid", "aria-label": "All heads: layers down, heads across", class: "thumbnails" };
  const buttons = [];
  const makeRow = (role, name) => node("div", { role: "row", class: "thumbnail-row" }, node("span", { role }, name));
  const header = makeRow("columnheader", "layer");
  header.append(...Array.from({ length: heads }, (_, head) => columnName(head)));
  const grid = node("div", settings, header);

  function columnName(head) {
    const name = node("span", { role: "columnheader", class: "thumbnail-name" }, String(head));
    name.style.width = `${size + 2}px`;
    return name;
  }

  for (let layer = 0; layer < layers; layer += 1) {
    const row = makeRow("rowheader", String(layer));
    for (let head = 0; head < heads; head += 1) {
      const button = node("button", {
        type: "button",
        class: "thumbnail",
        title: `head ${layer}.${head}`,
        "aria-label": `Open head ${layer}.${head}`,
        "aria-current": layer === scene.layer && head === scene.head ? "true" : null,
        "data-spot": `head ${layer} ${head}`,
        click: () => onOpen(layer, head),
        mouseenter: () => onPoint(layer, head),
        focus: () => onPoint(layer, head),
        mouseleave: onRest,
        blur: onRest,
        keydown: (event) => walk(event, layer, head),
      });
      const canvas = paintThumbnail(scene.maps(layer, head), scene);
      canvas.style.width = canvas.style.height = `${size}px`;
      button.append(canvas);
      buttons.push(button);
      row.append(node("span", { role: "gridcell" }, button));
    }
    grid.append(row);
  }

  function walk(event, row, column) {
    const cell = moveCursor(event.key, { row, column }, layers, heads);
    if (!cell) return;
    event.preventDefault();
    roveFocus(buttons, cell.row * heads + cell.column);
    buttons[cell.row * heads + cell.column].focus();
  }

  roveFocus(buttons, scene.layer * heads + scene.head);
  element.append(grid);
  return { target: buttons[scene.layer * heads + scene.head] };
}

export function thumbnailsPicture(scene) {
  const { layers, heads } = scene.recording;
  const colours = palette(scene.theme);
  const size = 72;
  const [width, height] = [34 + heads * (size + 6), 30 + layers * (size + 6)];
  const svg = svgNode("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  svg.append(svgNode("rect", { width, height, fill: colours.ground }));
  const middle = (index) => index * (size + 6) + size / 2;
  const text = { fill: colours.quiet, "text-anchor": "middle" };
  for (let head = 0; head < heads; head += 1) svg.append(svgText(34 + middle(head), 14, String(head), text));
  for (let layer = 0; layer < layers; layer += 1) {
    svg.append(svgText(16, 28 + middle(layer), String(layer), text));
    for (let head = 0; head < heads; head += 1) {
      const at = { x: 34 + head * (size + 6), y: 28 + layer * (size + 6), width: size, height: size };
      const canvas = paintThumbnail(scene.maps(layer, head), scene);
      const style = { "image-rendering": "pixelated", preserveAspectRatio: "none" };
      svg.append(svgNode("image", { href: enlarge(canvas, size).toDataURL(), ...at, ...style }));
      svg.append(svgNode("rect", { ...at, fill: "none", stroke: colours.line }));
    }
  }
  return svg;
}

function paintThumbnail(map, { recording, theme }) {
  const T = recording.tokens.length;
  const step = Math.ceil(T / MOST_ROWS);
  const rows = Math.ceil(T / step);
  const canvas = node("canvas", { width: rows, height: rows });
  const pen = canvas.getContext("2d");
  pen.fillStyle = sequential(0, theme);
  pen.fillRect(0, 0, rows, rows);
  for (let row = 0; row < rows && map; row += 1) {
    for (let column = 0; column <= row; column += 1) {
      let most = 0;
      for (let i = row * step; i < Math.min((row + 1) * step, T); i += 1) {
        for (let j = column * step; j < (column + 1) * step && j <= i; j += 1) most = Math.max(most, map.at(i, j));
      }
      if (most === 0) continue;
      pen.fillStyle = sequential(most, theme);
      pen.fillRect(column, row, 1, 1);
    }
  }
  return canvas;
}

// Not every program that opens an SVG keeps the edges of pixels sharp: give it pixels enough.
function enlarge(canvas, size) {
  const large = node("canvas", { width: 2 * size, height: 2 * size });
  const pen = large.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.drawImage(canvas, 0, 0, 2 * size, 2 * size);
  return large;
}
