// Read what lab/attention.py packed: where the heads look in one text of T tokens.
//
// decodeRecording(json)  an object with tokens, labels, names (labels inside a line of text), hidden (a Set), layers,
//   heads, width, scale (of q times k), windows (by layer, how many keys up to its own a query may attend to) and
//   map(layer, head, moved)       {at(query, key)}: the weights, or the shares of what moved; null where not packed
//   neuron(layer, head, query)    {q, k, product, score, masked, weights}: how these weights come about; null likewise
// chooseHead(recording, query)   {layer, head}: the head that looks most at other tokens than the first and itself
// withoutFirst(map)              the same map without key 0, each row made to sum to 1 again

import { isolate, labelTokens } from "./tokens.js";

export function decodeRecording(json) {
  const T = json.tokens.length;
  const D = json.head_width;
  const hidden = new Set(json.hidden);
  const mapIndex = indexHeads(json.maps.heads);
  const neuronIndex = indexHeads(json.neurons.heads);
  const weights = decodeBytes(json.maps.weights);
  const moved = decodeBytes(json.maps.moved);
  const q = decodeFloats(json.neurons.q);
  const k = decodeFloats(json.neurons.k);
  const computed = new Map(); // the weights of a head whose q and k are packed: exact, where the bytes are rounded

  function neuron(layer, head, query) {
    const index = neuronIndex.get(`${layer},${head}`);
    if (index === undefined) return null;
    const row = (values, position) => values.subarray((index * T + position) * D, (index * T + position + 1) * D);
    return weighKeys(
      row(q, query),
      json.tokens.map((_, key) => row(k, key)),
      json.scale,
      json.tokens.map((_, key) => key > query || key <= query - json.windows[layer] || hidden.has(key)),
    );
  }

  function computeWeights(layer, head) {
    const name = `${layer},${head}`;
    if (!computed.has(name))
      computed.set(
        name,
        json.tokens.map((_, query) => neuron(layer, head, query).weights),
      );
    const rows = computed.get(name);
    return { at: (query, key) => (key > query ? 0 : rows[query][key]) };
  }

  function map(layer, head, ofMoved = false) {
    if (!ofMoved && neuronIndex.has(`${layer},${head}`)) return computeWeights(layer, head);
    const index = mapIndex.get(`${layer},${head}`);
    if (index === undefined) return null;
    const bytes = ofMoved ? moved : weights;
    const start = (index * T * (T + 1)) / 2;
    return { at: (query, key) => (key > query ? 0 : bytes[start + (query * (query + 1)) / 2 + key] / 255) };
  }

  const labels = labelTokens(json.tokens);
  return {
    tokens: json.tokens,
    labels,
    names: labels.map(isolate),
    hidden,
    layers: json.n_layer,
    heads: json.n_head,
    width: D,
    scale: json.scale,
    windows: json.windows,
    map,
    neuron,
  };
}

// One query over all keys, step by step as Attention.attend in model/gpt2.py, in float64.
function weighKeys(q, k, scale, masked) {
  const product = k.map((key) => Float64Array.from(key, (value, d) => value * q[d]));
  const score = product.map((values) => values.reduce((sum, value) => sum + value, 0) * scale);
  const highest = Math.max(...score.filter((_, key) => !masked[key]));
  const powers = score.map((value, key) => (masked[key] ? 0 : Math.exp(value - highest)));
  const total = powers.reduce((sum, value) => sum + value, 0);
  const weights = powers.map((value) => (total > 0 ? value / total : 0)); // no key left to look at: all 0
  return { q, k, product, score, masked, weights };
}

export function chooseHead(recording, query) {
  let best = { layer: 0, head: 0 };
  let most = -1;
  for (let layer = 0; layer < recording.layers; layer += 1) {
    for (let head = 0; head < recording.heads; head += 1) {
      const map = recording.map(layer, head);
      let elsewhere = 0;
      for (let key = 1; map && key < query; key += 1) elsewhere += map.at(query, key);
      if (map && elsewhere > most) [best, most] = [{ layer, head }, elsewhere];
    }
  }
  return best;
}

export function withoutFirst(map) {
  const rest = new Map(); // query -> mass of its other keys
  function measureRest(query) {
    let mass = 0;
    for (let key = 1; key <= query; key += 1) mass += map.at(query, key);
    rest.set(query, mass);
    return mass;
  }
  return {
    at(query, key) {
      const mass = rest.get(query) ?? measureRest(query);
      return key === 0 || mass === 0 ? 0 : map.at(query, key) / mass;
    },
  };
}

function indexHeads(heads) {
  return new Map(heads.map(([layer, head], index) => [`${layer},${head}`, index]));
}

function decodeBytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

function decodeFloats(base64) {
  return new Float32Array(decodeBytes(base64).buffer); // little-endian, as every browser's machine is
}
