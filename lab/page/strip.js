// The text as a strip of tokens, shaded by where the query looks: point at a token to ask, choose it as the query.
//
// new TokenStrip({onPoint, onRest, onChoose})   called with the index of a token; it stands in `strip.element`
// strip.fill(recording)      put another text in
// strip.mark(query)          mark the query that is chosen
// strip.shade(map, query)    shade every token by its weight

import { node, roveFocus, scrollInside } from "./nodes.js";
import { tokenElement } from "./tokens.js";
import { shade } from "./colours.js";

export class TokenStrip {
  constructor({ onPoint, onRest, onChoose }) {
    Object.assign(this, { onPoint, onRest, onChoose });
    const settings = { class: "strip", role: "group", "aria-label": "Query: the token that looks" };
    this.element = node("div", { ...settings, mouseleave: onRest });
    this.buttons = [];
  }

  fill({ labels, hidden }) {
    this.buttons = labels.map((label, index) => {
      const point = () => this.onPoint(index);
      const listeners = { mouseenter: point, focus: point, blur: this.onRest, click: () => this.onChoose(index) };
      const settings = { type: "button", class: hidden.has(index) ? "strip-token is-hidden" : "strip-token" };
      const walk = (event) => this.walk(event, index);
      return node("button", { ...settings, ...listeners, keydown: walk }, tokenElement(label));
    });
    this.element.replaceChildren(...this.buttons);
  }

  mark(query) {
    this.buttons.forEach((button, index) => button.setAttribute("aria-pressed", index === query));
    if (this.buttons.includes(document.activeElement)) return;
    roveFocus(this.buttons, query);
    scrollInside(this.element, this.buttons[query]);
  }

  shade(map, query) {
    this.buttons.forEach((button, key) => {
      button.style.background = shade(map && key <= query ? map.at(query, key) : 0);
    });
  }

  walk(event, index) {
    const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -index, End: this.buttons.length };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const next = Math.min(Math.max(index + steps[event.key], 0), this.buttons.length - 1);
    roveFocus(this.buttons, next);
    this.buttons[next].focus();
  }
}
