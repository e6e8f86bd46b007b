/* The page: who is told what. */

import { Adapters } from "./adapters.js";
import { adaptations, setKey } from "./api.js";
import { Board } from "./board.js";
import * as composer from "./composer.js";
import * as examples from "./examples.js";
import { choices, tab } from "./kept.js";
import * as theme from "./theme.js";

const one = (id) => document.getElementById(id);

const board = new Board({
  removed: (id) => adapters.drop(id),
  refused: (status) => { if (status === 401) askKey(); },
});
const adapters = new Adapters((chosen) => {
  choices.set({ ...choices.get(), chosen: chosen.map((it) => it.id) });
  board.show(chosen);
  examples.show(chosen, useExample);
});

function useExample(source) {
  one("source").value = source;
  composer.keep();
  one("source").focus();
}

async function load() {
  one("found").textContent = "Asking the server…";
  try {
    const found = await adaptations();
    adapters.set(found, adapters.known.size ? adapters.chosen : choices.get()?.chosen ?? []);
    composer.say(null);
  } catch (error) {
    one("found").textContent = "The list could not be had.";
    if (error.status === 401) askKey();
    else composer.say(`The list of adaptations could not be had: ${error.message}`);
  }
}

function askKey() {
  one("change-key").hidden = false;
  if (!one("key-form").hidden) return;
  one("key-form").hidden = false;
  one("key").focus();
}

function useKey(key) {
  setKey(key);
  tab.set({ ...tab.get(), key });
}

one("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(one("key").value.trim());
  one("key").value = "";
  one("key-form").hidden = true;
  load();
});
one("change-key").addEventListener("click", askKey);
one("refresh").addEventListener("click", load);

one("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (board.running.length) return;
  const request = composer.request();
  if (request === null) return;
  if (board.cards.size) {
    board.run(request);
    return;
  }
  composer.say("Choose at least one adaptation.");
  adapters.open(true);
  one("search").focus();
});
one("stop-all").addEventListener("click", () => board.stop());
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) one("composer").requestSubmit();
  if (event.key === "Escape" && board.running.length) board.stop();
});

if (/Mac|iPhone|iPad/.test(navigator.platform)) one("run-keys").textContent = "⌘ ↵";
theme.start(one("theme"));
composer.restore();
const key = tab.get()?.key;
if (key) {
  setKey(key);
  one("change-key").hidden = false;
}
load();
