// Save what the page shows as a file. Pictures are SVG elements drawn for "light"; nothing leaves the machine.
//
// saveSvg(svg, name)           name.svg
// savePng(svgOrCanvas, name)   name.png at twice the size; a promise
// saveCsv(rows, name)          name.csv from lists of cells, the first one the header
// saveJson(value, name)        name.json
// saveLines(values, name)      name.jsonl, one value on each line

export function saveSvg(svg, name) {
  saveBlob(new Blob([writeSvg(svg)], { type: "image/svg+xml" }), `${name}.svg`);
}

export async function savePng(svgOrCanvas, name) {
  const canvas = svgOrCanvas instanceof HTMLCanvasElement ? svgOrCanvas : await paintSvg(svgOrCanvas);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  saveBlob(blob, `${name}.png`);
}

export function saveCsv(rows, name) {
  const quote = (cell) => (/[",\n\r]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  const lines = rows.map((row) => row.map((cell) => quote(String(cell ?? ""))).join(","));
  saveBlob(new Blob([lines.join("\n") + "\n"], { type: "text/csv;charset=utf-8" }), `${name}.csv`);
}

export function saveJson(value, name) {
  saveBlob(new Blob([JSON.stringify(value, null, 1) + "\n"], { type: "application/json" }), `${name}.json`);
}

export function saveLines(values, name) {
  const lines = values.map((value) => JSON.stringify(value) + "\n");
  saveBlob(new Blob(lines, { type: "application/jsonl" }), `${name}.jsonl`);
}

function writeSvg(svg) {
  return '<?xml version="1.0" encoding="UTF-8"?>\n' + new XMLSerializer().serializeToString(svg);
}

async function paintSvg(svg) {
  const image = new Image();
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(writeSvg(svg));
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = 2 * Number(svg.getAttribute("width"));
  canvas.height = 2 * Number(svg.getAttribute("height"));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function saveBlob(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
