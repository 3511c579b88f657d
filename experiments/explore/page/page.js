// The page: one state, its answers, and who is told when either changes. Exports: Page.
//
// change(next) -> paint the switches at once -> ask /api/run, then /api/attention, the open view and, last, /api/heads.
// Each answer is painted when it comes; an answer to an older state is never painted.

import { AttentionPanel } from "./attention.js";
import { Bars } from "./bars.js";
import { onTheme } from "./colours.js";
import { showCorpus } from "./corpus.js";
import { changesPrediction, describeAnswer, describeUnit, effectsOn, strongest } from "./effects.js";
import { Grid, showLegend } from "./grid.js";
import { showLens } from "./lens.js";
import { announce, node } from "./nodes.js";
import { MOST_CHARACTERS, writeFragment } from "./permalink.js";
import { RandomHeads } from "./random.js";
import { decodeRecording } from "./recording.js";
import { Requests } from "./requests.js";
import { UndoStack, askFor, countSwitches, sameExperiment, toggleUnits } from "./state.js";
import { Tabs } from "./tabs.js";
import { TextBox, TokenRow, WordChoice } from "./textbox.js";
import { byId, showLabel } from "./words.js";

const VIEWS = { attention: "Attention", lens: "Class lens", corpus: "Corpus", random: "Random heads" };

export class Page {
  requests = new Requests();
  past = new UndoStack();
  run = null; // the answer of /api/run that is shown
  effects = null; // {run, units}: what switching each unit off too would do, and the answer that this is compared with
  recording = null; // the JSON of /api/attention
  lens = null;
  draws = null; // the answer of /api/random
  drawing = false; // whether it is on its way
  fresh = new Set(); // kinds of answers that belong to the present state; others are shown dimmed
  problems = {}; // by kind of request: the server's line
  hovered = null; // the unit whose numbers stand under the grid

  constructor(model, findings) {
    this.model = model;
    this.findings = findings;
    this.textBox = new TextBox(model, (text) => this.change({ ...this.state, text, tokens: text === this.state.text ? this.state.tokens : {} }, "typing"));
    this.tokenRow = new TokenRow((position) => this.toggleToken(position));
    this.removals = new WordChoice(byId("removals"), model.removals, (removal) => this.change({ ...this.state, removal }));
    this.fills = new WordChoice(byId("fills"), model.fills, (fill) => this.chooseFill(fill));
    this.bars = new Bars(model, (focus) => this.change({ ...this.state, focus }));
    this.grid = new Grid(model, {
      toggle: (units, unit) => this.change({ ...toggleUnits(this.state, units), ...lookAt(unit) }),
      look: (unit) => this.change({ ...this.state, ...lookAt(unit) }),
      readOut: (unit) => this.readOut(unit),
    });
    const views = model.kind === "classifier" ? VIEWS : { ...VIEWS, lens: "Token lens" };
    this.tabs = new Tabs(views, (view) => this.change({ ...this.state, view }));
    const onHead = (layer, head) => this.change({ ...this.state, ...lookAt({ layer, head }) });
    this.attentionError = node("p", { class: "error", role: "alert" });
    const place = node("div", {});
    this.tabs.panel("attention").append(this.attentionError, place);
    this.attention = new AttentionPanel(place, { onHead });
    this.random = new RandomHeads(this.tabs.panel("random"), () => this.drawRandom());
    onTheme(() => this.paint());
  }

  // Go on to another state. Only what changes an answer can be undone, and asks the server again.
  change(next, kind = "change") {
    if (!sameExperiment(next, this.state)) this.past.push(this.state, kind);
    this.enter(next);
  }

  enter(next) {
    const former = this.state;
    this.state = next;
    this.shareLink();
    if (former === undefined || !sameExperiment(former, next)) this.refresh();
    else {
      this.paint();
      if (String(former.look) !== String(next.look) && this.fresh.has("attention")) this.refreshNeurons();
      else if (this.fresh.has("run")) this.refreshView();
    }
  }

  undo() {
    const former = this.past.pop();
    if (former !== null) this.enter({ ...former, view: this.state.view, removal: this.state.removal });
  }

  toggleToken(position) {
    if (this.run === null || this.runText !== this.state.text) return; // the tokens of another text
    const { [position]: current, ...tokens } = this.state.tokens;
    if (current === undefined) tokens[position] = this.state.removal;
    this.change({ ...this.state, tokens });
  }

  chooseFill(fill) {
    const donor = this.model.examples.find(({ text }) => text !== this.state.text)?.text ?? "This is another text.";
    this.change({ ...this.state, fill, other: fill === "text" && !this.state.other ? donor : this.state.other });
  }

  everythingOn() {
    this.change({ ...this.state, heads: [], mlps: [], tokens: {} });
  }

  tryStrongest() {
    if (!this.fresh.has("heads")) return;
    const unit = strongest(this.state, this.effects);
    if (unit !== null) this.change({ ...toggleUnits(this.state, [unit]), ...lookAt(unit) });
  }

  // Ask; the answer, or null where it was overtaken or the server refused: then its line stands where it belongs.
  async ask(kind, body) {
    try {
      const answer = await this.requests.ask(kind, body);
      if (answer !== null) delete this.problems[kind];
      return answer;
    } catch (error) {
      this.problems[kind] = error.message;
      this.paint();
      return null;
    }
  }

  async refresh() {
    this.requests.abort("attention", "lens", "heads", "random");
    this.fresh.clear();
    this.paint();
    const { text } = this.state;
    const run = await this.ask("run", askFor(this.state));
    if (run === null) return;
    Object.assign(this, { run, runText: text, draws: null });
    this.problems = {};
    this.fresh.add("run");
    this.paint();
    announce(byId("live"), describeAnswer(run, this.state, this.focus, (label) => showLabel(label, this.model)));
    await this.refreshView();
    await this.refreshEffects();
  }

  async refreshEffects() {
    if (!this.fresh.has("run")) return; // a newer state is on its way
    const run = this.run;
    const units = await this.ask("heads", askFor(this.state));
    if (units === null) return;
    this.effects = { run, units };
    this.fresh.add("heads");
    this.paint();
  }

  // Ask for what the open tab shows, unless it is fresh.
  async refreshView() {
    const { view } = this.state;
    if (this.fresh.has(view)) return;
    if (view === "lens") {
      const lens = await this.ask("lens", askFor(this.state));
      if (lens === null) return;
      this.lens = { ...lens, tokens: this.run.tokens.filter((_, position) => this.state.tokens[position] !== "delete") };
    } else if (view === "attention") {
      const all = this.run.tokens.length <= this.model.most_tokens;
      const recording = await this.ask("attention", { ...askFor(this.state), look: this.state.look, all });
      if (recording === null) return;
      this.recording = recording;
      this.showAttention();
    } else return;
    this.fresh.add(view);
    this.paint();
  }

  // The maps of all heads are here already: only q and k of the head that is looked at are wanted.
  async refreshNeurons() {
    const recording = await this.ask("attention", { ...askFor(this.state), look: this.state.look, all: false });
    if (recording === null) return;
    const whole = this.recording.maps.heads.length > 1;
    this.recording = whole ? { ...this.recording, neurons: recording.neurons } : recording;
    this.showAttention();
    this.paint();
  }

  showAttention() {
    const [layer, head] = this.state.look;
    this.attention.show(decodeRecording(this.recording), { ...this.attention.state, layer, head });
  }

  async drawRandom() {
    this.drawing = true;
    this.paint();
    const draws = await this.ask("random", askFor(this.state));
    this.drawing = false;
    if (draws !== null) this.draws = draws;
    this.paint();
  }

  // The label that colours, lens and words are about: the chosen one, else what was predicted before any switch.
  get focus() {
    const { focus } = this.state;
    return this.run.labels.includes(focus) ? focus : this.run.predicted_before;
  }

  // Paint everything from the state and the answers that are here; what is not fresh is dimmed.
  paint() {
    const { state, run, fresh } = this;
    this.textBox.show(state.text);
    this.removals.show(state.removal);
    this.fills.show(state.fill);
    byId("donor").hidden = state.fill !== "text";
    if (byId("other").value !== state.other) byId("other").value = state.other;
    byId("undo").disabled = this.past.length === 0;
    byId("everything-on").disabled = countSwitches(state) === 0;
    byId("strongest").disabled = !fresh.has("heads");
    this.tabs.show(state.view);
    showCorpus(this.tabs.panel("corpus"), this.findings, state, this.model);
    this.paintProblems();
    for (const [id, kind] of [["prediction", "run"], ["tokens", "run"], ["grid", "heads"], ["view-attention", "attention"], ["view-lens", "lens"]]) {
      byId(id).classList.toggle("old", !fresh.has(kind));
    }
    if (run === null) return;
    if (this.runText === state.text) this.tokenRow.show(run.tokens, state);
    this.bars.show(run, this.focus, this.draws?.after ?? []);
    const name = showLabel(this.focus, this.model);
    this.limit = this.grid.paint(state, effectsOn(this.effects, this.focus), (unit) => changesPrediction(this.effects, unit), name);
    showLegend(this.limit, name);
    this.readOut(this.hovered);
    if (this.lens) showLens(this.tabs.panel("lens"), this.lens, this.lens.tokens, this.focus, this.model);
    this.random.show(state, this.draws, run, this.model, this.drawing, this.problems.random);
  }

  paintProblems() {
    const { run, attention, heads, lens } = this.problems;
    const ofFill = run?.startsWith("other") || run?.startsWith("fill");
    announce(byId("text-error"), (!ofFill && run) || "");
    announce(byId("grid-error"), (ofFill && run) || heads || "");
    announce(this.attentionError, attention ?? "");
    if (lens) this.tabs.panel("lens").replaceChildren(node("p", { class: "error" }, lens));
  }

  readOut(unit) {
    this.hovered = unit;
    if (this.run === null) return;
    const shown = unit ?? this.state.unit;
    byId("readout").textContent = describeUnit(shown, this.state, this.effects, this.focus, showLabel(this.focus, this.model));
  }

  shareLink() {
    const fragment = writeFragment(this.state, this.model);
    this.linkTooLong = fragment.length > MOST_CHARACTERS;
    history.replaceState(null, "", this.linkTooLong ? location.pathname : fragment);
    const note = `Too long for a link (over ${MOST_CHARACTERS.toLocaleString("en")} characters): export JSON.`;
    this.note(this.linkTooLong ? note : "");
  }

  note(line) {
    announce(byId("link-note"), line);
  }
}

function lookAt(unit) {
  if (unit === null) return {};
  return unit.head === null ? { unit } : { unit, look: [unit.layer, unit.head] };
}
