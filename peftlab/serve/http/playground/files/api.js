/* The server's side: the adaptations that it has, and a completion as it comes. */

const session = { key: "" };

/* What the server, or the way to it, answered instead of a reply. wait: seconds, or null. */
export class Refused extends Error {
  constructor(status, message, wait = null) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

export const setKey = (key) => { session.key = key; };

export async function adaptations() {
  const found = await (await ask("v1/models")).json();
  return found.data.map(({ id, parent, peftlab }) => ({ id, base: parent === null, ...peftlab }));
}

/* A source that this adaptation has learnt to answer; null where none is known. */
export async function example(id) {
  return (await (await ask(`v1/models/${encodeURIComponent(id)}/example`)).json()).source;
}

/* Yields each choice of the stream: its text, its tokens, how it ends. A stream that ends without
   saying so is an error. Log-probabilities are asked for, since they tell the tokens one by one. */
export async function* complete(request, signal) {
  const body = JSON.stringify({ ...request, stream: true, logprobs: 0 });
  const answer = await ask("v1/completions", { method: "POST", body, signal });
  for await (const data of events(answer.body)) {
    if (data === "[DONE]") return;
    const piece = JSON.parse(data);
    if (piece.error) throw new Refused(0, piece.error.message);
    yield piece.choices[0];
  }
  throw new Refused(0, "The connection ended before the reply did.");
}

async function ask(path, options = {}) {
  const headers = { ...(options.body && { "Content-Type": "application/json" }) };
  if (session.key) headers.Authorization = `Bearer ${session.key}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server cannot be reached.");
  }
  if (!answer.ok) throw new Refused(answer.status, await message(answer), wait(answer));
  return answer;
}

async function message(answer) {
  const text = await answer.text().catch(() => "");
  try {
    const said = JSON.parse(text).error.message;
    if (said) return String(said);
  } catch { /* not OpenAI's form of an error: a proxy may have answered */ }
  return `The server answered ${answer.status} ${answer.statusText}`.trim();
}

function wait(answer) {
  const seconds = Number(answer.headers.get("Retry-After") ?? NaN);
  return Number.isFinite(seconds) ? seconds : null;
}

/* The data of server-sent events, wherever the network cuts them. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (held + value).split(/\r\n|\n|\r(?=[^\n])/);
      held = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => { /* it is gone already */ });
  }
}
