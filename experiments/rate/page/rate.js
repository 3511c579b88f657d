// Start the page: ask for a pseudonym, show one item after the other, and save each answer before the next is shown.
// Read next: items.js (what an item looks like, and how it is answered).

import { announce } from "./nodes.js";
import { drawItem, redrawWeights } from "./items.js";
import { fetchJson } from "./requests.js";
import { onTheme } from "./colours.js";
import { saveLines } from "./exports.js";

const KEPT = "pseudonym"; // in this tab, so that the page can be loaded again
const SOONEST = 400; // ms after which an item can be answered: who clicks twice has not seen it
const byId = (id) => document.getElementById(id);
let state = null; // what the server said last
let shown = null; // the item on the page: the next one, or the one before it
let since = 0; // when it was shown
let saving = false;

async function ask(path, body) {
  byId("error").textContent = "";
  try {
    return await fetchJson(`/api/${path}`, body);
  } catch (error) {
    byId("error").textContent = error.message;
    return null;
  }
}

async function begin(pseudonym) {
  const answer = await ask("start", { pseudonym });
  if (!answer) return;
  sessionStorage.setItem(KEPT, pseudonym);
  byId("who").textContent = pseudonym;
  byId("welcome").hidden = true;
  follow(answer);
}

// Show where the rater is.
function follow(answer) {
  state = answer;
  byId("progress").hidden = false;
  byId("bar").max = state.total;
  byId("bar").value = state.done;
  byId("count").textContent = `${state.done} of ${state.total}`;
  byId("thanks").hidden = state.step !== null;
  byId("note").textContent = state.note ?? "";
  if (state.step) show(state.step);
  else end();
}

function show(step) {
  shown = step;
  byId("item").hidden = false;
  byId("thanks").hidden = true;
  const again = "answer" in step;
  byId("place").textContent = `Part ${step.part} of ${step.parts}, ${step.place} of ${step.places}${again ? ", once more" : ""}`;
  byId("title").textContent = step.title;
  byId("instruction").textContent = step.instruction;
  byId("back").hidden = again || !state.previous;
  byId("forth").hidden = !again;
  if (step.place === 1 && step.part > 1 && !again && !state.note)
    byId("note").textContent = "A new part begins. All is saved: this is a good moment for a break.";
  drawItem(step, save);
  scrollTo(0, 0);
  byId("title").focus({ preventScroll: true });
  announce(byId("live"), `${byId("place").textContent}: ${step.title}`);
  since = performance.now();
}

async function save(answer) {
  if (saving || performance.now() - since < SOONEST) return;
  saving = true;
  const seconds = (performance.now() - since) / 1000;
  const pseudonym = sessionStorage.getItem(KEPT);
  const next = await ask("answer", { pseudonym, lines: state.lines, step: shown.name, answer, seconds });
  saving = false;
  if (next) follow(next);
}

function end() {
  shown = null;
  byId("item").hidden = true;
  byId("done").focus();
  announce(byId("live"), "All items are answered.");
}

function connect() {
  byId("welcome").addEventListener("submit", (event) => {
    event.preventDefault();
    begin(byId("pseudonym").value.trim().toLowerCase());
  });
  byId("back").addEventListener("click", () => show(state.previous));
  byId("forth").addEventListener("click", () => follow(state));
  byId("download").addEventListener("click", async () => {
    const pseudonym = sessionStorage.getItem(KEPT);
    const answer = await ask("download", { pseudonym });
    if (answer) saveLines(answer.lines, pseudonym);
  });
  byId("next-rater").addEventListener("click", () => {
    sessionStorage.removeItem(KEPT);
    location.reload();
  });
  onTheme(redrawWeights);
}

connect();
const kept = sessionStorage.getItem(KEPT);
if (kept) begin(kept);
