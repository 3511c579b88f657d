// map.html: choose a map, colours and words on the left; point at texts in the middle; read on the right.
// The page holds {labels, texts, names, label, predicted, length, last_token, tokens, named_by,
//  clusters: [{network, method, of}],
//  topics: [{grouping, network, cluster, method, words, scores, npmi, null_npmi}],
//  maps: [{network, layer, pooling, method, places}], start: a place in maps, left_out: a line or "", about: [lines]}
// where label, predicted, length, last_token (a place in tokens) and `of` have one number for each text.

import { announce, moveCursor, node, roveFocus, svgNode } from "./nodes.js";
import { showToken, shorten, tokenElement } from "./tokens.js";
import { onTheme, palette } from "./colours.js";
import { savePng } from "./exports.js";
import { drawPicture, Scatter, shapePath } from "./scatter.js";
import { buildColouring, findTopics, markClass, namePooling, spell } from "./colourings.js";

const data = JSON.parse(document.getElementById("data").textContent);
const { labels, texts, maps, clusters } = data;
const place = (id) => document.getElementById(id);
const all = texts.map((_, text) => text);
const unique = (name) => [...new Set(maps.map((each) => each[name]))];
const countMaps = (method) => maps.filter((each) => each.method === method).length;
const layers = unique("layer").sort((a, b) => a - b);
const searched = texts.map((text) => text.toLowerCase());
// map, places: the map that is shown; group, text: what is chosen; pointed: the text under the pointer or the keys;
// words: the method of the words shown
const state = { map: maps[data.start], group: null, text: null, pointed: null, words: "log_odds" };
const NOTES = {
  tsne:
    "t-SNE keeps neighbours together. How far apart two groups lie, and how large or dense they look, means nothing " +
    "(Wattenberg et al. 2016).",
  umap: "UMAP keeps neighbours together; how far apart two groups lie, and how large they look, means little.",
  pca: "PCA shows the two directions of most variance: what differs in any other direction lies on one spot.",
  random_projection: "Two random directions: what this shows needs no method.",
  mds: "MDS keeps all distances as well as a plane can: its stress in reductions.csv says how well.",
  autoencoder: "A small network put each text into two numbers: neighbours may stay, distances need not.",
};
NOTES.variational_autoencoder = NOTES.autoencoder;
let colouring;
let legend = []; // the buttons, one for each entry that can be chosen

const scatter = new Scatter(place("map"), { onPoint: (text) => point(text), onChoose: choose, onDraw: placeTip });

// Maps

function decodePlaces(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return Float32Array.from(new Uint16Array(bytes.buffer), (step) => (step === 65535 ? NaN : step / 65534));
}

// The map that has this property, and all others as close to those of the one that is shown as there are.
function switchTo(name, value) {
  const cost = (map) =>
    1000 * (map.network !== state.map.network) +
    500 * (map.method !== state.map.method) +
    200 * (map.pooling !== state.map.pooling) +
    Math.abs(map.layer - state.map.layer);
  const fitting = maps.filter((map) => map[name] === value);
  showMap(fitting.reduce((best, map) => (cost(map) < cost(best) ? map : best)));
}

function showMap(map) {
  const regrouped = map.network !== state.map.network && isClusters(place("colour").value);
  if (regrouped) state.group = null; // the clusters of another network are others
  state.map = map;
  state.places = decodePlaces(map.places);
  scatter.move(state.places);
  for (const button of place("networks").children) {
    button.setAttribute("aria-pressed", button.textContent === map.network);
  }
  for (const name of ["pooling", "method"]) place(name).value = map[name];
  place("layer").value = layers.indexOf(map.layer);
  place("layer").setAttribute("aria-valuetext", nameLayer(map.layer));
  place("layer-name").value = nameLayer(map.layer);
  announce(place("heading"), nameMap());
  place("map").setAttribute("aria-label", nameMap());
  announce(place("note"), [NOTES[map.method.split(" ")[0]], countShown()].filter(Boolean).join(" "));
  showColours();
}

function nameMap() {
  const { network, layer, pooling, method } = state.map;
  return `${network}, layer ${nameLayer(layer)}, ${namePooling(pooling)}: ${spell(method)}`;
}

// Not every method took all texts.
function countShown() {
  const n = all.filter((text) => !Number.isNaN(state.places[2 * text])).length;
  return n < texts.length ? `${count(n)} of ${count(texts.length)} texts are in this map.` : "";
}

function count(n) {
  return n.toLocaleString("en");
}

function nameLayer(layer) {
  if (layer === layers.at(-1)) return `${layer}, after ln_f`;
  if (layer === layers.at(-2)) return `${layer}, before ln_f`;
  return layer === 0 ? "0, embeddings" : String(layer);
}

// Colours and legend

function showColours() {
  colouring = buildColouring(data, place("colour").value, state.map.network);
  place("colour-note").textContent = colouring.note;
  fillLegend();
  paint();
}

function isClusters(name) {
  return clusters.some(({ method }) => method === name);
}

function fillLegend() {
  const focused = legend.indexOf(document.activeElement);
  const rows = colouring.entries.map((entry, k) => {
    const parts = [buildChip(entry), node("bdi", {}, entry.name)];
    if (!colouring.grouped) return node("div", {}, ...parts);
    const settings = { type: "button", "aria-pressed": String(state.group === k) };
    const listeners = { click: () => chooseGroup(k), keydown: (event) => walkLegend(event, k) };
    parts.push(node("span", { class: "number" }, count(entry.count)));
    return node("button", { ...settings, ...listeners }, ...parts);
  });
  legend = colouring.grouped ? rows : [];
  roveFocus(legend, state.group ?? 0);
  place("legend").replaceChildren(...rows);
  legend[focused]?.focus();
}

function walkLegend(event, k) {
  const next = moveCursor(event.key, { row: k, column: 0 }, legend.length, 1)?.row;
  if (next === undefined || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
  event.preventDefault();
  roveFocus(legend, next);
  legend[next].focus();
}

function buildChip({ colour, shape }) {
  const chip = svgNode("svg", { class: "chip", viewBox: "-1.4 -1.4 2.8 2.8", "aria-hidden": "true" });
  const edge = { stroke: palette().quiet, "stroke-width": 0.12 };
  chip.append(svgNode("path", { d: shapePath(shape), fill: colour(), ...edge }));
  return chip;
}

// What stands out

function matches(text) {
  return searched[text].includes(place("search").value.toLowerCase());
}

function paint() {
  const fits = new Set(all.filter(matches));
  const bright = (text) => fits.has(text) && (state.group === null || colouring.of(text) === state.group);
  const shape = (text) => colouring.entries[colouring.of(text)]?.shape ?? 0;
  scatter.paint({ colour: colouring.colour, shape, bright });
  announce(place("matches"), place("search").value && `${count(fits.size)} of ${count(texts.length)} texts`);
  point(state.pointed);
  fillDetails();
}

function choose(text) {
  Object.assign(state, { text, pointed: text, group: text === null ? null : colouring.of(text) });
  fillLegend();
  paint();
  const group = state.group === null ? "" : ` Group ${nameGroup()}.`;
  announce(place("spoken"), text === null ? "Nothing is chosen." : `Chosen: ${readText(text)}.${group}`);
}

function nameGroup() {
  const { name, count: n } = colouring.entries[state.group];
  return `${name}, ${count(n)} texts`;
}

function chooseGroup(k) {
  Object.assign(state, { text: null, group: state.group === k ? null : k });
  fillLegend();
  paint();
}

// Show the text under the pointer, or let go of it.
function point(text, aloud = false) {
  state.pointed = text;
  scatter.mark(text ?? state.text);
  if (text === null) return;
  place("tip").replaceChildren(node("bdi", { class: "text" }, shorten(texts[text], 240)), describeText(text));
  placeTip(); // it may have another size now
  if (aloud) announce(place("spoken"), readText(text));
}

// Put what is shown of a text beside its point; away where the point is out of sight.
function placeTip() {
  const [tip, { clientWidth: width, clientHeight: height }] = [place("tip"), place("field")];
  const at = state.pointed === null ? null : scatter.find(state.pointed);
  tip.hidden = !at || at[0] < 0 || at[0] > width || at[1] < 0 || at[1] > height;
  if (tip.hidden) return;
  const beyond = (start, size, end) => (start + 14 + size > end ? Math.max(start - 14 - size, 0) : start + 14);
  tip.style.left = `${beyond(at[0], tip.offsetWidth, width)}px`;
  tip.style.top = `${beyond(at[1], tip.offsetHeight, height)}px`;
}

function readText(text) {
  return `${shorten(texts[text], 240)} ${describeText(text).textContent}`;
}

function describeText(text) {
  const cluster = clusterOf(text);
  return node(
    "div",
    { class: "quiet" },
    ...["label ", nameClass(data.label[text]), ", predicted ", nameClass(data.predicted[text])],
    ...(cluster ? [", ", node("bdi", {}, cluster.name)] : []),
    ...[", last token ", nameLastToken(text)],
  );
}

function nameLastToken(text) {
  return tokenElement(showToken(data.tokens[data.last_token[text]]));
}

function nameClass(k) {
  return node("bdi", {}, labels[k] ?? "none");
}

// The entry of the text's cluster, by the method of the legend, or by the one whose clusters have words.
function clusterOf(text) {
  const method = [place("colour").value, data.named_by].find(isClusters);
  if (!method) return null;
  const grouping = buildColouring(data, method, state.map.network);
  return grouping.entries[grouping.of(text)];
}

// What is chosen

function fillDetails() {
  const parts = [...(state.text === null ? [] : showText(state.text)), ...(state.group === null ? [] : showGroup())];
  const hint = node("p", { class: "quiet" }, "Choose a text of the map, or a group of the legend.");
  place("details").replaceChildren(...(parts.length ? parts : [hint]));
}

function showText(text) {
  const right = data.label[text] === data.predicted[text];
  const outcome = node("span", { class: right ? null : "is-wrong" }, right ? ", right" : ", wrong");
  const rows = {
    label: [nameClass(data.label[text])],
    predicted: [nameClass(data.predicted[text]), outcome],
    cluster: [node("bdi", {}, clusterOf(text)?.name ?? "none")],
    "last token": [nameLastToken(text)],
    tokens: [String(data.length[text])],
  };
  const list = Object.entries(rows).flatMap(([name, parts]) => [node("dt", {}, name), node("dd", {}, ...parts)]);
  const whole = node("p", { class: "text" }, node("bdi", {}, texts[text]));
  return [node("h2", {}, `Text ${data.names[text]}`), whole, node("dl", {}, ...list)];
}

function showGroup() {
  const entry = colouring.entries[state.group];
  const members = all.filter((text) => colouring.of(text) === state.group);
  const share = Math.round((100 * members.length) / texts.length);
  const [title, of] = place("colour").value === "label" ? ["Predicted as", data.predicted] : ["Classes", data.label];
  return [
    node("h2", {}, buildChip(entry), node("bdi", {}, entry.name)),
    node("p", {}, `${count(members.length)} texts, ${share} % of all`),
    node("h3", {}, title),
    buildShares(members.map((text) => of[text])),
    ...buildWords(entry.wanted),
  ];
}

function buildShares(numbers) {
  const rows = labels.flatMap((label, k) => {
    const n = numbers.filter((number) => number === k).length;
    const bar = node("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${(100 * n) / numbers.length}%`;
    bar.style.background = markClass(k).colour();
    const name = node("span", { class: "name" }, buildChip(markClass(k)), node("bdi", {}, label));
    return n ? [name, bar, node("span", { class: "number" }, count(n))] : [];
  });
  return node("div", { class: "shares" }, ...rows);
}

function buildWords(wanted) {
  const lists = wanted ? findTopics(data, wanted) : [];
  const named = `Words are listed for labels and for the clusters of ${spell(data.named_by)}.`;
  if (!lists.length) return [node("p", { class: "quiet" }, named)];
  const shown = lists.find(({ method }) => method === state.words) ?? lists[0];
  const methods = lists.map(({ method }) => method).sort((a, b) => (b === "log_odds") - (a === "log_odds"));
  const change = (event) => {
    state.words = event.target.value;
    fillDetails();
    place("words").focus();
  };
  const select = node("select", { id: "words", change }, ...methods.map(buildOption));
  select.value = shown.method;
  const write = (number) => (number === null ? "unknown" : number.toFixed(2));
  const weigh = (number) => (number === null ? "unknown" : String(Number(number.toPrecision(3)))); // some are small
  const items = shown.words.map((word, at) =>
    node("li", {}, node("bdi", {}, word), " ", node("span", { class: "number" }, weigh(shown.scores[at]))),
  );
  const coherence = `Coherence (NPMI) ${write(shown.npmi)}; of random words ${write(shown.null_npmi)}.`;
  const parts = [node("label", {}, "by ", select), node("ol", {}, ...items), node("p", { class: "quiet" }, coherence)];
  return [node("h3", {}, "Words"), ...parts];
}

// Controls

function fillControls() {
  for (const network of unique("network")) {
    place("networks").append(node("button", { type: "button", click: () => switchTo("network", network) }, network));
  }
  place("pooling").append(...unique("pooling").map((value) => node("option", { value }, namePooling(value))));
  const common = unique("method").sort((a, b) => countMaps(b) - countMaps(a));
  place("method").append(...common.map(buildOption));
  const methods = [...new Set(clusters.map(({ method }) => method))];
  const kinds = ["label", "prediction", "right or wrong", "last token", "length"].map(buildOption);
  const clusterings = methods.map((value) => node("option", { value }, `clusters: ${spell(value)}`));
  place("colour").append(...kinds, ...clusterings);
  place("layer").max = layers.length - 1;
}

function buildOption(value) {
  return node("option", { value }, spell(value));
}

function listen() {
  for (const name of ["pooling", "method"]) {
    place(name).addEventListener("change", (event) => switchTo(name, event.target.value));
  }
  place("layer").addEventListener("input", (event) => switchTo("layer", layers[event.target.value]));
  place("search").addEventListener("input", paint);
  place("colour").addEventListener("change", () => {
    state.group = null;
    showColours();
  });
  place("zoom-in").addEventListener("click", () => scatter.zoom(1.5));
  place("zoom-out").addEventListener("click", () => scatter.zoom(1 / 1.5));
  place("reset").addEventListener("click", () => scatter.reset());
  const picture = () => drawPicture(scatter, { title: nameMap(), entries: colouring.entries });
  place("save").addEventListener("click", () => savePng(picture(), "map"));
  place("map").addEventListener("keydown", useKey);
  place("map").addEventListener("blur", () => point(null));
  document.addEventListener("keydown", stepLayer);
  onTheme(() => {
    fillLegend();
    paint();
  });
}

function stepLayer(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input, select")) return;
  const next = layers[layers.indexOf(state.map.layer) + step];
  event.preventDefault();
  if (next !== undefined) switchTo("layer", next);
}

function useKey(event) {
  const keys = {
    ArrowUp: () => walk(-1),
    ArrowDown: () => walk(1),
    Enter: () => state.pointed !== null && choose(state.pointed),
    Escape: () => choose(null),
    "+": () => scatter.zoom(1.5),
    "-": () => scatter.zoom(1 / 1.5),
    0: () => scatter.reset(),
  };
  if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  keys[event.key]();
}

// Point at the next text that stands out.
function walk(step) {
  const shown = all.filter((text) => scatter.look.bright(text) && scatter.find(text));
  const at = shown.indexOf(state.pointed ?? state.text);
  const next = shown[at < 0 ? 0 : Math.min(Math.max(at + step, 0), shown.length - 1)];
  if (next === undefined) return;
  scatter.reveal(next);
  point(next, true);
}

window.headgate = { data, state, scatter, decodePlaces }; // for the curious, in the browser's console
place("left-out").textContent = data.left_out;
place("about").append(...data.about.map((line) => node("p", {}, line)));
fillControls();
listen();
showMap(state.map);
