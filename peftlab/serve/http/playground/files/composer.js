/* What is asked: the source and how replies are made, checked before anything is sent. */

import { choices, tab } from "./kept.js";

const one = (id) => document.getElementById(id);
const FIELDS = ["max-tokens", "temperature", "seed", "stop"];
const NAMES = { "max-tokens": "Most tokens", temperature: "Temperature", seed: "Seed" };

export function restore() {
  const settings = choices.get()?.settings ?? {};
  for (const id of FIELDS) if (typeof settings[id] === "string") one(id).value = settings[id];
  one("truncate").checked = settings.truncate === true;
  one("source").value = tab.get()?.source ?? "";
  one("composer").addEventListener("input", keep);
}

export function keep() {
  const settings = Object.fromEntries(FIELDS.map((id) => [id, one(id).value]));
  settings.truncate = one("truncate").checked;
  choices.set({ ...choices.get(), settings });
  tab.set({ ...tab.get(), source: one("source").value });
}

/* The request without its model; null, and the problem said, where it cannot be one. */
export function request() {
  const problem = one("source").value.trim() ? wrong() : [one("source"), "Type a source first."];
  for (const id of ["source", ...Object.keys(NAMES)]) one(id).removeAttribute("aria-invalid");
  say(problem?.[1] ?? null);
  if (problem) {
    problem[0].setAttribute("aria-invalid", "true");
    problem[0].focus();
    return null;
  }
  const stop = stops(one("stop").value);
  return {
    prompt: one("source").value,
    max_tokens: Number(one("max-tokens").value),
    temperature: Number(one("temperature").value),
    ...(one("seed").value !== "" && { seed: Number(one("seed").value) }),
    ...(stop.length && { stop }),
    ...(one("truncate").checked && { truncate: true }),
  };
}

export function say(problem) {
  one("problem").textContent = problem ?? "";
  one("problem").hidden = problem === null;
}

function wrong() {
  for (const [id, name] of Object.entries(NAMES)) {
    const field = one(id);
    if (!field.validity.valid) return [field, `${name}: ${expected(field)} was expected.`];
  }
  return null;
}

function expected(field) {
  const whole = field.step === "any" ? "a number" : "a whole number";
  return field.id === "seed" ? `${whole}, at least 0, or nothing` : `${whole} from ${field.min} to ${field.max}`;
}

/* One a line; \n, \t and \\ stand for a line break, a tab and a backslash. */
function stops(text) {
  const signs = { n: "\n", t: "\t", "\\": "\\" };
  return text.split("\n").filter(Boolean).map((line) => line.replace(/\\([nt\\])/g, (_, sign) => signs[sign]));
}
