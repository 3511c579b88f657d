// Numbers and colours as people read them.
// Exports: byId, percent, points, readableOn, showLabel.

import { showToken } from "./tokens.js";

export function byId(id) {
  return document.getElementById(id);
}

export function percent(p) {
  return (100 * p).toFixed(1) + " %";
}

// A difference of probabilities in points, with its sign: +12.3, −0.4, 0.0
export function points(difference, digits = 1) {
  const text = Math.abs(100 * difference).toFixed(digits);
  if (Number(text) === 0) return text;
  return (difference < 0 ? "−" : "+") + text;
}

// A class by its name; a next token with its spaces made visible.
export function showLabel(label, model) {
  return model.kind === "classifier" ? label : showToken(label);
}

// Black or white, whichever is easier to read on a colour "rgb(r, g, b)" (WCAG's relative luminance).
export function readableOn(colour) {
  const [r, g, b] = colour.match(/[\d.]+/g).map((value) => {
    const v = value / 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "black" : "white";
}
