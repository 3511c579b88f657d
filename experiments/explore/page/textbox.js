// The text, the examples of the corpus, and the tokens as buttons: what is hidden, deleted or filled.
// Exports: TypedText, fillChooser, TokenRow, WordChoice.

import { announce, node } from "./nodes.js";
import { isolate, labelTokens, shorten, tokenElement } from "./tokens.js";
import { byId } from "./words.js";

const TYPING_PAUSE = 150; // ms without a key before what was typed is run

// A box to type in. What is typed while an answer is on its way stays: only a text from elsewhere replaces it.
export class TypedText {
  #box;
  #timer = 0;
  #text = ""; // what the state holds, as far as this box knows
  #onText;

  // onText(text): after a pause, or at Ctrl-Enter
  constructor(box, onText) {
    this.#box = box;
    this.#onText = onText;
    box.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.run(), TYPING_PAUSE);
    });
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.run();
    });
  }

  run() {
    clearTimeout(this.#timer);
    this.#text = this.#box.value;
    this.#onText(this.#text);
  }

  show(text) {
    if (text === this.#text) return;
    clearTimeout(this.#timer);
    this.#box.value = this.#text = text;
  }
}

export function fillChooser(model, onText) {
  const chooser = byId("examples");
  const about = model.about.map((line) => node("option", { value: "", disabled: true }, line)); // how they were chosen
  chooser.append(
    node("option", { value: "" }, about.length ? "Examples: close calls …" : "Examples …"),
    ...about,
    ...groupExamples(model),
  );
  chooser.addEventListener("change", () => {
    if (chooser.value !== "") onText(model.examples[Number(chooser.value)].text);
    chooser.value = "";
  });
  chooser.hidden = model.examples.length === 0;
}

function groupExamples(model) {
  const groups = new Map();
  model.examples.forEach(({ text, label, predicted }, i) => {
    const outcome = label === null ? "" : label === predicted ? "right: " : `wrong, named ${isolate(predicted)}: `;
    const name = label ?? "Texts";
    if (!groups.has(name)) groups.set(name, node("optgroup", { label: name }));
    groups.get(name).append(node("option", { value: String(i) }, outcome + isolate(shorten(text, 80))));
  });
  return groups.values();
}

const FIXED = "The last token is read, so it cannot be hidden: choose delete or fill.";
const STATES = { hide: "hidden", delete: "deleted", fill: "filled" };

export class TokenRow {
  #row = byId("tokens");
  #key = null; // of the tokens that the buttons stand for
  #onToken;

  constructor(onToken) {
    this.#onToken = onToken;
  }

  show(tokens, state) {
    const key = JSON.stringify(tokens);
    if (key !== this.#key) {
      this.#key = key;
      this.#row.replaceChildren(...labelTokens(tokens).map((label, position) => this.#makeButton(label, position)));
    }
    byId("count").textContent = tokens.length === 1 ? "1 token" : `${tokens.length} tokens`;
    this.paint(state);
  }

  paint(state) {
    const buttons = [...this.#row.children];
    const last = buttons.findLastIndex((_, position) => state.tokens[position] !== "delete");
    buttons.forEach((button, position) => {
      const removal = state.tokens[position];
      button.className = "token " + (removal ?? "");
      button.setAttribute("aria-pressed", String(removal !== undefined));
      button.lastChild.textContent = removal ? STATES[removal] : "";
      const fixed = position === last && removal === undefined && state.removal === "hide";
      button.setAttribute("aria-disabled", String(fixed));
      if (fixed) button.title = FIXED;
      else
        button.title = `token ${position}: ${removal ? STATES[removal] + "; a click keeps it" : "a click will " + state.removal + " it"}`;
    });
  }

  #makeButton(label, position) {
    const button = node("button", { type: "button" }, tokenElement(label), node("small", {}));
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-disabled") === "true") announce(byId("text-error"), FIXED);
      else this.#onToken(position);
    });
    return button;
  }
}

// Visible words to choose one of, in a fieldset: what a click on a word does, what a switched-off unit emits.
export class WordChoice {
  #inputs;

  constructor(fieldset, entries, onChoice) {
    this.#inputs = entries.map(({ name, text }) => {
      const input = node("input", { type: "radio", name: fieldset.id, value: name });
      input.addEventListener("change", () => onChoice(name));
      fieldset.append(node("label", { title: text }, input, WORDS[name] ?? name));
      return input;
    });
  }

  show(name) {
    for (const input of this.#inputs) input.checked = input.value === name;
  }
}

const WORDS = { zero: "zero", mean: "its mean", resample: "resample", class_mean: "class mean", text: "other text" };
