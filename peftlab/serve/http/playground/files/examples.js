/* Sources to begin with: one for each task of the chosen adaptations, where one is known. */

import { example } from "./api.js";

const box = document.getElementById("examples");
const known = new Map();
let chosen = [];

/* Ask for those that are not known yet, one after the other, so that replies keep their way. */
export async function show(adaptations, use) {
  chosen = adaptations;
  draw(use);
  for (const { id } of adaptations) {
    if (known.has(id)) continue;
    known.set(id, null);
    try {
      known.set(id, await example(id));
    } catch {
      known.delete(id); // the list and the replies tell what is wrong
      return;
    }
    draw(use);
  }
}

function draw(use) {
  const found = new Map();
  for (const { id, task } of chosen) {
    const source = known.get(id);
    if (source && ![...found.values()].includes(source)) found.set(task ?? id, source);
  }
  const buttons = [...found].map(([name, source]) => button(name, source, use));
  box.hidden = buttons.length === 0;
  box.replaceChildren("Example:", ...buttons);
}

function button(name, source, use) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = name;
  made.addEventListener("click", () => use(source));
  return made;
}
