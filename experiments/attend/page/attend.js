// attention.html: choose a text on the left, see its prediction, and its heads in the panel. The page holds the data:
// {predicts, texts: [{text, label, predicted, probabilities: [[name, p]], note, look: [layer, head], recording}],
//  left_out: a line or "", about: [lines]}

import { node, roveFocus } from "./nodes.js";
import { showToken, tokenElement } from "./tokens.js";
import { classColour } from "./colours.js";
import { decodeRecording } from "./recording.js";
import { AttentionPanel } from "./attention.js";

const data = JSON.parse(document.getElementById("data").textContent);
const texts = data.texts;
const alone = "The q and k of this head would make this page too large: see it in make explore.";
const among = `The q and k of this text would make the page too large: make attend ARGS="--text '...'" shows it alone.`;
const panel = new AttentionPanel(document.getElementById("panel"), { missing: texts.length === 1 ? alone : among });
const choices = []; // a button per text

function showText(index) {
  const { recording, probabilities, label, predicted } = texts[index];
  window.headgate.recording = decodeRecording(recording);
  choices.forEach((choice, at) => choice.setAttribute("aria-pressed", at === index));
  roveFocus(choices, index);
  fillPrediction(probabilities, label, predicted);
  const state = panel.recording ? {} : { layer: texts[index].look[0], head: texts[index].look[1] };
  panel.show(window.headgate.recording, { ...state, query: recording.tokens.length - 1 });
}

function fillPrediction(probabilities, label, predicted) {
  const rows = probabilities.flatMap(([name, p], k) => {
    const bar = node("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${100 * p}%`;
    bar.style.background = classColour(data.predicts === "class" ? k : 0);
    const shown = data.predicts === "class" ? node("bdi", {}, name) : tokenElement(showToken(name));
    const title = node("span", { class: name === label ? "is-true" : null }, shown);
    if (name === label) title.append(" (true)");
    return [title, bar, node("span", { class: "number" }, p.toFixed(3))];
  });
  const line = node("p", { class: "quiet" }, data.predicts === "class" ? "predicted: " : "likeliest next token: ");
  line.append(data.predicts === "class" ? node("bdi", {}, predicted) : tokenElement(showToken(predicted)));
  document.getElementById("prediction").replaceChildren(node("div", { class: "bars" }, ...rows), line);
}

function listTexts() {
  const box = document.getElementById("texts");
  if (texts.length === 1) {
    document.getElementById("texts-title").textContent = "Text";
    box.append(node("p", { id: "whole-text", tabindex: "0" }, node("bdi", {}, texts[0].text)));
    return;
  }
  const labels = [...new Set(texts.map(({ label }) => label))];
  for (const label of labels) {
    const place = texts[0].probabilities.findIndex(([name]) => name === label);
    const chip = node("span", { class: "chip" });
    chip.style.background = place < 0 ? "transparent" : classColour(place);
    const title = node("h3", {}, chip, node("bdi", {}, label ?? "without a label"));
    const group = node("div", { class: "text-group" }, title);
    texts.forEach((text, index) => text.label === label && group.append(buildChoice(text, index)));
    box.append(group);
  }
}

function buildChoice({ text, label, predicted, note }, index) {
  const wrong = label !== null && label !== predicted;
  const instead = wrong ? [", predicted ", node("bdi", {}, predicted)] : [];
  const outcome = node("span", { class: "outcome" }, note, ...instead);
  const walk = (event) => {
    const order = [...document.querySelectorAll(".text-choice")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    order[Math.min(Math.max(order.indexOf(event.currentTarget) + step, 0), order.length - 1)].focus();
  };
  const settings = { type: "button", class: wrong ? "text-choice is-wrong" : "text-choice", title: text.slice(0, 500) };
  const listeners = { click: () => showText(index), keydown: walk };
  choices[index] = node("button", { ...settings, ...listeners }, node("bdi", {}, text), outcome);
  return choices[index];
}

window.headgate = { data, panel, decodeRecording }; // for the curious, in the browser's console
listTexts();
document.getElementById("left-out").textContent = data.left_out;
document.getElementById("about").append(...data.about.map((line) => node("p", {}, line)));
showText(0);
