/* The list of adaptations: searched, filtered, ordered, chosen from. */

import { count, facts } from "./show.js";

/* As many replies as a browser streams from one server at a time, over all its tabs. */
export const MOST = 6;
const PAGE = 100;

const one = (id) => document.getElementById(id);
const byName = (a, b) => a.id.localeCompare(b.id, "en", { numeric: true });
const byNumber = (key) => (a, b) => (a[key] ?? Infinity) - (b[key] ?? Infinity) || byName(a, b);
const ORDERS = {
  name: byName,
  task: (a, b) => (a.task ?? "\uffff").localeCompare(b.task ?? "\uffff", "en") || byName(a, b),
  trainable: byNumber("trainable"),
  bytes: byNumber("bytes"),
};

export class Adapters {
  /* changed: told whenever other adaptations are chosen. */
  constructor(changed) {
    this.changed = changed;
    this.known = new Map();
    this.chosen = [];
    this.shown = PAGE;
    for (const id of ["search", "method", "task", "order"]) {
      one(id).addEventListener("input", () => { this.shown = PAGE; this.draw(); });
    }
    one("more").addEventListener("click", () => this.showMore());
    one("none").addEventListener("click", () => this.choose([]));
    one("list").addEventListener("change", (event) => this.toggle(event.target));
    one("list").addEventListener("keydown", (event) => this.move(event));
    one("browse").addEventListener("click", () => this.open(!one("browser").classList.contains("open")));
  }

  /* What the server has now; what is chosen and gone is chosen no more. */
  set(found, wanted) {
    this.known = new Map(found.map((it) => [it.id, it]));
    fill(one("method"), found.map((it) => it.method));
    fill(one("task"), found.map((it) => it.task));
    const kept = wanted.filter((id) => this.known.has(id)).slice(0, MOST);
    this.choose(kept.length || this.known.size === 0 ? kept : this.suggested());
    if (this.known.size === 0) this.open(true);
  }

  /* At a first visit: up to three of the first task there is, so that something can be run. */
  suggested() {
    const ordered = [...this.known.values()].filter((it) => !it.base).sort(ORDERS.task);
    return ordered.filter((it) => it.task === ordered[0].task).slice(0, 3).map((it) => it.id);
  }

  choose(ids) {
    this.chosen = ids;
    this.draw();
    this.changed(ids.map((id) => this.known.get(id)));
  }

  drop(id) {
    this.choose(this.chosen.filter((other) => other !== id));
  }

  toggle(box) {
    if (!box.checked) this.drop(box.value);
    else if (this.chosen.length < MOST) this.choose([...this.chosen, box.value]);
  }

  open(wanted) {
    one("browser").classList.toggle("open", wanted);
    one("browse").setAttribute("aria-expanded", String(wanted));
    one("browse").textContent = wanted ? "Close" : "Choose";
  }

  matching() {
    const words = one("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [method, task] = [one("method").value, one("task").value];
    return [...this.known.values()]
      .filter((it) => !method || it.method === method)
      .filter((it) => !task || it.task === task)
      .filter((it) => {
        const text = `${it.id} ${it.method ?? ""} ${it.task ?? ""}`.toLowerCase();
        return words.every((word) => text.includes(word));
      })
      .sort(ORDERS[one("order").value]);
  }

  draw() {
    const found = this.matching();
    const shown = found.slice(0, this.shown);
    const focused = document.activeElement?.closest?.("#list") && document.activeElement.value;
    one("list").replaceChildren(...shown.map((it) => this.item(it)));
    if (focused) this.box(focused)?.focus();
    one("more").hidden = shown.length === found.length;
    one("found").textContent = this.said(found.length, shown.length);
    one("chosen-count").textContent = `${this.chosen.length} chosen${this.chosen.length < MOST ? "" : ", the most"}`;
    one("none").disabled = this.chosen.length === 0;
  }

  said(found, shown) {
    if (this.known.size === 0) return "The server has no adaptations.";
    if (found === 0) return "None fits; search for less.";
    const all = found === this.known.size ? `${count(found)} in all` : `${count(found)} of ${count(this.known.size)}`;
    return shown < found ? `${all}, ${count(shown)} shown` : all;
  }

  item(it) {
    const item = one("item-template").content.cloneNode(true).firstElementChild;
    const box = item.querySelector("input");
    box.value = it.id;
    box.checked = this.chosen.includes(it.id);
    box.disabled = !box.checked && this.chosen.length >= MOST;
    item.querySelector(".name").textContent = it.id;
    item.querySelector(".facts").textContent = facts(it);
    return item;
  }

  box(id) {
    return [...one("list").querySelectorAll("input")].find((box) => box.value === id);
  }

  showMore() {
    const first = this.shown;
    this.shown += PAGE;
    this.draw();
    one("list").querySelectorAll("input")[first]?.focus();
  }

  move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const boxes = [...one("list").querySelectorAll("input:enabled")];
    boxes[boxes.indexOf(event.target) + step]?.focus();
    event.preventDefault();
  }
}

function fill(select, values) {
  const before = select.value;
  const names = [...new Set(values.filter(Boolean))].sort((a, b) => a.localeCompare(b, "en"));
  const options = names.map((name) => new Option(name, name));
  select.replaceChildren(new Option("All", ""), ...options);
  select.value = names.includes(before) ? before : "";
}
