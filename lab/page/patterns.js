// How much one head follows each pattern in this text, beside what uniform attention to all keys that the layer lets a
// query see would. Exports: describePatterns.
//
// The scores are those of `make attend`: the mean over the queries of the text but the first, which sees only itself.

const LOCAL = 4; // the last so many keys, the query's own included
const PATTERNS = {
  previous: (i, j) => j === i - 1,
  first: (i, j) => j === 0,
  itself: (i, j) => j === i,
  [`last ${LOCAL}`]: (i, j) => j > i - LOCAL,
};

// "over all queries: previous 0.14 (uniform 0.16), first ..."; empty without a map, or for one token.
export function describePatterns({ map, recording, layer }) {
  const [n, window] = [recording.tokens.length, recording.windows[layer]];
  if (!map || n < 2) return "";
  const parts = Object.entries(PATTERNS).map(([name, follows]) => {
    const score = average(n, follows, (i, j) => map.at(i, j));
    const uniform = average(n, follows, (i, j) => (j > i - window ? 1 / Math.min(i + 1, window) : 0));
    return `${name} ${score.toFixed(2)} (uniform ${uniform.toFixed(2)})`;
  });
  return `Over all queries: ${parts.join(", ")}`;
}

function average(n, follows, weight) {
  let sum = 0;
  for (let i = 1; i < n; i++) for (let j = 0; j <= i; j++) if (follows(i, j)) sum += weight(i, j);
  return sum / (n - 1);
}
