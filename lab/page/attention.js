// The panel that shows one recording: choosers, the text, five views, a line of numbers, and the files to save.
//
// new AttentionPanel(element, {onHead, onView, missing})   all three may be left out
//   onHead(layer, head)  the user opened another head;  onView(view)  the user opened another view
//   missing              what the neuron view says where no q and k are packed
// panel.show(recording, {layer, head, query, view, moved, withoutFirst})   what is left out stays as it is, if it can
// panel.state            what is shown, as `show` takes it

import { announce, moveCursor, node, roveFocus, scrollInside } from "./nodes.js";
import { onTheme, sequential } from "./colours.js";
import { chooseHead, withoutFirst } from "./recording.js";
import { TokenStrip } from "./strip.js";
import { drawLines, linesPicture } from "./lines.js";
import { drawThumbnails, thumbnailsPicture } from "./thumbnails.js";
import { drawMatrix, matrixPicture } from "./matrix.js";
import { drawNeurons, neuronsPicture } from "./neurons.js";
import { describePatterns } from "./patterns.js";
import { describePoint, drawTable, viewRows } from "./rows.js";
import { savePng, saveCsv, saveSvg } from "./exports.js";

const VIEWS = { lines: "Lines", heads: "All heads", matrix: "Matrix", neurons: "Neurons", table: "Table" };
const PICTURES = { lines: linesPicture, heads: thumbnailsPicture, matrix: matrixPicture, neurons: neuronsPicture };
const NOTE = "Attention maps are hypotheses: what a head does is measured by closing it (make ablate).";
const MOVED = "weight times the length of the value as it enters the residual stream, as a share of its row";

export class AttentionPanel {
  constructor(element, { onHead, onView, missing } = {}) {
    this.onHead = onHead ?? (() => {});
    this.onView = onView ?? (() => {});
    this.missing = missing ?? "The q and k of this head are not here.";
    this.recording = null;
    this.view = "lines";
    this.moved = this.skipFirst = false;
    this.build(element);
    onTheme(() => this.recording && this.draw());
    let width = 0;
    new ResizeObserver(() => {
      if (this.recording && Math.abs(element.clientWidth - width) > 8) this.draw();
      width = element.clientWidth;
    }).observe(element);
  }

  get state() {
    const { layer, head, query, view, moved } = this;
    return { layer, head, query, view, moved, withoutFirst: this.skipFirst };
  }

  show(recording, { layer, head, query, view, moved, withoutFirst: skip } = {}) {
    const last = recording.tokens.length - 1;
    const sameLength = this.recording?.tokens.length === last + 1;
    const stays = this.recording && this.layer < recording.layers && this.head < recording.heads;
    this.recording = recording;
    this.query = Math.min(Math.max(query ?? (sameLength ? this.query : last), 0), last);
    const chosen = stays ? this : chooseHead(recording, this.query);
    [this.layer, this.head] = [layer ?? chosen.layer, head ?? chosen.head];
    [this.view, this.moved] = [view ?? this.view, moved ?? this.moved];
    this.skipFirst = skip ?? this.skipFirst;
    fillNumbers(this.layerBox, recording.layers);
    fillNumbers(this.headBox, recording.heads);
    this.strip.fill(recording);
    this.draw();
  }

  build(element) {
    this.strip = new TokenStrip({
      onPoint: (index) => this.pointQuery(index),
      onRest: () => this.rest(),
      onChoose: (index) => this.change({ query: index }),
    });
    this.tabs = Object.entries(VIEWS).map(([view, title]) => this.buildTab(view, title));
    const tabs = node("div", { class: "tabs", role: "tablist", "aria-label": "Views" }, ...this.tabs);
    this.box = node("div", { class: "view", role: "tabpanel", id: "attention-view" });
    this.readout = node("p", { class: "readout", role: "status" });
    this.scale = node("div", { class: "scale", "aria-hidden": "true" });
    this.patterns = node("p", { class: "patterns" });
    const foot = node("div", { class: "attention-foot" }, this.scale, node("p", { class: "note" }, NOTE));
    element.classList.add("attention");
    element.append(this.buildBar(), this.strip.element, tabs, this.box, this.readout, this.patterns, foot);
  }

  buildBar() {
    const choose = () => this.openHead(Number(this.layerBox.value), Number(this.headBox.value));
    this.layerBox = node("select", { change: choose });
    this.headBox = node("select", { change: choose });
    this.measureBox = node(
      "select",
      { title: `what moved: ${MOVED}`, change: () => this.change({ moved: this.measureBox.value === "moved" }) },
      node("option", { value: "weight" }, "weight"),
      node("option", { value: "moved" }, "what moved"),
    );
    const skip = () => this.change({ skipFirst: this.firstBox.checked });
    this.firstBox = node("input", { type: "checkbox", change: skip });
    const save = (name, action) => node("button", { type: "button", class: "save", click: action }, name);
    this.pictureButtons = [
      save("SVG", () => saveSvg(this.picture(), this.fileName())),
      save("PNG", () => savePng(this.picture(), this.fileName())),
    ];
    const csv = save("CSV", () => saveCsv(viewRows(this.view, this.scene()), this.fileName()));
    const saves = { class: "saves", role: "group", "aria-label": "Save this view" };
    return node(
      "div",
      { class: "attention-bar" },
      node("label", {}, "layer ", this.layerBox),
      node("label", {}, "head ", this.headBox),
      node("label", {}, "show ", this.measureBox),
      node("label", { title: "each row sums to 1 again" }, this.firstBox, " without the first token"),
      node("span", saves, ...this.pictureButtons, csv),
    );
  }

  buildTab(view, title) {
    const settings = { type: "button", role: "tab", id: `attention-tab-${view}`, "aria-controls": "attention-view" };
    const walk = (event) => this.walkTabs(event, Object.keys(VIEWS), view);
    return node("button", { ...settings, click: () => this.openView(view), keydown: walk }, title);
  }

  walkTabs(event, views, view) {
    const cell = moveCursor(event.key, { row: 0, column: views.indexOf(view) }, 1, views.length);
    if (!cell) return;
    event.preventDefault();
    this.openView(views[cell.column]);
    this.tabs[cell.column].focus();
  }

  // What the views draw from: the state, and the maps as they are shown.
  scene(theme) {
    const maps = (layer, head) => {
      const map = this.recording.map(layer, head, this.moved);
      return map && this.skipFirst ? withoutFirst(map) : map;
    };
    const { recording, layer, head, query, skipFirst } = this;
    const width = this.box.clientWidth - 24 || 720;
    return { recording, layer, head, query, skipFirst, maps, map: maps(layer, head), width, theme };
  }

  picture() {
    return PICTURES[this.view]({ ...this.scene("light"), width: 900 });
  }

  fileName() {
    return `attention-${this.view}` + (this.view === "heads" ? "" : `-${this.layer}.${this.head}`);
  }

  change(values) {
    Object.assign(this, values);
    if (this.view !== "heads" || Object.keys(values).join() !== "query") return this.draw();
    this.syncControls(); // a hundred thumbnails take long, and do not depend on the query
    this.rest();
  }

  openView(view) {
    this.change({ view });
    this.onView(view);
  }

  openHead(layer, head) {
    this.change({ layer, head });
    this.onHead(layer, head);
  }

  openThumbnail(layer, head) {
    this.view = "lines";
    this.openHead(layer, head);
    this.onView("lines");
    this.tabs[0].focus();
  }

  draw() {
    const spot = this.box.contains(document.activeElement) ? document.activeElement.dataset.spot : null;
    const shown = `${this.view} ${this.recording.tokens.length} ${this.view === "lines" && [this.layer, this.head]}`;
    const [top, left] = shown === this.shown ? [this.box.scrollTop, this.box.scrollLeft] : [0, 0];
    this.syncControls();
    this.box.replaceChildren();
    this.alive = this.drawView(this.scene());
    [this.box.scrollTop, this.box.scrollLeft] = [top, left];
    if (shown !== this.shown && this.alive.target) scrollInside(this.box, this.alive.target);
    this.shown = shown;
    this.rest();
    if (spot) this.box.querySelector(`[data-spot="${spot}"]`)?.focus({ preventScroll: true });
  }

  drawView(scene) {
    this.patterns.textContent = describePatterns(scene);
    const say = (text) => announce(this.readout, text);
    const onQuery = (query) => this.change({ query });
    const { names } = this.recording;
    if (this.view === "heads") {
      const onOpen = (layer, head) => this.openThumbnail(layer, head);
      const onPoint = (layer, head) => this.tellPoint("query", this.query, [layer, head]);
      return drawThumbnails(this.box, scene, { onOpen, onPoint, onRest: () => this.rest() });
    }
    if (this.view === "neurons") {
      if (!this.recording.neuron(this.layer, this.head, this.query)) return this.refuse(this.missing);
      const tell = (key, d, { q, k, product }) =>
        say(`${names[key]}, dimension ${d}: q ${write3(q[d])} × k ${write3(k[key][d])} = ${write3(product[key][d])}`);
      return drawNeurons(this.box, scene, { onNeuron: tell });
    }
    if (!scene.map) return this.refuse("The weights of this head are not here.");
    if (this.view === "table") return drawTable(this.box, scene);
    if (this.view === "matrix") {
      const tell = (i, j) => say(`${names[i]} (${i}) looks at ${names[j]} (${j}): ${write3(scene.map.at(i, j))}`);
      return drawMatrix(this.box, scene, { onQuery, onCell: tell });
    }
    return drawLines(this.box, scene, { onQuery, onPoint: (side, index) => this.tellPoint(side, index) });
  }

  refuse(text) {
    this.box.append(node("p", { class: "missing" }, text));
    return {};
  }

  syncControls() {
    const views = Object.keys(VIEWS);
    [this.layerBox.value, this.headBox.value] = [this.layer, this.head];
    [this.measureBox.value, this.firstBox.checked] = [this.moved ? "moved" : "weight", this.skipFirst];
    views.forEach((view, at) => this.tabs[at].setAttribute("aria-selected", view === this.view));
    roveFocus(this.tabs, views.indexOf(this.view));
    this.box.setAttribute("aria-labelledby", `attention-tab-${this.view}`);
    const noNeurons = this.view === "neurons" && !this.recording.neuron(this.layer, this.head, this.query);
    for (const button of this.pictureButtons) button.disabled = this.view === "table" || noNeurons;
    this.strip.mark(this.query);
    const steps = Array.from({ length: 24 }, () => node("i"));
    steps.forEach((step, at) => (step.style.background = sequential(at / 23)));
    this.scale.replaceChildren(`${this.moved ? "share" : "weight"} 0`, ...steps, "1");
  }

  pointQuery(index) {
    this.strip.shade(this.scene().map, index);
    this.alive?.point?.("query", index);
    this.tellPoint("query", index);
  }

  rest() {
    this.strip.shade(this.scene().map, this.query);
    this.alive?.rest?.();
    this.tellPoint("query", this.query);
  }

  tellPoint(side, index, head = [this.layer, this.head]) {
    announce(this.readout, describePoint(this.scene(), head, side, index));
  }
}

const write3 = (value) => value.toFixed(3);

function fillNumbers(select, count) {
  if (select.options.length === count) return;
  select.replaceChildren(...Array.from({ length: count }, (_, value) => node("option", { value }, String(value))));
}
