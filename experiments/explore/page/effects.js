// What switching off one more unit would do: the numbers behind the grid's colours, and in words.
//
// effects is {run, units}: answers of /api/run and /api/heads to the same experiment; null while there is none.
// Exports: effectsOn, changesPrediction, writeHint, strongest, describeUnit, describeAnswer.

import { describeSwitches, isOff, nameUnit } from "./state.js";
import { isolate } from "./tokens.js";
import { percent, points } from "./words.js";

// {heads: [L][H], mlps: [L]}: by how much each unit would change the probability of a label; null where nobody knows
export function effectsOn(effects, label) {
  const k = effects?.units.labels.indexOf(label) ?? -1;
  if (k < 0) return null;
  const after = effects.run.after[effects.run.labels.indexOf(label)];
  const effect = (p) => p[k] - after;
  return { heads: effects.units.heads.map((row) => row.map(effect)), mlps: effects.units.mlps.map(effect) };
}

function ofUnit(values, unit) {
  return unit.head === null ? values.mlps[unit.layer] : values.heads[unit.layer][unit.head];
}

// The server knows: of a language model, the likeliest token may be one that is not shown.
export function changesPrediction(effects, unit) {
  return effects !== null && ofUnit(effects.units.changed, unit);
}

// What to do next, above the grid: marks are sought in vain where there are none.
export function writeHint(effects) {
  const marked = effects === null || effects.units.changed.heads.flat().includes(true);
  if (marked || effects.run.predicted !== effects.run.predicted_before)
    return "Switch a head off: click a cell. Strong colours move the prediction most, ◥ changes it.";
  return "No single head changes this prediction: switch several off, or take another example.";
}

// Return the head that is on and takes most from the predicted label when it is switched off, one that changes the
// prediction first; null where all are off.
export function strongest(state, effects) {
  const losses = effectsOn(effects, effects.run.predicted).heads;
  const heads = losses
    .flatMap((row, layer) => row.map((effect, head) => ({ layer, head, effect })))
    .filter((unit) => !isOff(state, unit))
    .map((unit) => ({ ...unit, changes: changesPrediction(effects, unit) }));
  heads.sort((a, b) => b.changes - a.changes || a.effect - b.effect);
  return heads.length ? { layer: heads[0].layer, head: heads[0].head } : null;
}

// "head 0.3 off: joy 61.0 % → 48.7 % (−12.3 points), changes the prediction"; name: the label as it is shown
export function describeUnit(unit, state, effects, label, name) {
  if (isOff(state, unit)) return `${nameUnit(unit)} is off`;
  const k = effects?.units.labels.indexOf(label) ?? -1;
  if (k < 0) return nameUnit(unit);
  const after = effects.run.after[effects.run.labels.indexOf(label)];
  const p = ofUnit(effects.units, unit)[k];
  const numbers = `${isolate(name)} ${percent(after)} → ${percent(p)} (${points(p - after)} points)`;
  return `${nameUnit(unit)} off: ${numbers}${changesPrediction(effects, unit) ? ", changes the prediction" : ""}`;
}

// "joy 0.61, down 0.22; head 0.3 off", for those who do not see the bars
export function describeAnswer(run, state, label, show) {
  const k = run.labels.indexOf(label);
  const difference = run.after[k] - run.before[k];
  const moved =
    Math.abs(difference) < 0.005 ? "" : `, ${difference < 0 ? "down" : "up"} ${Math.abs(difference).toFixed(2)}`;
  const changed =
    run.predicted === run.predicted_before ? "" : `prediction changed to ${isolate(show(run.predicted))}; `;
  return `${changed}${isolate(show(label))} ${run.after[k].toFixed(2)}${moved}; ${describeSwitches(state)}`;
}
