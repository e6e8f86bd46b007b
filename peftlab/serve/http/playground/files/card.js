/* One adaptation's reply: its text as it comes, how long it took, how it ended. */

import { complete, Refused } from "./api.js";
import { count, duration, facts, rate } from "./show.js";

const WAITING = "Nothing asked yet.";

export class Card {
  /* own: number of its colour. changed: told whenever it starts, gets a piece or ends. */
  constructor(it, own, { changed, removed }) {
    this.it = it;
    this.own = own;
    this.changed = changed;
    this.running = false;
    this.outcome = null; // "done", "stopped" or "failed" of the last request
    this.total = 0; // milliseconds
    this.node = document.getElementById("card-template").content.cloneNode(true).firstElementChild;
    this.node.dataset.adapter = it.id;
    this.node.style.setProperty("--own", `var(--c${own})`);
    this.node.setAttribute("aria-label", `Reply of ${it.id}`);
    this.part("name").textContent = it.id;
    this.describe(it);
    this.part("text").dataset.empty = WAITING;
    this.part("remove").setAttribute("aria-label", `Take ${it.id} away`);
    this.part("remove").addEventListener("click", () => removed(it.id));
    this.part("again").addEventListener("click", () => this.run(this.request));
    this.part("copy").addEventListener("click", () => this.copy());
  }

  describe(it) {
    this.part("facts").textContent = facts(it);
  }

  part(name) {
    return this.node.querySelector(`.${name}`);
  }

  async run(request) {
    this.stop();
    const mine = new AbortController();
    this.request = request;
    this.begin(mine);
    try {
      for await (const choice of complete({ ...request, model: this.it.id }, mine.signal)) {
        if (this.aborter !== mine) return;
        this.take(choice);
      }
      this.end(mine, "done", this.ending());
    } catch (error) {
      if (mine.signal.aborted) this.end(mine, "stopped", "Stopped here.");
      else this.fail(mine, error);
    }
  }

  stop() {
    this.aborter?.abort();
  }

  begin(aborter) {
    Object.assign(this, { aborter, running: true, outcome: null, begun: performance.now() });
    Object.assign(this, { first: null, total: 0, tokens: 0, reason: null });
    this.said = document.createTextNode("");
    this.part("text").replaceChildren(this.said);
    this.part("text").dataset.empty = "";
    this.part("problem").hidden = this.part("again").hidden = this.part("copy").hidden = true;
    this.part("end").textContent = "Waiting for its first token";
    this.node.setAttribute("aria-busy", "true");
    this.tick();
    this.changed();
  }

  take({ text, logprobs, finish_reason: reason }) {
    const tokens = logprobs?.tokens.length ?? 0;
    if (tokens && this.tokens === 0) {
      this.first = performance.now() - this.begun;
      this.part("end").textContent = "Answering";
    }
    this.tokens += tokens;
    this.said.appendData(text);
    this.reason = reason ?? this.reason;
  }

  /* Called while it runs, so that the numbers move. */
  tick() {
    if (this.running) this.total = performance.now() - this.begun;
    this.part("first").textContent = this.first === null ? "–" : duration(this.first);
    this.part("total").textContent = duration(this.total);
    this.part("tokens").textContent = count(this.tokens);
    this.part("speed").textContent = rate(this.tokens, this.total);
  }

  ending() {
    if (this.reason === "length") return `Cut at ${count(this.request.max_tokens)} tokens.`;
    return this.request.stop ? "Came to its end, or to a text to stop before." : "Came to its end.";
  }

  end(mine, outcome, words) {
    if (this.aborter !== mine) return; // another request has begun meanwhile
    this.tick();
    Object.assign(this, { running: false, outcome });
    this.part("end").textContent = words;
    this.part("text").dataset.empty = outcome === "done" ? "The reply is empty." : "Nothing came.";
    this.part("copy").hidden = !this.said.data || !navigator.clipboard;
    this.node.removeAttribute("aria-busy");
    this.changed();
  }

  fail(mine, error) {
    if (this.aborter !== mine) return;
    this.error = error;
    const wait = error instanceof Refused ? error.wait : null;
    const later = wait === null ? "" : `\nIt asks to wait ${count(wait)} s.`;
    this.part("problem").textContent = `${error.message}${later}`;
    this.part("problem").hidden = false;
    const again = this.part("again");
    again.hidden = false;
    again.disabled = wait > 0;
    if (wait > 0) setTimeout(() => { again.disabled = false; }, 1000 * wait);
    this.end(mine, "failed", error.status ? "Refused." : "Failed.");
  }

  /* The length of its bar; what was refused has taken no time worth comparing. */
  get span() {
    return this.outcome === "failed" && this.first === null ? 0 : this.total;
  }

  /* Its bar, against the longest of all. */
  scale(longest) {
    const first = this.first ?? this.span;
    const width = (time) => `${longest ? (100 * time) / longest : 0}%`;
    this.node.querySelector(".bar .first-part").style.width = width(first);
    this.node.querySelector(".bar .rest-part").style.width = width(this.span - first);
  }

  async copy() {
    const button = this.part("copy");
    await navigator.clipboard.writeText(this.said.data);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }
}
