// What an item looks like, and how it is answered: by a click, or by a key.
//
// drawItem(step, save)   show an item; save(answer) is called once it is answered
// redrawWeights()        colour all words anew, where the theme has changed

import { node } from "./nodes.js";
import { shade } from "./colours.js";

const KEYS = 9; // classes that have a key
const MOST_SAID = 5; // words that are named to who hears the page
const byId = (id) => document.getElementById(id);
let press = () => {}; // what a key does in the present item

document.addEventListener("keydown", (event) => {
  const elsewhere = event.target.matches("input, textarea, select");
  if (elsewhere || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  press(event);
});

export function drawItem(step, save) {
  const draw = { read: drawReading, predict: drawClasses, choose: drawSides, mark: drawMarks }[step.kind];
  byId("legend").hidden = !step.weights.length;
  byId("legend").replaceChildren(...describeScale());
  press = () => {};
  byId("keys").textContent = "";
  draw(step, save);
  redrawWeights();
}

export function redrawWeights() {
  for (const element of document.querySelectorAll("[data-weight]"))
    element.style.background = shade(Number(element.dataset.weight));
}

function describeScale() {
  const step = (weight, text) => node("span", { class: "scale-step", "data-weight": weight }, text);
  return ["A word weighed ", step(0.02, "little"), step(0.4, "some"), step(1, "most"), ", for or against the class."];
}

function drawReading(step, save) {
  byId("shown").replaceChildren(showPredicted(step), showPassage(step, step.weights[0]));
  const next = node("button", { type: "button", class: "main", click: () => save("read") }, "I have read it");
  byId("answers").replaceChildren(next);
  byId("keys").textContent = "Key: n";
  press = ({ key }) => key === "n" && next.click();
}

function drawClasses(step, save) {
  byId("shown").replaceChildren(showPassage(step));
  const buttons = step.labels.map((label, k) => {
    const settings = { type: "button", "aria-pressed": step.answer === label ? "true" : null };
    const key = k < KEYS ? node("span", { class: "key", "aria-hidden": "true" }, String(k + 1)) : null;
    return node("button", { ...settings, click: () => save(label) }, key, node("bdi", {}, label));
  });
  byId("answers").replaceChildren(node("div", { class: "classes" }, ...buttons));
  byId("keys").textContent = `Keys: 1 to ${Math.min(KEYS, buttons.length)}`;
  press = ({ key }) => /^[1-9]$/.test(key) && buttons[Number(key) - 1]?.click();
}

function drawSides(step, save) {
  const sides = ["left", "right"].map((side, i) => {
    const settings = { type: "button", "aria-pressed": step.answer === side ? "true" : null };
    const key = node("span", { class: "key", "aria-hidden": "true" }, side === "left" ? "←" : "→");
    const text = `The ${i ? "second" : "first"} one`;
    const choose = node("button", { ...settings, click: () => save(side) }, key, text);
    return node("div", { class: "side" }, showPassage(step, step.weights[i]), choose);
  });
  byId("shown").replaceChildren(showPredicted(step), node("div", { class: "sides" }, ...sides));
  byId("answers").replaceChildren();
  byId("keys").textContent = "Keys: ← and →";
  press = (event) => {
    const place = ["ArrowLeft", "ArrowRight"].indexOf(event.key);
    if (place < 0) return;
    event.preventDefault();
    sides[place].querySelector("button").click();
  };
}

function drawMarks(step, save) {
  const marked = new Set(step.answer ?? []);
  const done = node("button", { type: "button", class: "main", click: () => save([...marked].sort((a, b) => a - b)) });
  const count = () => {
    done.disabled = marked.size === 0;
    done.textContent = marked.size === 1 ? "Save 1 marked word" : `Save ${marked.size} marked words`;
  };
  const toggle = (event, i) => {
    if (!marked.delete(i)) marked.add(i);
    event.currentTarget.setAttribute("aria-pressed", String(marked.has(i)));
    count();
  };
  const words = step.words.map((word, i) => {
    if (!step.real[i]) return word;
    const [space, rest] = splitSpace(word);
    const settings = { type: "button", class: "word", "aria-pressed": String(marked.has(i)) };
    return [space, node("button", { ...settings, click: (event) => toggle(event, i) }, rest)];
  });
  const passage = node("p", { class: "passage", dir: "auto", role: "group", "aria-label": "Words" }, ...words.flat());
  byId("shown").replaceChildren(showPredicted(step), passage);
  byId("answers").replaceChildren(done);
  byId("keys").textContent = "Keys: Tab to a word, Space marks it, s saves";
  press = ({ key }) => key === "s" && done.click();
  count();
}

function showPredicted(step) {
  const label = node("strong", {}, node("bdi", {}, step.predicted));
  return node("p", { class: "predicted" }, "The network predicts ", label);
}

// A text; with weights, each word is coloured, and the strongest are said to who does not see them.
function showPassage(step, weights) {
  const passage = node("p", { class: "passage", dir: "auto" });
  if (!weights) {
    passage.append(step.words.join(""));
    return passage;
  }
  step.words.forEach((word, i) => {
    const [space, rest] = splitSpace(word);
    passage.append(space, node("span", { class: "weight", "data-weight": weights[i] }, rest));
  });
  const order = [...weights.keys()].filter((i) => step.real[i]).sort((a, b) => weights[b] - weights[a]);
  const said = order.slice(0, MOST_SAID).map((i) => `${step.words[i].trim()} ${Math.round(100 * weights[i])} %`);
  return node("div", {}, passage, node("p", { class: "unseen" }, `Strongest: ${said.join(", ")}`));
}

function splitSpace(word) {
  const [space] = word.match(/^\s*/);
  return [space, word.slice(space.length)];
}
