// texts.html: choose a text on the left; the methods stand side by side on the right. The page holds the data:
// {labels, methods: [{name, text, signed, of_class, shown}], left_out: a line or "", about: [lines],
//  texts: [{name, of_user, text, label, predicted, probabilities: [p], tokens: [{piece, start, end}], groups, words,
//           values: {method: one row per token, one column per class, or one for all}, sums: {method: [gaps, sums]}}]}

import { node, roveFocus } from "./nodes.js";
import { labelTokens, showToken, tokenElement } from "./tokens.js";
import { diverging, onTheme, sequential } from "./colours.js";

const data = JSON.parse(document.getElementById("data").textContent);
const { labels, methods, texts } = data;
const place = (id) => document.getElementById(id);
const state = { text: 0, pinned: null }; // pinned: the token or word whose numbers stay
const OUTCOMES = {
  "all texts": () => true,
  right: ({ label, predicted }) => label === predicted,
  wrong: ({ label, predicted }) => label !== null && label !== predicted,
  yours: ({ of_user }) => of_user,
};
const SHADES = [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1]; // of a scale
let choices = []; // a button per text that is listed

// Numbers

// One row per token or word, one column per class, or one where the method knows no class.
function valuesOf(text, { name }, unit) {
  const values = text.values[name];
  if (unit === "token") return values;
  const sums = text.words.map(() => values[0].map(() => 0));
  values.forEach((row, token) => row.forEach((value, k) => (sums[text.groups[token]][k] += value)));
  return sums;
}

function largest(rows) {
  return Math.max(...rows.flat().map(Math.abs)) || 1;
}

// As many decimals as show three digits of the largest value; in powers of ten where they would be too many.
function write(value, limit, { signed }) {
  const decimals = Math.max(2 - Math.floor(Math.log10(limit)), 0);
  const number = (decimals > 7 ? value.toExponential(1) : value.toFixed(decimals)).replace(/^-(?=[0.]+$)/, ""); // no -0.00
  return (signed && Number(number) > 0 ? "+" : "") + number;
}

function namesOfUnits(text, unit) {
  return unit === "token" ? labelTokens(text.tokens) : text.words.map(showToken);
}

function titleOf({ name }) {
  return name.replaceAll("_", " ");
}

// The classes whose values are shown: one, or all; a method that knows no class has one line for all.
function classesOf(text, { of_class }) {
  const target = place("target").value;
  if (!of_class) return [0];
  if (target === "all") return labels.map((_, k) => k);
  return [target === "predicted" ? text.predicted : Number(target)];
}

// Colours

function colourOf(value, { signed }) {
  return signed ? diverging(value) : sequential(value);
}

// Black or white, whichever stands out more: at least 4.5:1 on any colour (WCAG 2.2, relative luminance).
function inkOn(colour) {
  const light = colour.match(/\d+/g).map((channel) => {
    const c = channel / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2] < 0.179 ? "#ffffff" : "#000000";
}

// The methods

function drawPanels() {
  const text = texts[state.text];
  const [unit, view] = [place("unit").value, place("view").value];
  const chosen = methods.filter(({ name }) => place(`method-${name}`).checked);
  const panels = chosen.map((method) => buildPanel(text, method, unit));
  const shown = view === "table" && chosen.length ? [buildTable(text, chosen, unit)] : panels;
  place("panels").replaceChildren(...(shown.length ? shown : [node("p", {}, "Choose a method.")]));
  place("reading").hidden = view === "table";
  point(state.pinned);
}

function buildPanel(text, method, unit) {
  const values = valuesOf(text, method, unit);
  const [limit, id] = [largest(values), `title-${method.name}`];
  const lines = classesOf(text, method).flatMap((k, _, all) => {
    const line = buildLine(text, method, unit, values.map((row) => row[k]), limit, k);
    return all.length > 1 ? [node("h4", {}, node("bdi", {}, labels[k])), line] : [line];
  });
  return node(
    "section",
    { class: "method", "aria-labelledby": id },
    node("h3", { id }, titleOf(method)),
    node("p", { class: "quiet" }, `${method.text}${method.of_class ? "" : "; the same for every class"}`),
    ...lines,
    buildScale(method, limit),
    node("p", { class: "readout", "data-method": method.name }),
    describeSum(text, method, limit),
  );
}

function buildLine(text, method, unit, values, limit, k) {
  const names = namesOfUnits(text, unit);
  const about = `${titleOf(method)}, ${unit}s${method.of_class ? `, ${labels[k]}` : ""}`;
  const line = node("div", { class: "coloured", role: "group", "aria-label": about });
  const buttons = values.map((value, at) => {
    const settings = { type: "button", class: "unit", "data-unit": at };
    const number = write(value, limit, method);
    const listeners = {
      mouseenter: () => point(at),
      mouseleave: () => point(state.pinned),
      focus: () => point(at),
      blur: () => point(state.pinned),
      click: () => pin(at),
      keydown: (event) => walk(event, buttons, { ArrowRight: 1, ArrowLeft: -1 }),
    };
    const name = { "aria-label": `${names[at]} (${at}): ${number}`, ...listeners };
    const button = node("button", { ...settings, ...name }, tokenElement(names[at]));
    button.style.background = colourOf(value / limit, method);
    button.style.color = inkOn(button.style.background);
    return button;
  });
  roveFocus(buttons, state.pinned ?? 0);
  line.append(...buttons);
  return line;
}

function buildScale(method, limit) {
  const shades = method.signed ? SHADES : SHADES.filter((shade) => shade >= 0);
  const cells = shades.map((shade) => {
    const cell = node("i");
    cell.style.background = colourOf(shade, method);
    return cell;
  });
  const low = method.signed ? write(-limit, limit, method) : "0";
  return node("p", { class: "scale" }, low, ...cells, write(limit, limit, method));
}

function describeSum(text, method, limit) {
  const [gaps, sums] = text.sums[method.name] ?? [];
  if (!gaps) return null;
  const parts = classesOf(text, method).map((k, _, all) => {
    const numbers = `${write(sums[k], limit, method)}, should be ${write(gaps[k], limit, method)}`;
    return all.length > 1 ? `${labels[k]} ${numbers}` : numbers;
  });
  return node("p", { class: "quiet" }, `Sum: ${parts.join("; ")} (the logit minus that of mean embeddings)`);
}

// Show the numbers of one token or word in every panel; null: of none.
function point(at) {
  const text = texts[state.text];
  const unit = place("unit").value;
  for (const button of document.querySelectorAll(".unit")) {
    button.classList.toggle("is-pointed", Number(button.dataset.unit) === at);
    button.setAttribute("aria-pressed", Number(button.dataset.unit) === state.pinned);
  }
  for (const readout of document.querySelectorAll(".readout")) {
    const method = methods.find(({ name }) => name === readout.dataset.method);
    if (at === null) {
      readout.replaceChildren();
      continue;
    }
    const values = valuesOf(text, method, unit);
    const numbers = classesOf(text, method).map((k, _, all) => {
      const number = write(values[at][k], largest(values), method);
      return all.length > 1 ? `${labels[k]} ${number}` : number;
    });
    readout.replaceChildren(tokenElement(namesOfUnits(text, unit)[at]), ` (${at}): ${numbers.join(", ")}`);
  }
}

function pin(at) {
  state.pinned = state.pinned === at ? null : at;
  point(at);
}

function buildTable(text, chosen, unit) {
  const columns = chosen.flatMap((method) => {
    const values = valuesOf(text, method, unit);
    const classes = classesOf(text, method);
    return classes.map((k) => ({
      title: classes.length > 1 ? `${titleOf(method)}: ${labels[k]}` : titleOf(method),
      cells: values.map((row) => write(row[k], largest(values), method)),
    }));
  });
  const head = ["number", unit, ...columns.map(({ title }) => title)].map((title) => node("th", { scope: "col" }, title));
  const rows = namesOfUnits(text, unit).map((name, at) =>
    node(
      "tr",
      {},
      node("th", { scope: "row" }, String(at)),
      node("td", {}, tokenElement(name)),
      ...columns.map(({ cells }) => node("td", {}, cells[at])),
    ),
  );
  const parts = [node("thead", {}, node("tr", {}, ...head)), node("tbody", {}, ...rows)];
  const table = node("table", { class: "numbers" }, node("caption", {}, nameTarget(text)), ...parts);
  return node("div", { class: "table-box", tabindex: "0", role: "group", "aria-label": "all numbers" }, table);
}

function nameTarget(text) {
  const target = place("target").value;
  if (target === "all") return "values for each class";
  return `values for ${labels[target === "predicted" ? text.predicted : Number(target)]}`;
}

// The texts

function showText(index) {
  Object.assign(state, { text: index, pinned: null });
  const text = texts[index];
  choices.forEach((choice) => choice.setAttribute("aria-pressed", Number(choice.dataset.text) === index));
  roveFocus(choices, Math.max(0, choices.findIndex((choice) => Number(choice.dataset.text) === index)));
  place("heading").replaceChildren(`${text.name}: predicted `, node("bdi", {}, labels[text.predicted]), ...truth(text));
  fillPrediction(text);
  drawPanels();
}

function truth({ label, predicted }) {
  if (label === null) return [", nobody has labelled it"];
  return label === predicted ? [", which is right"] : [", which is wrong: it is ", node("bdi", {}, labels[label])];
}

function fillPrediction({ probabilities, label }) {
  const rows = probabilities.flatMap((p, k) => {
    const bar = node("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${100 * p}%`;
    const title = node("span", { class: k === label ? "is-true" : null }, node("bdi", {}, labels[k]));
    if (k === label) title.append(" (true)");
    return [title, bar, node("span", { class: "number" }, p.toFixed(3))];
  });
  place("prediction").replaceChildren(node("div", { class: "bars" }, ...rows));
}

function listTexts() {
  const [wanted, fits] = [place("filter-class").value, OUTCOMES[place("filter-outcome").value]];
  const listed = texts.filter((text) => fits(text) && (wanted === "all" || Number(wanted) === text.predicted));
  choices = listed.map((text) => buildChoice(text, texts.indexOf(text)));
  place("texts").replaceChildren(...choices);
  place("count").textContent = `${listed.length} of ${texts.length}`;
  if (listed.length) showText(listed.includes(texts[state.text]) ? state.text : texts.indexOf(listed[0]));
}

function buildChoice(text, index) {
  const { label, predicted, of_user } = text;
  const outcome = node("span", { class: "outcome" }, of_user ? "yours: " : "", node("bdi", {}, labels[predicted]));
  if (label !== null) outcome.append(label === predicted ? ", right" : ", wrong: it is ");
  if (label !== null && label !== predicted) outcome.append(node("bdi", {}, labels[label]));
  const wrong = OUTCOMES.wrong(text);
  const listeners = {
    click: () => showText(index),
    keydown: (event) => walk(event, choices, { ArrowDown: 1, ArrowUp: -1 }),
  };
  const settings = { type: "button", class: wrong ? "text-choice is-wrong" : "text-choice", "data-text": index };
  return node("button", { ...settings, title: text.text.slice(0, 500), ...listeners }, node("bdi", {}, text.text), outcome);
}

// Move the focus inside a group of buttons, which is one stop of the Tab key.
function walk(event, buttons, steps) {
  const at = buttons.indexOf(event.currentTarget);
  const ends = { Home: 0, End: buttons.length - 1 };
  const to = ends[event.key] ?? at + (steps[event.key] ?? NaN);
  if (Number.isNaN(to)) return;
  event.preventDefault();
  const next = Math.min(Math.max(to, 0), buttons.length - 1);
  roveFocus(buttons, next);
  buttons[next].focus();
}

// Controls

function fillControls() {
  const option = (value, name = value) => node("option", { value }, name);
  const classes = labels.map((label, k) => option(k, label));
  place("filter-class").append(option("all", "any class"), ...classes.map((each) => each.cloneNode(true)));
  place("target").append(option("predicted", "the predicted one"), ...classes, option("all", "all, one below the other"));
  const outcomes = Object.entries(OUTCOMES).filter(([, fits]) => texts.some(fits));
  place("filter-outcome").append(...outcomes.map(([name]) => option(name)));
  for (const method of methods) {
    const box = node("input", { type: "checkbox", id: `method-${method.name}`, checked: method.shown, change: drawPanels });
    place("methods").append(node("label", {}, box, titleOf(method)));
  }
  for (const id of ["filter-class", "filter-outcome"]) place(id).addEventListener("change", listTexts);
  for (const id of ["target", "view"]) place(id).addEventListener("change", drawPanels);
  place("unit").addEventListener("change", () => {
    state.pinned = null; // a token is no word
    drawPanels();
  });
}

window.headgate = { data, state, valuesOf }; // for the curious, in the browser's console
place("reading").textContent =
  "Purple speaks for the class, orange against it; methods in blue say how much, not which way. Each method has its " +
  "own scale, which ends at its largest value in this text, over all classes: compare tokens, not methods. Point at " +
  "a token to see its number everywhere; choose it to keep it.";
place("left-out").textContent = data.left_out;
place("about").append(...data.about.map((line) => node("p", {}, line)));
onTheme(drawPanels);
fillControls();
listTexts();
