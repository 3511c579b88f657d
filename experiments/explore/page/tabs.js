// The tabs beside the grid: one view at a time, arrows move between them. Exports: Tabs.

import { node } from "./nodes.js";
import { byId } from "./words.js";

export class Tabs {
  #tabs = new Map(); // by name: {tab, panel}

  // names: {attention: "Attention", ...}
  constructor(names, onView) {
    for (const [name, title] of Object.entries(names)) {
      const tab = node(
        "button",
        { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `view-${name}` },
        title,
      );
      const panel = node("div", {
        role: "tabpanel",
        id: `view-${name}`,
        "aria-labelledby": `tab-${name}`,
        tabindex: "0",
      });
      tab.addEventListener("click", () => onView(name));
      byId("tabs").append(tab);
      byId("views").append(panel);
      this.#tabs.set(name, { tab, panel });
    }
    byId("tabs").addEventListener("keydown", (event) => {
      const list = [...this.#tabs.keys()];
      const at = list.findIndex((name) => this.#tabs.get(name).tab === event.target);
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: list.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const name = list[(to + list.length) % list.length];
      onView(name);
      this.#tabs.get(name).tab.focus();
    });
  }

  show(view) {
    const name = this.#tabs.has(view) ? view : "attention";
    for (const [each, { tab, panel }] of this.#tabs) {
      tab.setAttribute("aria-selected", String(each === name));
      tab.tabIndex = each === name ? 0 : -1;
      panel.hidden = each !== name;
    }
  }

  panel(name) {
    return this.#tabs.get(name).panel;
  }
}
