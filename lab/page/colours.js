// Colours of numbers and classes. They follow the theme of the page; told "light", they are those of exported pictures.
//
// sequential(w)       0 .. 1: from the background to a strong blue
// diverging(x)        -1 .. 1: orange, background, purple (PuOr; readable without red and green)
// shade(w)            0 .. 1: as `sequential`, but pale enough for text to stand on it
// classColour(k)      class k in the colours of Okabe and Ito (2008): eight for the colour-blind, and grey beyond
// palette()           what pictures are drawn with: ink, quiet, line, ground, accent
// onTheme(redraw)     call `redraw` when the theme changes

const SCALES = {
  light: {
    sequential: ["#ffffff", "#cfe2f6", "#7db3e6", "#2f7bc3", "#0a3a70"],
    diverging: ["#a34d00", "#eda24a", "#ffffff", "#a99fd0", "#50258a"],
    shade: ["#ffffff", "#cbe2fa", "#8fc1f5"],
  },
  dark: {
    sequential: ["#12161c", "#173a61", "#2b6fb4", "#78b7f2", "#e6f3ff"],
    diverging: ["#ffc27a", "#a8621a", "#12161c", "#6a58b4", "#cfc0ff"],
    shade: ["#12161c", "#17406c", "#1f5d9f"],
  },
};
const PALETTES = {
  light: { ink: "#1b1f24", quiet: "#57606a", line: "#d5dae0", ground: "#ffffff", accent: "#0b5cad" },
  dark: { ink: "#e8ecf1", quiet: "#a3adb8", line: "#39424d", ground: "#12161c", accent: "#7cbcff" },
};
const CLASSES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#000000"];
const REST = { light: "#b4bbc3", dark: "#59626d" };
const darkTheme = matchMedia("(prefers-color-scheme: dark)");

function themeName(theme) {
  return theme ?? (darkTheme.matches ? "dark" : "light");
}

export function sequential(w, theme) {
  return mix(SCALES[themeName(theme)].sequential, w);
}

export function diverging(x, theme) {
  return mix(SCALES[themeName(theme)].diverging, (x + 1) / 2);
}

export function shade(w, theme) {
  return mix(SCALES[themeName(theme)].shade, w);
}

export function classColour(k, theme) {
  const colour = CLASSES[k] ?? REST[themeName(theme)];
  return colour === "#000000" && themeName(theme) === "dark" ? "#c8ced6" : colour;
}

export function palette(theme) {
  return PALETTES[themeName(theme)];
}

export function onTheme(redraw) {
  darkTheme.addEventListener("change", redraw);
}

function mix(stops, position) {
  const place = Math.min(Math.max(position, 0), 1) * (stops.length - 1);
  const left = Math.min(Math.floor(place), stops.length - 2);
  const channels = [1, 3, 5].map((at) => {
    const [low, high] = [left, left + 1].map((stop) => parseInt(stops[stop].slice(at, at + 2), 16));
    return Math.round(low + (high - low) * (place - left));
  });
  return `rgb(${channels.join(", ")})`;
}
