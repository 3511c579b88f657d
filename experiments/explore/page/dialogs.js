// Dialogs: the keys, and a text to copy. Escape, the button and a click beside it close one.
// Exports: showText, showKeys, copyText.

import { node } from "./nodes.js";

const KEYS = [
  ["Ctrl-Enter", "in the text: run at once"],
  ["arrows, Home, End", "in the grid: move; the attention view follows"],
  ["Space or click", "on a cell: switch the head or the MLP off or on"],
  ["Enter or Shift-click", "on a cell: look at the head without switching it"],
  ["layer number, all", "in the grid: switch a whole layer, or all its heads"],
  ["Ctrl-Z", "outside a text box: undo"],
  ["a", "outside a text box: everything on"],
  ["s", "outside a text box: try the strongest head"],
  ["?", "this list"],
];

const WORDS = [
  ["number in a cell", "what switching it off, too, would do to the label in focus, in points (61 % to 49 % is −12)"],
  ["◥ in a cell", "switching it off, too, would change the prediction"],
  ["outline, fill of a bar", "before any switch, and with the switches"],
  ["hide, delete, fill", "a word: nobody may look at it; it is taken out; its embedding is replaced"],
  ["zero, mean, resample …", "what a switched-off unit emits in place of its output"],
];

export function showKeys() {
  const list = (pairs) =>
    node("dl", {}, ...pairs.flatMap(([term, text]) => [node("dt", {}, term), node("dd", {}, text)]));
  openDialog("Keys and words", node("h3", {}, "Keys"), list(KEYS), node("h3", {}, "Words"), list(WORDS));
}

// Show a text with a button that copies it.
export function showText(title, text) {
  const copy = node("button", { type: "button", class: "copy" }, "Copy");
  const said = node("span", { role: "status", class: "quiet" });
  copy.addEventListener("click", async () => {
    said.textContent = (await copyText(text)) ? "copied" : "This browser does not let pages copy: select the text.";
  });
  openDialog(title, node("div", { class: "line" }, copy, said), node("pre", { tabindex: "0" }, text));
  copy.focus();
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

function openDialog(title, ...content) {
  const close = node("button", { type: "button", class: "close" }, "Close");
  const bar = node("div", { class: "line bar-of-dialog" }, node("h2", { id: "dialog-title" }, title), close);
  const dialog = node(
    "dialog",
    { "aria-labelledby": "dialog-title" },
    bar,
    node("div", { class: "content" }, ...content),
  );
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the backdrop belongs to the dialog, its content does not
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
