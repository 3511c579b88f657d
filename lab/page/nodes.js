// Build elements. Text always goes in as text, never as HTML, so that no sentence can become a tag or a script.
//
// node(name, attributes, ...children)     an HTML element; attributes whose value is a function are event listeners
// svgNode(name, attributes, ...children)  an SVG element; presentation attributes only: it must stand alone in a file
// svgText(x, y, text, attributes)         a line of text in an SVG
// announce(element, text)                 write a line into a live region, if it changed
// roveFocus(elements, index)              make one element of a group the one that Tab reaches
// scrollInside(box, element)              scroll a box, and not the page around it, so that an element is in its middle
// moveCursor(key, cell, rows, columns)     the cell to which an arrow key, Home, End or a page key leads

const SVG = "http://www.w3.org/2000/svg";
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";

export function node(name, attributes = {}, ...children) {
  return fillNode(document.createElement(name), attributes, children);
}

export function svgNode(name, attributes = {}, ...children) {
  return fillNode(document.createElementNS(SVG, name), attributes, children);
}

export function svgText(x, y, text, attributes = {}) {
  const settings = { x, y, "font-family": FONT, "font-size": 12, "dominant-baseline": "central", ...attributes };
  return svgNode("text", settings, text);
}

function fillNode(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function announce(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function roveFocus(elements, index) {
  elements.forEach((element, i) => element.setAttribute("tabindex", i === index ? "0" : "-1"));
}

// Return the cell {row, column} to which a key moves a cursor, or null for another key.
export function moveCursor(key, { row, column }, rows, columns) {
  const moves = {
    ArrowUp: [row - 1, column],
    ArrowDown: [row + 1, column],
    ArrowLeft: [row, column - 1],
    ArrowRight: [row, column + 1],
    Home: [row, 0],
    End: [row, columns - 1],
    PageUp: [row - 10, column],
    PageDown: [row + 10, column],
  };
  if (!(key in moves)) return null;
  const clamp = (value, count) => Math.min(Math.max(value, 0), count - 1);
  return { row: clamp(moves[key][0], rows), column: clamp(moves[key][1], columns) };
}

export function scrollInside(box, element) {
  const [outer, inner] = [box.getBoundingClientRect(), element.getBoundingClientRect()];
  box.scrollTop += inner.top - outer.top - box.clientHeight / 2;
}
