// What the colours of the points say: an entry of the legend for each group of texts, and the entry of each text.
//
// buildColouring(data, name, network)   name: "label", "prediction", "right or wrong", "last token", "length", or a
//   method of clustering, whose clusters are those of the network. It returns {entries, of, colour, grouped, note}:
//   entries         [{name, count, shape, colour(theme), wanted: the words of the group in data.topics, or null}]
//   of(text)        the number of its entry, null where texts are not in groups
//   colour(text, theme)
//   grouped         whether the entries are groups, or steps of a scale
// markClass(k)                {shape, colour(theme)} of class k
// findTopics(data, wanted)    the lists of words of a group, one of each method
// spell(name)                 a name of a table as people write it: "t-SNE perplexity 30"
// namePooling(name)

import { showToken } from "./tokens.js";
import { classColour, sequential } from "./colours.js";

const COLOURS = 8; // of classes; the next eight have another shape
const GREY = { shape: 0, colour: (theme) => classColour(COLOURS, theme) };
const MOST_TOKENS = 12;
const POOLINGS = { last: "last token", mean: "mean of all tokens", mean_without_first: "mean without the first token" };

export function spell(name) {
  const spaced = name.replaceAll("_", " ").replace(/\b(pca|mds|umap|h?dbscan)\b/g, (short) => short.toUpperCase());
  return spaced.replace("tsne", "t-SNE").replace("kmeans", "k-means");
}

export function namePooling(name) {
  return POOLINGS[name] ?? spell(name);
}

export function markClass(k) {
  return { shape: Math.floor(k / COLOURS), colour: (theme) => classColour(k % COLOURS, theme) };
}

export function findTopics(data, wanted) {
  return data.topics.filter((topic) => Object.keys(wanted).every((name) => topic[name] === wanted[name]));
}

export function buildColouring(data, name, network) {
  const nameOf = (k) => data.labels[k];
  const wanted = (k) => ({ grouping: "class", cluster: data.labels[k] });
  if (name === "label") return groupTexts(data.label, { nameOf, wanted });
  if (name === "prediction") return groupTexts(data.predicted, { nameOf }); // the words are of labels
  if (name === "right or wrong") {
    const of = data.label.map((label, text) => (label === data.predicted[text] ? 0 : 1));
    return groupTexts(of, { nameOf: (k) => ["right", "wrong"][k], colour: (k) => [5, 4][k] });
  }
  if (name === "last token") return groupTokens(data);
  return name === "length" ? scaleLengths(data.length) : groupClusters(data, name, network);
}

// of: the number of each text's group, below 0 where it is in none.
function groupTexts(of, { nameOf, colour = (k) => k, wanted = () => null, rest = "none", note = "" }) {
  const counts = countEach(of);
  const numbers = [...counts.keys()].sort((a, b) => (a < 0) - (b < 0) || a - b);
  const entries = numbers.map((k) => ({
    name: k < 0 ? rest : nameOf(k),
    count: counts.get(k),
    ...(k < 0 ? GREY : markClass(colour(k))),
    wanted: k < 0 ? null : wanted(k),
  }));
  const entryOf = of.map((k) => numbers.indexOf(k));
  const colourOf = (text, theme) => entries[entryOf[text]].colour(theme);
  return { entries, of: (text) => entryOf[text], colour: colourOf, grouped: true, note };
}

function groupTokens(data) {
  const counts = countEach(data.last_token);
  const top = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)).slice(0, MOST_TOKENS);
  const of = data.last_token.map((token) => top.indexOf(token));
  return groupTexts(of, { nameOf: (k) => showToken(data.tokens[top[k]]), rest: "others" });
}

// The clusters of another network where this one has none.
function groupClusters(data, method, shown) {
  const fitting = data.clusters.filter((each) => each.method === method);
  const { network, of } = fitting.find((each) => each.network === shown) ?? fitting[0];
  const wanted = (k) => (method === data.named_by ? { grouping: "cluster", network, cluster: String(k) } : null);
  const nameOf = (k) => [`cluster ${k}`, nameTopic(data, wanted(k))].filter(Boolean).join(": ");
  const { layer, pooling } = data.maps[data.start];
  const space = `vectors of the ${network} network (layer ${layer}, ${namePooling(pooling)})`;
  return groupTexts(of, { nameOf, wanted, rest: "noise", note: `Found among ${space}, not in this picture.` });
}

function nameTopic(data, wanted) {
  const topic = wanted && findTopics(data, wanted).find(({ method }) => method === "log_odds");
  return topic ? topic.words.slice(0, 3).join(", ") : "";
}

// From short to long, by ratio: a few texts are much longer than all others.
function scaleLengths(lengths) {
  const [least, most] = [Math.min(...lengths), Math.max(...lengths)];
  const part = (length) => Math.log(length / least) / (Math.log(most / least) || 1);
  const shade = (length, theme) => sequential(0.4 + 0.6 * part(length), theme); // the ground of the page is no colour
  const steps = [...new Set([0, 0.25, 0.5, 0.75, 1].map((step) => Math.round(least * (most / least) ** step)))];
  const entries = steps.map((step) => ({ name: `${step} tokens`, shape: 0, colour: (theme) => shade(step, theme) }));
  return { entries, of: () => null, colour: (text, theme) => shade(lengths[text], theme), grouped: false, note: "" };
}

function countEach(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}
