// Tokens as people can read them.
//
// showToken(piece)      a visible label: a leading space as a thin mark, what cannot be seen by its name
// labelTokens(tokens)   the labels of all tokens; tokens that share a character are counted: "🙂 1/2", "🙂 2/2"
// tokenElement(label)   the label as <bdi>, which keeps right-to-left words inside their own box
// isolate(label)        the same inside a line of text: the words around it stay in their order
// shorten(label, most)  at most so many characters

const NAMED = { " ": "·", "\n": "↵", "\t": "⇥", "\r": "␍" };
const UNSEEN = /[\p{C}\p{Z}\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufe00-\ufe0f]/gu;

export function showToken(piece) {
  const visible = piece.replace(UNSEEN, (character) => NAMED[character] ?? codePoint(character));
  if (visible === "") return "(empty)";
  return /^\p{M}/u.test(visible) ? "◌" + visible : visible; // an accent alone needs something to stand on
}

function codePoint(character) {
  return "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
}

export function labelTokens(tokens) {
  const labels = [];
  for (let first = 0; first < tokens.length;) {
    let last = first; // of the run of tokens that share characters with their neighbours
    while (last + 1 < tokens.length && tokens[last + 1].start < tokens[last].end) last += 1;
    for (let i = first; i <= last; i += 1) {
      const label = showToken(tokens[i].piece);
      labels.push(first === last ? label : `${label} ${i - first + 1}/${last - first + 1}`);
    }
    first = last + 1;
  }
  return labels;
}

export function tokenElement(label) {
  const element = document.createElement("bdi");
  const mark = label.match(/^·*/)[0];
  if (mark) {
    const span = document.createElement("span");
    span.className = "space-mark";
    span.textContent = mark;
    element.append(span);
  }
  element.append(label.slice(mark.length));
  return element;
}

export function isolate(label) {
  return "\u2068" + label + "\u2069"; // first strong isolate .. pop directional isolate
}

export function shorten(label, most) {
  const characters = Array.from(label);
  return characters.length <= most ? label : characters.slice(0, most - 1).join("") + "…";
}
