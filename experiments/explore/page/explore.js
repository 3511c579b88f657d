// Start the page: read the model and the link, run the first text, connect buttons and keys.
// Read next: page.js (what happens at a change), state.js, answers.js; then what each part draws.

import { copyText, showKeys, showText } from "./dialogs.js";
import { effectsOn } from "./effects.js";
import { saveCsv, saveJson, savePng, saveSvg } from "./exports.js";
import { Page } from "./page.js";
import { readFragment } from "./permalink.js";
import { drawPicture } from "./picture.js";
import { fetchJson } from "./requests.js";
import { experimentFile, listRows } from "./share.js";
import { askFor, emptyState } from "./state.js";
import { byId } from "./words.js";

const FALLBACK = "I feel wonderful today"; // where a corpus has no example that is short enough

async function start() {
  const [model, findings] = await Promise.all([fetchJson("/api/model"), fetchJson("/api/findings")]);
  byId("model").textContent = describeModel(model);
  document.title = `${model.name} · headgate explore`;
  const page = new Page(model, findings);
  const first = emptyState(model.examples[0]?.text ?? FALLBACK, model.fills[0].name, model.removals[0].name);
  const follow = (fragment, go) => {
    const { state, problem } = fragment.includes("text=")
      ? readFragment(fragment, model)
      : { state: first, problem: null };
    go(state);
    if (problem) page.note(problem);
  };
  follow(location.hash, (state) => page.enter(state));
  addEventListener("hashchange", () => follow(location.hash, (state) => page.change(state)));
  connectButtons(page);
  connectKeys(page);
}

function describeModel(model) {
  const shape = `${model.n_layer} layers × ${model.n_head} heads`;
  if (model.kind === "classifier")
    return `run ${model.name} · corpus ${model.corpus} · ${model.labels.length} classes · ${shape}`;
  return `${model.name} · language model: next tokens · ${shape}`;
}

function connectButtons(page) {
  const on = (id, action) => byId(id).addEventListener("click", action);
  on("undo", () => page.undo());
  on("everything-on", () => page.everythingOn());
  on("strongest", () => page.tryStrongest());
  on("help", () => showKeys());
  byId("to-corpus").hidden = page.model.kind !== "classifier";
  on("to-corpus", () => page.change({ ...page.state, view: "corpus" }));
  on("copy-link", async () => {
    if (page.linkTooLong) return;
    page.note((await copyText(location.href)) ? "Link copied." : "Copy the address of this page: it is the link.");
  });
  on("copy-python", () => showCode(page, "python", "The same in Python"));
  on("copy-command", () => showCode(page, "command", "The same as a command"));
  on("enlarge", () => {
    const large = document.body.classList.toggle("large");
    byId("enlarge").setAttribute("aria-pressed", String(large));
  });
  connectExports(page, on);
}

async function showCode(page, language, title) {
  const code = await page.answers.ask("code", askFor(page.state));
  if (code !== null) showText(title, code[language]);
  else if (page.answers.problems.code) showText(title, page.answers.problems.code);
}

// Exports are of what is shown: while an answer is on its way there is nothing that fits the switches.
function connectExports(page, on) {
  const name = `explore-${page.model.name}`;
  const onFresh = (id, action) =>
    on(id, () => (page.answers.fresh.has("run") ? action() : page.note(refuseExport(page.answers.problems))));
  const picture = () =>
    drawPicture(
      page.model,
      page.state,
      page.answers.run,
      page.answers.fresh.has("heads") ? effectsOn(page.answers.effects, page.focus) : null,
      page.limit,
      page.focus,
    );
  onFresh("export-svg", () => saveSvg(picture(), name));
  onFresh("export-png", () => savePng(picture(), name));
  onFresh("export-csv", () =>
    saveCsv(listRows(page.answers.run, page.answers.fresh.has("heads") ? page.answers.effects.units : null), name),
  );
  onFresh("export-json", () => saveJson(experimentFile(page.model, page.state, page.answers.run), name));
}

function refuseExport({ run }) {
  return run ? "There is no answer to export: see the line in red." : "Wait for the answer, then export.";
}

function connectKeys(page) {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("textarea, select, input[type=text]");
    if (typing || event.altKey || document.querySelector("dialog[open]")) return;
    const control = event.ctrlKey || event.metaKey;
    const action = control
      ? { z: () => page.undo() }[event.key]
      : { "?": () => showKeys(), a: () => page.everythingOn(), s: () => page.tryStrongest() }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

start().catch((error) => {
  byId("model").textContent = error.message;
});
