/* The replies side by side: a card an adaptation, started and stopped together. */

import { MOST } from "./adapters.js";
import { Card } from "./card.js";
import { duration } from "./show.js";

const one = (id) => document.getElementById(id);
const TICK = 100; // milliseconds

export class Board {
  /* removed: told the adaptation that a person has taken away. refused: told an error's status. */
  constructor({ removed, refused }) {
    this.events = { removed, refused };
    this.cards = new Map();
    this.clock = null;
  }

  get running() {
    return [...this.cards.values()].filter((card) => card.running);
  }

  /* Show exactly these, in this order; cards that stay keep their reply. */
  show(adaptations) {
    const wanted = new Set(adaptations.map((it) => it.id));
    for (const [id, card] of this.cards) {
      if (wanted.has(id)) continue;
      this.cards.delete(id);
      card.stop();
      card.node.remove();
    }
    for (const it of adaptations) {
      if (this.cards.has(it.id)) this.cards.get(it.id).describe(it);
      else this.add(it);
    }
    one("nobody").hidden = adaptations.length > 0;
    this.update();
  }

  add(it) {
    const taken = new Set([...this.cards.values()].map((card) => card.own));
    const own = Array.from({ length: MOST }, (_, i) => i).find((i) => !taken.has(i));
    const card = new Card(it, own, { changed: () => this.update(card), removed: this.events.removed });
    this.cards.set(it.id, card);
    one("replies").append(card.node);
  }

  run(request) {
    this.begun = performance.now();
    for (const card of this.cards.values()) card.run(request);
  }

  stop() {
    for (const card of this.cards.values()) card.stop();
  }

  update(card) {
    const running = this.running.length;
    one("run").setAttribute("aria-disabled", String(running > 0));
    one("stop-all").setAttribute("aria-disabled", String(running === 0));
    one("legend").hidden = ![...this.cards.values()].some((it) => it.total);
    this.wind(running > 0);
    const said = this.said(running);
    if (one("state").textContent !== said) one("state").textContent = said;
    if (card?.outcome === "failed") this.events.refused(card.error.status);
    this.scale();
  }

  wind(on) {
    if (on === (this.clock !== null)) return;
    if (!on) clearInterval(this.clock);
    this.clock = on ? setInterval(() => this.tick(), TICK) : null;
  }

  tick() {
    for (const card of this.running) card.tick();
    this.scale();
  }

  scale() {
    const spans = [...this.cards.values()].map((card) => card.span);
    for (const card of this.cards.values()) card.scale(Math.max(0, ...spans));
  }

  said(running) {
    const cards = [...this.cards.values()].filter((card) => card.running || card.outcome);
    if (cards.length === 0) return "";
    if (running > 0) return `${running} of ${cards.length} answering`;
    const number = (outcome) => cards.filter((card) => card.outcome === outcome).length;
    const [done, stopped, failed] = ["done", "stopped", "failed"].map(number);
    return [
      done && `${done} ${done === 1 ? "reply" : "replies"}`,
      stopped && `${stopped} stopped`,
      failed && `${failed} failed`,
      `after ${duration(Math.max(...cards.map((card) => card.total)))}`,
    ].filter(Boolean).join(", ");
  }
}
