// The page: one state, and who is told when it changes or an answer comes. Exports: Page.
//
// change(next) -> answers.js asks for what is new -> paint(), at once for the switches and again for each answer.

import { Answers } from "./answers.js";
import { AttentionPanel } from "./attention.js";
import { Bars } from "./bars.js";
import { onTheme } from "./colours.js";
import { showCorpus } from "./corpus.js";
import { changesPrediction, describeAnswer, describeUnit, effectsOn, strongest, writeHint } from "./effects.js";
import { Grid, showLegend } from "./grid.js";
import { showLens } from "./lens.js";
import { announce, node } from "./nodes.js";
import { MOST_CHARACTERS, writeFragment } from "./permalink.js";
import { RandomHeads } from "./random.js";
import { decodeRecording } from "./recording.js";
import { UndoStack, countSwitches, sameExperiment, toggleUnits } from "./state.js";
import { Tabs } from "./tabs.js";
import { TokenRow, TypedText, WordChoice, fillChooser } from "./textbox.js";
import { byId, showLabel } from "./words.js";

// Parts of the page, and the kind of answer that each shows.
const SHOWS = { prediction: "run", tokens: "run", grid: "heads", "view-attention": "attention", "view-lens": "lens" };
const VIEWS = { attention: "Attention", lens: "Class lens", corpus: "Corpus", random: "Random heads" };

export class Page {
  past = new UndoStack();
  hovered = null; // the unit whose numbers stand under the grid
  drawn = null; // the recording that the attention view shows

  constructor(model, findings) {
    this.model = model;
    this.findings = findings;
    this.answers = new Answers(model, () => this.paint());
    this.text = new TypedText(byId("text"), (text) => this.changeText(text, "typing"));
    this.other = new TypedText(byId("other"), (other) => this.change({ ...this.state, other }, "typing"));
    fillChooser(model, (text) => this.changeText(text));
    this.tokenRow = new TokenRow((position) => this.toggleToken(position));
    this.removals = new WordChoice(byId("removals"), model.removals, (removal) =>
      this.change({ ...this.state, removal }),
    );
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
    this.random = new RandomHeads(this.tabs.panel("random"), () => this.answers.drawRandom());
    onTheme(() => this.paint());
  }

  // Go on to another state. Only what changes an answer can be undone, and asks the server again.
  change(next, kind = "change") {
    if (!sameExperiment(next, this.state)) this.past.push(this.state, kind);
    this.enter(next);
  }

  enter(next) {
    this.state = next;
    this.shareLink();
    this.answers.follow(next);
  }

  undo() {
    const former = this.past.pop();
    if (former !== null) this.enter({ ...former, view: this.state.view, removal: this.state.removal });
  }

  // Switches of heads stay, those of tokens do not: they were about the words of another text.
  changeText(text, kind) {
    if (text !== this.state.text) this.change({ ...this.state, text, tokens: {} }, kind);
    else if (!this.answers.fresh.has("run")) this.answers.refresh();
  }

  toggleToken(position) {
    if (this.answers.runText !== this.state.text) return; // the tokens of another text
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
    if (!this.answers.fresh.has("heads")) return;
    const unit = strongest(this.state, this.answers.effects);
    if (unit !== null) this.change({ ...toggleUnits(this.state, [unit]), ...lookAt(unit) });
  }

  showAttention(recording) {
    if (recording === null || recording === this.drawn) return;
    const sameTokens = JSON.stringify(recording.tokens) === JSON.stringify(this.drawn?.tokens);
    this.drawn = recording;
    const [layer, head] = this.state.look;
    const query = sameTokens ? this.attention.query : recording.tokens.length - 1; // of another text: what is read
    this.attention.show(decodeRecording(recording), { layer, head, query });
  }

  // The label that colours, lens and words are about: the chosen one, else what was predicted before any switch.
  get focus() {
    const { focus } = this.state;
    const { run } = this.answers;
    return run.labels.includes(focus) ? focus : run.predicted_before;
  }

  // Paint everything from the state and the answers that are here; what is not fresh is dimmed.
  paint() {
    const { state, answers } = this;
    this.text.show(state.text);
    this.other.show(state.other);
    this.removals.show(state.removal);
    this.fills.show(state.fill);
    byId("donor").hidden = state.fill !== "text";
    byId("undo").disabled = this.past.length === 0;
    byId("everything-on").disabled = countSwitches(state) === 0;
    byId("strongest").disabled = !answers.fresh.has("heads");
    announce(byId("hint"), writeHint(answers.effects));
    for (const [id, kind] of Object.entries(SHOWS)) byId(id).classList.toggle("old", !answers.fresh.has(kind));
    this.paintProblems(answers.problems);
    this.tabs.show(state.view);
    showCorpus(this.tabs.panel("corpus"), this.findings, state, this.model);
    if (answers.run !== null) this.paintAnswers();
  }

  paintAnswers() {
    const { state, answers, model, focus } = this;
    const { run, effects, lens } = answers;
    const name = showLabel(focus, model);
    if (answers.runText === state.text) this.tokenRow.show(run.tokens, state);
    this.bars.show(run, focus, answers.draws?.after ?? []);
    this.limit = this.grid.paint(state, effectsOn(effects, focus), (unit) => changesPrediction(effects, unit), name);
    showLegend(this.limit, name);
    this.readOut(this.hovered);
    this.showAttention(answers.recording);
    if (lens && state.view === "lens" && !answers.problems.lens) showLens(this.tabs.panel("lens"), lens, focus, model);
    this.random.show(state, answers, model);
    if (answers.fresh.has("run"))
      announce(
        byId("live"),
        describeAnswer(run, state, focus, (label) => showLabel(label, model)),
      );
  }

  // Each line stands near what caused it.
  paintProblems({ run, attention, heads, lens }) {
    const ofFill = run?.startsWith("other") || run?.startsWith("fill");
    // A link that is refused leaves no tokens to click.
    const nothing = this.answers.run === null && countSwitches(this.state) > 0;
    announce(byId("text-error"), ofFill || !run ? "" : run + (nothing ? "; “Everything on” starts anew" : ""));
    announce(byId("grid-error"), (ofFill && run) || heads || "");
    announce(this.attentionError, attention ?? "");
    if (lens) this.tabs.panel("lens").replaceChildren(node("p", { class: "error" }, lens));
  }

  readOut(unit) {
    this.hovered = unit;
    const { run, effects } = this.answers;
    if (run === null) return;
    byId("readout").textContent = describeUnit(
      unit ?? this.state.unit,
      this.state,
      effects,
      this.focus,
      showLabel(this.focus, this.model),
    );
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
