/* Light or dark: what the system says, until the button is pressed. */

import { theme } from "./kept.js";

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";

export function start(button) {
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  };
  if (["light", "dark"].includes(theme.get())) root.dataset.theme = theme.get();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    theme.set(root.dataset.theme);
    show();
  });
  dark.addEventListener("change", show);
  show();
}
