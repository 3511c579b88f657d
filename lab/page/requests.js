// Talk to the server. Each kind of request has at most one answer on its way: a new one aborts the former, and an answer
// that comes late all the same is dropped. Exports: Requests, fetchJson.

const TRIES = 20,
  PAUSE = 150; // a busy server tells with Retry-After to ask again, in ms here

export class Requests {
  #counters = {};
  #running = {};

  // Return the answer, or null where a newer request of this kind, or `abort`, has overtaken it.
  // Throws Error(the server's line).
  async ask(kind, body) {
    this.abort(kind);
    const counter = this.#counters[kind];
    const controller = (this.#running[kind] = new AbortController());
    try {
      const answer = await fetchJson(`/api/${kind}`, body, controller.signal);
      return counter === this.#counters[kind] ? answer : null;
    } catch (error) {
      if (counter !== this.#counters[kind]) return null;
      throw error;
    }
  }

  abort(...kinds) {
    for (const kind of kinds) {
      this.#counters[kind] = (this.#counters[kind] ?? 0) + 1;
      this.#running[kind]?.abort();
    }
  }
}

// GET without a body, else POST. Throws Error with one line.
export async function fetchJson(path, body, signal) {
  for (let tries = 1; ; tries++) {
    const response = await reach(path, body, signal);
    if (response.headers.has("retry-after") && tries < TRIES) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
      if (signal?.aborted) throw new Error("overtaken");
      continue;
    }
    const answer = await response.json().catch(() => ({ error: `${path} answered ${response.status} without JSON` }));
    if (!response.ok) throw new Error(answer.error ?? `${path} answered ${response.status}`);
    return answer;
  }
}

async function reach(path, body, signal) {
  const post = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  try {
    return await fetch(path, { ...(body === undefined ? {} : post), signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error(
      "The server does not answer: does the program in the terminal still run? Nothing is lost; try once more.",
    );
  }
}
