// A state as the fragment of an address, and back. A fragment never leaves the browser.
//
// #v=1&text=...&heads=0.3,1.2&mlps=2&tokens=4:hide&fill=zero&look=0.3&model=<first 12 digits of the SHA-256>
// Exports: writeFragment, readFragment, MOST_CHARACTERS.

import { emptyState } from "./state.js";

export const MOST_CHARACTERS = 2000;

export function writeFragment(state, model) {
  const fields = new URLSearchParams({ v: "1", text: state.text });
  if (state.heads.length) fields.set("heads", state.heads.join(","));
  if (state.mlps.length) fields.set("mlps", state.mlps.join(","));
  const tokens = Object.entries(state.tokens);
  if (tokens.length) fields.set("tokens", tokens.map(([position, removal]) => `${position}:${removal}`).join(","));
  fields.set("fill", state.fill);
  if (state.fill === "text") fields.set("other", state.other);
  fields.set("look", state.look.join("."));
  if (state.focus !== null) fields.set("focus", state.focus);
  if (state.view !== "attention") fields.set("view", state.view);
  fields.set("model", model.sha256.slice(0, 12));
  return "#" + fields;
}

// Return {state, problem}: problem is a line for the user, or null. What this network does not have is left out.
export function readFragment(fragment, model) {
  const fields = new URLSearchParams(fragment.slice(1));
  const names = (list) => list.map((entry) => entry.name);
  const state = emptyState(fields.get("text") ?? "", model.fills[0].name, model.removals[0].name);
  const list = (name) => (fields.get(name) ?? "").split(",").filter(Boolean);
  const whole = (digits, end) => /^\d{1,6}$/.test(digits) && Number(digits) < end;
  const isHead = (name) =>
    /^\d+\.\d+$/.test(name) && whole(name.split(".")[0], model.n_layer) && whole(name.split(".")[1], model.n_head);
  const left = [];
  const keep = (items, valid) => items.filter((item) => valid(item) || (left.push(item), false));

  state.heads = [...new Set(keep(list("heads"), isHead).map((name) => name.split(".").map(Number).join(".")))];
  state.mlps = [...new Set(keep(list("mlps"), (digits) => whole(digits, model.n_layer)).map(Number))];
  const isRemoval = (pair) => /^\d{1,6}:/.test(pair) && names(model.removals).includes(pair.split(":")[1]);
  for (const pair of keep(list("tokens"), isRemoval)) state.tokens[Number(pair.split(":")[0])] = pair.split(":")[1];
  const fill = fields.get("fill") ?? state.fill;
  state.fill = keep([fill], (name) => names(model.fills).includes(name))[0] ?? state.fill;
  state.other = fields.get("other") ?? "";
  const look = keep(fields.has("look") ? [fields.get("look")] : [], isHead)[0];
  if (look !== undefined) state.look = look.split(".").map(Number);
  state.unit = { layer: state.look[0], head: state.look[1] };
  state.focus = fields.get("focus");
  state.view = fields.get("view") ?? "attention";
  return { state, problem: nameProblem(fields, model, left) };
}

function nameProblem(fields, model, left) {
  const sha = fields.get("model"),
    mine = model.sha256.slice(0, 12);
  if ((fields.get("v") ?? "1") !== "1")
    return "This link is of another version of the page; what it shares with this one is shown.";
  if (sha && sha !== mine)
    return `This link was made with another network (${sha.slice(0, 12)}; this one is ${mine}): the numbers differ.`;
  if (left.length) return `This link asks for what this network does not have: ${left.join(", ").slice(0, 80)}.`;
  return null;
}
