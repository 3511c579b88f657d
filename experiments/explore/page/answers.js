// What the server said about the present state, and what has to be asked next. Exports: Answers.
//
// A change asks /api/run, then for what the open tab shows and, last, /api/heads. What is not in `fresh` belongs to an
// older state: it stays, dimmed, until its successor comes.

import { Requests } from "./requests.js";
import { askFor, sameExperiment } from "./state.js";

export class Answers {
  requests = new Requests();
  run = null; // the answer of /api/run that is shown
  runText = null; // the text that it is about
  effects = null; // {run, units}: answers of /api/run and /api/heads to the same experiment
  recording = null; // the answer of /api/attention
  lens = null; // the answer of /api/lens, and the tokens that it is about
  draws = null; // the answer of /api/random
  drawing = false; // whether it is on its way
  fresh = new Set(); // kinds of answers that belong to the present state
  problems = {}; // by kind of request: the server's line
  #model;
  #onChange;

  // onChange(): an answer came or grew old
  constructor(model, onChange) {
    this.#model = model;
    this.#onChange = onChange;
  }

  // Go on to a state, and ask for what it needs.
  follow(next) {
    const former = this.state;
    this.state = next;
    if (former === undefined || !sameExperiment(former, next)) return this.refresh();
    this.#onChange();
    if (String(former.look) !== String(next.look) && this.fresh.has("attention")) return this.#refreshNeurons();
    return this.fresh.has("run") ? this.#refreshView() : null;
  }

  // Ask; the answer, or null where it was overtaken or the server refused: then its line stands where it belongs.
  async ask(kind, body) {
    try {
      const answer = await this.requests.ask(kind, body);
      if (answer !== null) delete this.problems[kind];
      return answer;
    } catch (error) {
      this.problems[kind] = error.message;
      this.#onChange();
      return null;
    }
  }

  async refresh() {
    this.requests.abort("attention", "lens", "heads", "random");
    this.fresh.clear();
    this.draws = null;
    this.#onChange();
    const { text } = this.state;
    const run = await this.ask("run", askFor(this.state));
    if (run === null) return;
    Object.assign(this, { run, runText: text });
    this.problems = {};
    this.fresh.add("run");
    this.#onChange();
    await this.#refreshView();
    await this.#refreshEffects();
  }

  async #refreshEffects() {
    if (!this.fresh.has("run")) return; // a newer state is on its way
    const run = this.run;
    const units = await this.ask("heads", askFor(this.state));
    if (units === null) return;
    this.effects = { run, units };
    this.fresh.add("heads");
    this.#onChange();
  }

  // Ask for what the open tab shows, unless it is fresh.
  async #refreshView() {
    const { view } = this.state;
    if (this.fresh.has(view)) return;
    if (view === "lens") {
      const lens = await this.ask("lens", askFor(this.state));
      if (lens === null) return;
      this.lens = {
        ...lens,
        tokens: this.run.tokens.filter((_, position) => this.state.tokens[position] !== "delete"),
      };
    } else if (view === "attention") {
      const all = this.run.tokens.length <= this.#model.most_tokens;
      const recording = await this.ask("attention", { ...askFor(this.state), look: this.state.look, all });
      if (recording === null) return;
      this.recording = recording;
    } else return;
    this.fresh.add(view);
    this.#onChange();
  }

  // The maps of all heads are here already: only q and k of the head that is looked at are wanted.
  async #refreshNeurons() {
    const recording = await this.ask("attention", { ...askFor(this.state), look: this.state.look, all: false });
    if (recording === null) return;
    const whole = this.recording.maps.heads.length > 1;
    this.recording = whole ? { ...this.recording, neurons: recording.neurons } : recording;
    this.#onChange();
  }

  async drawRandom() {
    this.drawing = true;
    this.#onChange();
    const draws = await this.ask("random", askFor(this.state));
    this.drawing = false;
    if (draws !== null) this.draws = draws;
    this.#onChange();
  }
}
